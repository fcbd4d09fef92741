"""Karpathy's splits: `dataset_coco.json`, `dataset_flickr8k.json`, `dataset_flickr30k.json` (1412.2306), one file with
the captions and the split of each image (https://cs.stanford.edu/people/karpathy/deepimagesent/).

Of COCO it has 82,783 images of train and 30,504 of "restval", the rest of val2014, which papers train on as well, and
5,000 each of val and test. Those two and restval all lie in `val2014`: the folder is not the split.

`cocoid` is COCO's number of an image, `imgid` its place in this file: only the first is what official scoring knows.
Sentences have the number of their image by `imgid`. What is learnt is `raw`, the sentence as it was written; `tokens`
has lost its capitals and punctuation.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from contracts.errors import DataError
from contracts.raw import ItemKind, Problem, RawRecord
from contracts.records import Caption
from pipeline.ingest.sources._coco_json import image_id
from pipeline.ingest.sources._files import (
    Spool,
    check_template,
    forward_slashes,
    is_inside,
    item_id,
    record_key,
    shown,
    stream_list,
)
from pipeline.ingest.sources._splits import SPLITS, SplitNames, split_names
from pipeline.system.reading import is_file, patiently

_REST = "restval"


@dataclass(frozen=True, kw_only=True)
class Config:
    """
    Attributes:
        file: below the data set's folder.
        images: an image below that folder, `{filepath}` (such as `val2014`; Flickr's files have none) and `{filename}`
            filled in.
        splits: what the file calls a split where it does not call it so; a list is read as one.
        restval: whether "restval" counts as train, beside what `splits` says of train.
    """

    file: str = "dataset_coco.json"
    images: str = "{filepath}/{filename}"
    splits: SplitNames = field(default_factory=dict)
    restval: bool = True

    def __post_init__(self) -> None:
        check_template("file", self.file)
        check_template("images", self.images, filepath="val2014", filename="a.jpg")


def _names(split: str, config: Config) -> set[str]:
    """What the file calls a split."""
    names = set(split_names(split, config.splits))
    return names | {_REST} if split == "train" and config.restval else names


def splits(root: Path, config: Config) -> tuple[str, ...]:
    """Splits that at least one image is in."""
    there = _count(root, config)
    return tuple(split for split in SPLITS if _names(split, config) & there.keys())


def classes(root: Path, config: Config) -> tuple[str, ...]:
    """Captions know no classes."""
    return ()


def notes(root: Path, config: Config) -> tuple[str, ...]:
    """Which images are read by no split."""
    taken = {name for split in SPLITS for name in _names(split, config)}
    return tuple(
        f"{config.file}: {count} images of split {name!r} are not read; `splits` and `restval` say which are"
        for name, count in sorted(_count(root, config).items())
        if name not in taken
    )


def _count(root: Path, config: Config) -> Mapping[str, int]:
    """Images by the file's name of their split; none where there is no file."""
    path = root / config.file
    return _surveyed(path, patiently(path.stat, path).st_mtime_ns) if is_file(path) else {}


@lru_cache(maxsize=4)  # the file of COCO has 144 MB
def _surveyed(path: Path, _: int) -> Mapping[str, int]:
    counts = Counter(
        item["split"]
        for item in stream_list(path, "images")
        if isinstance(item, dict) and isinstance(item.get("split"), str)
    )
    if not counts:
        raise DataError(
            "this file lists no images with a split", where=f"{path}: images",
            allowed='{"images": [{"filename": .., "split": "train", "sentences": [{"raw": ..}]}]}',
        )  # fmt: skip
    return counts


def read(root: Path, split: str, config: Config) -> Iterator[RawRecord | Problem]:
    """Records of one split in ascending key order, after the problems found in the file.

    Raises:
        DataError: the file is missing, broken, or lists no images.
    """
    path, names = root / config.file, _names(split, config)
    is_first = splits(root, config)[:1] == (split,)  # where entries of no split are told, once
    rows: dict[str, int] = {}
    seen: set[int | str] = set()
    with Spool() as spool:
        for row, item in enumerate(stream_list(path, "images")):
            named = item.get("split") if isinstance(item, dict) else None
            if named not in names if isinstance(named, str) else not is_first:
                continue
            found = _image(item, row, path, config)
            if isinstance(found, Problem):
                yield found
                continue
            key, own_id, name = found
            if key in rows:
                yield _problem("duplicate_key", path, own_id, key, detail=name)
                continue
            rows[key] = row
            fixes: list[str] = []
            captions: list[list[Any]] = []
            for sentence in _sentences(item, key, path, seen, fixes):
                if isinstance(sentence, Problem):
                    yield sentence
                else:
                    captions.append(sentence)
            spool.add(row, row, [own_id, name, captions, fixes])
        spool.seal()
        for key in sorted(rows):
            ((own_id, name, captions, fixes),) = spool.of(rows[key])
            yield RawRecord(
                key=key,
                image_id=own_id,
                image=root / name,
                annotation_file=str(path),
                captions=tuple(Caption(caption_id=number, text=text) for number, text in captions),
                fixes=tuple(fixes),
            )


def _image(item: Any, row: int, path: Path, config: Config) -> tuple[str, int | str, str] | Problem:
    """Key, id and file of an entry of `images`."""
    if not isinstance(item, dict):
        return _problem("not_an_object", path, f"images[{row}]", detail=shown(item))
    own_id = image_id(item["cocoid"] if item.get("cocoid") is not None else item.get("imgid"))
    if own_id is None:
        return _problem("bad_image_id", path, f"images[{row}]", detail=shown([item.get("cocoid"), item.get("imgid")]))
    folder, name, split = item.get("filepath", ""), item.get("filename"), item.get("split")
    if not isinstance(name, str) or not name or not isinstance(folder, str) or not isinstance(split, str):
        return _problem("bad_image_entry", path, own_id, detail=shown([folder, name, split], 200))
    file = forward_slashes(config.images.format(filepath=folder, filename=name)).lstrip("/")
    if not is_inside(file):
        return _problem("unsafe_path", path, own_id, detail=file)
    return record_key(file), own_id, file


def _sentences(
    item: dict[str, Any], key: str, path: Path, seen: set[int | str], fixes: list[str]
) -> Iterator[list[Any] | Problem]:
    """[id, text] of each sentence of an image.

    Args:
        seen: ids of the sentences so far. fixes: names of what was changed are appended.
    """
    sentences = item.get("sentences")
    for place, sentence in enumerate(sentences if isinstance(sentences, list) else ()):
        where = f"{key}: sentences[{place}]"
        if not isinstance(sentence, dict):
            yield _problem("not_an_object", path, where, key, "caption", shown(sentence))
            continue
        number, text = item_id(sentence.get("sentid")), sentence.get("raw")
        if number is None:
            number = where
            fixes.append("annotation_id_made")
        if not isinstance(text, str):
            yield _problem("bad_caption", path, number, key, "caption", shown(text))
        elif "imgid" in sentence and "imgid" in item and sentence["imgid"] != item["imgid"]:
            yield _problem("unknown_image", path, number, key, "caption", f"imgid {shown(sentence['imgid'])}")
        elif number in seen:
            yield _problem("duplicate_annotation_id", path, number, key, "caption", shown(text))
        else:
            yield [number, text]
        seen.add(number)


def _problem(
    reason: str, path: Path, own_id: object, key: str = "", kind: ItemKind = "record", detail: str = ""
) -> Problem:
    return Problem(reason=reason, kind=kind, file=str(path), item_id=shown(own_id), key=key, detail=detail)
