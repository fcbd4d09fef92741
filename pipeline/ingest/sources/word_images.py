"""Pictures of words or lines with what is written in them, as data sets of text recognition have them.

`layout` says how:

- `lines`: `<split>.txt` with a line `path label` each, a tab or, without one, the first blank between them: gt.txt of
  deep-text-recognition-benchmark (1904.01906), IIIT5K's copies, EvArEST, ICDAR's word lists, MMOCR 0.x.
- `jsonl`: a line `{"filename": .., "text": ..}` each, MMOCR 0.x.
- `mmocr`: `{"data_list": [{"img_path": .., "instances": [{"text": ..}]}]}`, MMOCR 1.x.
- `beside`: `a.gt.txt` beside `a.png`, tesstrain; a list, if there is one, has a path a line, whose stem counts.
- `mjsynth`: `annotation_train.txt`, whose paths `./2425/1/115_Lube_45484.jpg` have the label in the middle.
- `iiit5k`: `traindata.mat`, IIIT5K's own (Mishra et al., BMVC 2012).

Texts are kept in the order in which they are read, whatever the script. LMDB copies are not read: unpack them.
"""

from __future__ import annotations

import json
import posixpath
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

from contracts.annotations import Transcript
from contracts.errors import ConfigError, DataError
from contracts.raw import Problem, RawRecord
from contracts.scripts import direction
from pipeline.ingest.sources._files import (
    IMAGE_SUFFIXES,
    check_folders,
    check_template,
    forward_slashes,
    is_inside,
    record_key,
    shown,
    stream_list,
)
from pipeline.ingest.sources._images import files_below
from pipeline.ingest.sources._lines import lines_of
from pipeline.ingest.sources._splits import SPLITS, SplitNames, names_there
from pipeline.system.reading import is_file, is_folder, read_bytes

Layout = Literal["lines", "jsonl", "mmocr", "beside", "mjsynth", "iiit5k"]
_BESIDE = ".gt.txt"
_TATWEEL = "\u0640"


@dataclass(frozen=True, kw_only=True)
class Config:
    """`layout` is one of those above. `lists` are below the data set's folder, without `{split}` there is one, train's;
    "" with `beside`: no list, all pictures are train's. Paths in them are below `images`, which may hold `{split}`.

    `language` is a code such as `ar`. `group` is what stands in a file's name between the photo it was cut from and
    the rest, `_` for IIIT5K's `1002_1.png`; "": each picture stands alone. `keep_marks` keeps tatweel, which only makes
    a word longer, and the vowel signs of Arabic, of which most texts have few or none.
    """

    layout: Layout = "lines"
    lists: str = "{split}.txt"
    images: str = "."
    language: str = ""
    group: str = ""
    keep_marks: bool = False
    splits: SplitNames = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_template("lists", self.lists, split="train")
        check_template("images", self.images, split="train")
        check_folders((self.images,))
        if not self.lists and self.layout != "beside":
            raise ConfigError("without a list nothing says what is written", value=self.lists, where="lists",
                              allowed="a file such as {split}.txt, or layout: beside")  # fmt: skip


def splits(root: Path, config: Config) -> tuple[str, ...]:
    """Splits that have a list.

    Raises:
        DataError: one of a split's names has none.
    """
    if not config.lists:
        return ("train",) if is_folder(root / config.images) else ()
    return tuple(split for split in SPLITS if _names(root, split, config))


def _names(root: Path, split: str, config: Config) -> list[str]:
    if "{split" not in config.lists and split != "train":
        return []
    return names_there(
        split, config.splits, lambda name: is_file(_list(root, name, config)), str(root / config.lists)
    )  # fmt: skip


def _list(root: Path, name: str, config: Config) -> Path:
    return root / config.lists.format(split=name)


def classes(root: Path, config: Config) -> tuple[str, ...]:
    """Texts know no classes."""
    return ()


def read(root: Path, split: str, config: Config) -> Iterator[RawRecord | Problem]:
    """One record per picture, in ascending key order, after the problems of the lists.

    Raises:
        DataError: a list is missing or broken.
    """
    found: dict[str, _Entry] = {}  # millions in the largest sets, so no more than this of each
    for name in _names(root, split, config) if config.lists else [split]:
        for item in _entries(root, name, config):
            if isinstance(item, Problem):
                yield item
                continue
            key = record_key(item.name)
            if key in found:
                yield _problem("duplicate_key", item.path, item.name, key)
            else:
                found[key] = item
    for key in sorted(found):
        yield _record(root, key, found[key], config)


class _Entry(NamedTuple):
    """A picture's path below the data set's folder, its text, and the file that has it."""

    name: str
    text: str
    path: Path


def _entries(root: Path, name: str, config: Config) -> Iterator[_Entry | Problem]:
    path = _list(root, name, config) if config.lists else root / config.images
    readers: dict[Layout, Callable[[], Iterator[tuple[str, str, Any]]]] = {
        "lines": lambda: _of_lines(path),
        "jsonl": lambda: _of_json_lines(path),
        "mmocr": lambda: _of_mmocr(path),
        "beside": lambda: _of_stems(path) if config.lists else _of_folder(path),
        "mjsynth": lambda: _of_names(path),
        "iiit5k": lambda: _of_matlab(path),
    }
    folder = config.images.format(split=name)
    for place, file, text in readers[config.layout]():
        file = forward_slashes(file)
        if not is_inside(file):
            yield _problem("unsafe_path" if file else "bad_text_line", path, place, detail=shown(file))
            continue
        image = posixpath.normpath(posixpath.join(folder, file))
        if config.layout == "beside":
            yield _beside(root, image, path, place)
        elif not isinstance(text, str):
            yield _problem("bad_text_line", path, place, detail=shown(file))
        else:
            yield _Entry(image, text, path)


def _beside(root: Path, image: str, path: Path, place: str) -> _Entry | Problem:
    """The picture of this stem, which may be of any kind, with its text."""
    stem = (root / image).with_suffix("")
    images = [one for suffix in IMAGE_SUFFIXES if is_file(one := stem.with_name(stem.name + suffix))]
    text_file = stem.with_name(stem.name + _BESIDE)
    if not images or not is_file(text_file):
        return _problem("missing_text" if images else "bad_text_line", path, place, detail=str(text_file))
    try:
        text = read_bytes(text_file).decode("utf-8-sig")
    except UnicodeDecodeError:
        return _problem("not_utf8", text_file, place)
    return _Entry(images[0].relative_to(root).as_posix(), text, text_file)


def _record(root: Path, key: str, entry: _Entry, config: Config) -> RawRecord:
    kept = entry.text if config.keep_marks else _without_marks(entry.text)
    stem = posixpath.splitext(posixpath.basename(entry.name))[0]
    return RawRecord(
        key=key,
        image_id=entry.name,
        image=root / entry.name,
        annotation_file=str(entry.path),
        group=stem.rpartition(config.group)[0] if config.group else "",
        transcript=Transcript(text=kept, language=config.language, direction=direction(kept)),
        fixes=("marks_dropped",) if kept != entry.text else (),
    )


def _without_marks(text: str) -> str:
    """Without tatweel and the vowel signs of Arabic. Letters that are one sign with their mark are that sign before."""
    composed = unicodedata.normalize("NFC", text)
    kept = "".join(c for c in composed if c != _TATWEEL and not ("\u0610" <= c <= "\u06ed" and _is_mark(c)))
    return kept if kept != composed else text


def _is_mark(char: str) -> bool:
    return unicodedata.category(char) == "Mn"


def _problem(reason: str, path: object, place: object, key: str = "", detail: str = "") -> Problem:
    return Problem(reason=reason, kind="record", file=str(path), item_id=str(place), key=key, detail=detail)


# Each layout: (place in the list, path of the picture, its text; None for an entry without one).


def _decoded(path: Path) -> Iterator[tuple[str, str]]:
    """Place and text of each line that is not blank; of bytes that are no UTF-8 a text without a path."""
    for number, line in enumerate(lines_of(path), start=1):
        if line.strip():
            try:
                yield f"line {number}", line.decode()
            except UnicodeDecodeError:
                yield f"line {number}", ""


def _of_lines(path: Path) -> Iterator[tuple[str, str, Any]]:
    for place, line in _decoded(path):
        file, between, text = line.strip(" ").partition("\t" if "\t" in line else " ")
        yield place, file, text if between else None


def _of_json_lines(path: Path) -> Iterator[tuple[str, str, Any]]:
    for place, line in _decoded(path):
        try:
            entry = json.loads(line)
        except ValueError:
            entry = None
        entry = entry if isinstance(entry, dict) else {}
        file = entry.get("filename")
        yield place, file if isinstance(file, str) else "", entry.get("text")


def _of_mmocr(path: Path) -> Iterator[tuple[str, str, Any]]:
    for number, entry in enumerate(stream_list(path, "data_list")):
        entry = entry if isinstance(entry, dict) else {}
        file, instances = entry.get("img_path"), entry.get("instances")
        one = instances[0] if isinstance(instances, list) and len(instances) == 1 else None
        text = one.get("text") if isinstance(one, dict) else None
        yield f"data_list[{number}]", file if isinstance(file, str) else "", text


def _of_stems(path: Path) -> Iterator[tuple[str, str, Any]]:
    for place, line in _decoded(path):
        yield place, line.strip(), None


def _of_folder(folder: Path) -> Iterator[tuple[str, str, Any]]:
    for image in files_below(folder, IMAGE_SUFFIXES):
        name = image.relative_to(folder).as_posix()
        yield name, name, None


def _of_names(path: Path) -> Iterator[tuple[str, str, Any]]:
    for place, line in _decoded(path):
        file = line.split()[0].removeprefix("./")
        parts = posixpath.splitext(posixpath.basename(file))[0].split("_")
        yield place, file, parts[1] if len(parts) == 3 else None


def _of_matlab(path: Path) -> Iterator[tuple[str, str, Any]]:
    """IIIT5K's struct array, `ImgName` and `GroundTruth` of each word."""
    from scipy.io.matlab import MatReadError, loadmat  # half a second, for one layout

    try:
        entries = loadmat(path, simplify_cells=True)
        name = next(name for name in entries if not name.startswith("__"))
        found = [(str(row["ImgName"]), str(row["GroundTruth"])) for row in entries[name]]
    except (MatReadError, StopIteration, ValueError, TypeError, LookupError, OSError, NotImplementedError) as error:
        raise DataError(
            "this is not IIIT5K's list", value=f"{type(error).__name__}: {error}", where=str(path),
            allowed="traindata.mat or testdata.mat, with ImgName and GroundTruth of each word",
        ) from error  # fmt: skip
    for number, (file, text) in enumerate(found):
        yield f"{name}[{number}]", file, text
