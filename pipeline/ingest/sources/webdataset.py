"""WebDataset tars as people have them, img2dataset's among them: images with `.json`, `.txt` or `.cls` of one name.

https://github.com/webdataset/webdataset. The package itself says which members are one sample: those that follow one
another and whose names agree up to the first dot. `.txt` is a caption, `.cls` the label, as a number or a name, and
`.json` may hold both. Images stay where they are, in the tar: the door reads them by their place.
"""

from __future__ import annotations

import fnmatch
import json
import re
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from webdataset.shardlists import expand_urls
from webdataset.tariterators import group_by_keys

from contracts.errors import DataError
from contracts.raw import ImagePart, ItemKind, Problem, RawRecord
from contracts.records import Caption
from pipeline.ingest.sources._files import Spool, check_classes, record_key, shown, whole_number
from pipeline.ingest.sources._splits import SPLITS, SplitNames, split_names
from pipeline.system.reading import PatientFile, is_folder, listed

_IMAGES = ("jpg", "jpeg", "png", "webp")
_ANNOTATIONS: dict[str, ItemKind] = {"json": "caption", "txt": "caption", "cls": "label"}
_MAX_ANNOTATION_BYTES = 16 << 20
_META = re.compile(r"__[^/]*__($|/)")  # what the package passes over


@dataclass(frozen=True, kw_only=True)
class Config:
    """`tars` are the files of a split, below the data set's folder: `{split}`, `*` in a file's name and `{000..146}`
    are filled in; without `{split}` they are train's.

    `splits` says how the files call a split where they do not call it so: `{val: valid}`. `caption` and `label` are the
    keys of `.json` that hold them. `classes` names the numbers from 0 on that `.cls` may hold; otherwise the labels
    that are found are the classes, which takes one more reading of all tars.
    """

    tars: str = "{split}/*.tar"
    splits: SplitNames = field(default_factory=dict)
    caption: str = "caption"
    label: str = "label"
    classes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_classes(self.classes)


def splits(root: Path, config: Config) -> tuple[str, ...]:
    """Splits that have at least one tar."""
    return tuple(split for split in SPLITS if _tars(root, split, config))


def _tars(root: Path, split: str, config: Config) -> list[Path]:
    if "{split}" not in config.tars and split != "train":
        return []
    patterns = [config.tars.replace("{split}", name) for name in split_names(split, config.splits)]
    found: set[Path] = set()
    for path in (root / name for pattern in patterns for name in expand_urls(pattern)):
        if is_folder(path.parent):
            found.update(tar for tar in listed(path.parent) if fnmatch.fnmatchcase(tar.name, path.name))
    return sorted(found)


def classes(root: Path, config: Config) -> tuple[str, ...]:
    """The configured list, or the labels of all splits: by number if they are numbers, else sorted as text."""
    if config.classes:
        return config.classes
    found: set[str] = set()
    for split in splits(root, config):
        for tar in _tars(root, split, config):
            for sample in _samples(tar, []):
                found.update(_labels(sample, config, []))
    is_numbered = all(name.isdecimal() for name in found)
    return tuple(sorted(found, key=lambda name: (int(name) if is_numbered else 0, name)))


def read(root: Path, split: str, config: Config) -> Iterator[RawRecord | Problem]:
    """Records of one split in ascending key order, after the problems found in its tars.

    Raises:
        DataError: a tar is compressed, cut or none.
    """
    tars = _tars(root, split, config)
    keys: list[str] = []
    seen: set[str] = set()
    with Spool() as spool:
        for number, tar in enumerate(tars):
            problems: list[Problem] = []
            for sample in _samples(tar, problems):
                name = sample["__key__"]
                key = record_key(f"{tar.relative_to(root).with_suffix('').as_posix()}/{name}.jpg")
                image = next((sample[suffix] for suffix in _IMAGES if suffix in sample), None)
                if image is None:
                    members = shown(sorted(suffix for suffix in sample if not suffix.startswith("__")))
                    problems.append(_problem("sample_without_image", "record", tar, name, key, members))
                elif key in seen:
                    problems.append(_problem("duplicate_key", "record", tar, name, key))
                else:
                    seen.add(key)
                    captions = _captions(sample, config, problems)
                    item = [number, name, image.offset, image.size, captions, _labels(sample, config, problems)]
                    spool.add(len(keys), len(keys), item)
                    keys.append(key)
            yield from problems
        spool.seal()
        for row in sorted(range(len(keys)), key=keys.__getitem__):
            ((number, name, offset, size, captions, labels),) = spool.of(row)
            yield RawRecord(
                key=keys[row],
                image_id=name,
                image=tars[number],
                image_part=ImagePart(offset=offset, size=size),
                annotation_file=str(tars[number]),
                captions=tuple(Caption(caption_id=i, text=text) for i, text in enumerate(captions, start=1)),
                labels=tuple(labels),
            )


def _problem(reason: str, kind: ItemKind, tar: Path, item: str, key: str = "", detail: str = "") -> Problem:
    return Problem(reason=reason, kind=kind, file=str(tar), item_id=item, key=key, detail=detail)


def _samples(tar: Path, problems: list[Problem]) -> Iterator[dict[str, Any]]:
    """Samples as the package groups members: suffix -> content of an annotation, place of anything else."""

    def repeated(error: Exception) -> bool:
        name = str(error.args[0]).partition(": duplicate")[0]
        kind = _ANNOTATIONS.get(name.rpartition(".")[2].lower(), "record")
        problems.append(_problem("duplicate_member", kind, tar, shown(name)))
        return True  # and go on

    return group_by_keys(_members(tar), handler=repeated)


def _members(tar: Path) -> Iterator[dict[str, Any]]:
    """The files of a tar in its order, as `group_by_keys` takes them; images are not read.

    Raises:
        DataError: the file is compressed, cut or no tar.
    """
    try:
        with PatientFile(tar) as file, tarfile.open(fileobj=file, mode="r:") as members:  # type: ignore[call-overload]
            while (member := members.next()) is not None:
                members.members = []  # or it keeps them all
                if not member.isreg() or _META.match(member.name):
                    continue
                data: Any = ImagePart(offset=member.offset_data, size=member.size)
                if member.name.lower().endswith(tuple(f".{name}" for name in _ANNOTATIONS)):
                    file.seek(member.offset_data)
                    data = file.read(min(member.size, _MAX_ANNOTATION_BYTES))
                yield {"fname": member.name, "data": data, "__url__": str(tar)}
            file.seek(members.offset)
            if any(file.read(tarfile.BLOCKSIZE)):  # tarfile takes a damaged header for the end
                raise tarfile.ReadError(f"no header of a member at byte {members.offset}")
    except tarfile.TarError as error:
        raise DataError(
            "cannot read a tar", value=str(error), where=str(tar),
            fix="fetch it again if it is cut; unpack it once if it is compressed: samples are read by their place",
        ) from None  # fmt: skip


def _document(sample: dict[str, Any]) -> dict[str, Any] | None:
    """The sample's `.json`; {} without one, None if it is no JSON object."""
    try:
        document = json.loads(sample.get("json", b"{}"))
    except (ValueError, RecursionError):
        return None
    return document if isinstance(document, dict) else None


def _texts(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [] if value is None else [value]


def _captions(sample: dict[str, Any], config: Config, problems: list[Problem]) -> list[str]:
    """Captions of `.txt` and `.json`, each once (img2dataset writes the same into both)."""
    tar, name = Path(sample["__url__"]), sample["__key__"]
    document, found = _document(sample), dict[str, None]()
    if document is None:
        problems.append(_problem("bad_sample_json", "caption", tar, f"{name}.json"))
    if "txt" in sample:
        try:
            found[sample["txt"].decode("utf-8-sig").strip()] = None
        except UnicodeDecodeError:
            problems.append(_problem("bad_caption", "caption", tar, f"{name}.txt", detail="not UTF-8"))
    for text in _texts((document or {}).get(config.caption)):
        if isinstance(text, str):
            found[text.strip()] = None
        else:
            problems.append(_problem("bad_caption", "caption", tar, f"{name}.json", detail=shown(text)))
    return [text for text in found if text or len(found) == 1]


def _labels(sample: dict[str, Any], config: Config, problems: list[Problem]) -> list[str]:
    """Names of the sample's classes, of `.cls` and `.json`, each once."""
    tar, name = Path(sample["__url__"]), sample["__key__"]
    values = _texts((_document(sample) or {}).get(config.label))
    if "cls" in sample:
        values = [sample["cls"].decode("utf-8-sig", errors="replace"), *values]
    found: dict[str, None] = {}
    for value in values:
        text = str(whole_number(value)) if whole_number(value) is not None else value
        if not isinstance(text, str) or not text.strip():
            problems.append(_problem("bad_label", "label", tar, name, detail=shown(value)))
            continue
        text = text.strip()
        if config.classes and text not in config.classes and text.isdecimal() and int(text) < len(config.classes):
            text = config.classes[int(text)]
        found[text] = None
    return list(found)
