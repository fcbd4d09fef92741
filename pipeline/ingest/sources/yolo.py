"""YOLO as Ultralytics lays it out: a YAML of splits and class names, and a text file of labels for each image.

https://docs.ultralytics.com/datasets/detect/. A line of a label file is `class cx cy w h` (a box) or `class x1 y1 x2 y2
x3 y3 ..` (a polygon), as shares of the width and height of the upright image. The labels of `a/images/b/x.jpg` stand in
`a/labels/b/x.txt`, those of an image below no folder `images` beside it. An image without such a file shows nothing.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from contracts.errors import DataError
from contracts.raw import Problem, RawObject, RawRecord
from pipeline.ingest.sources._files import IMAGE_SUFFIXES, shown
from pipeline.ingest.sources._images import files_below, keyed
from pipeline.ingest.sources._splits import SPLITS
from pipeline.system.reading import is_file, is_folder, listed, read_bytes, read_text

_NOTHING = ("", "null", "~")
_BOX_COLUMNS = 4
_MIN_POLYGON_COLUMNS = 6


@dataclass(frozen=True, kw_only=True)
class Config:
    """`data` is the YAML below the data set's folder. Its `path`, which often is another machine's, counts where it is
    a folder below the data set's; otherwise paths start from the YAML's own folder."""

    data: str = "data.yaml"


def splits(root: Path, config: Config) -> tuple[str, ...]:
    """Splits that the YAML names; `test`, which many name and few have, only if it is there."""
    layout = _Layout(root, config)
    named = [split for split in SPLITS if layout.entries(split)]
    return tuple(s for s in named if s != "test" or all(layout.place(entry) for entry in layout.entries(s)))


def classes(root: Path, config: Config) -> tuple[str, ...]:
    """The YAML's `names` in the order of their numbers."""
    return tuple(name for _, name in sorted(_Layout(root, config).names().items()))


def notes(root: Path, config: Config) -> list[str]:
    """Images without labels and labels without an image."""
    layout, told = _Layout(root, config), []
    for split in splits(root, config):
        images = list(layout.images(split, []))
        wanted = {_label_file(image, layout.root) for image in images}
        there = {path for folder in {path.parent for path in wanted} if is_folder(folder) for path in listed(folder)}
        if missing := len(wanted - there):
            told.append(f"{missing} of {len(images)} images of {split} have no label file: they show no object")
        is_list = any(not is_folder(place) for entry in layout.entries(split) if (place := layout.place(entry)))
        left = [] if is_list else sorted(path for path in there - wanted if path.suffix == ".txt")
        if left := [path for path in left if path.name != "classes.txt"]:  # which LabelImg writes beside them
            told.append(f"{len(left)} label files of {split} have no image, such as {left[0]}")
    return told


def read(root: Path, split: str, config: Config) -> Iterator[RawRecord | Problem]:
    """One record per image, in ascending key order.

    Raises:
        DataError: the YAML is broken or names what is not there, or no image of train or val has a label file.
    """
    layout = _Layout(root, config)
    root = layout.root
    names, num_keypoint_columns = layout.names(), layout.num_keypoint_columns()
    outside: list[Problem] = []
    found, problems = keyed(layout.images(split, outside), root)
    yield from (*outside, *problems)
    num_labelled = 0
    for key, image in found:
        file = _label_file(image, root)
        try:
            text = read_bytes(file).decode("utf-8-sig", errors="replace")
            num_labelled += 1
        except OSError:  # one of `ABSENT`
            text = ""
        objects: list[RawObject] = []
        for number, line in enumerate(text.splitlines(), start=1):
            if line.strip():
                item = _object(number, line, names, num_keypoint_columns)
                if isinstance(item, RawObject):
                    objects.append(item)
                else:
                    yield Problem(
                        reason="bad_label_line", kind="object", file=str(file), item_id=str(number), key=key,
                        detail=f"line {number}: {item}: {shown(line)}",
                    )  # fmt: skip
        yield RawRecord(
            key=key,
            image_id=image.relative_to(root).as_posix(),
            image=image,
            annotation_file=str(file),
            objects=tuple(objects),
        )
    if found and not num_labelled and split != "test":
        raise DataError(
            f"no image of split {split!r} has a label file", where=str(layout.file),
            value=f"{found[0][1]} would have {_label_file(found[0][1], root)}",
            fix="name the folders images/.. and labels/.., or put each .txt beside its image",
        )  # fmt: skip


class _Layout:
    """What the YAML says, with its paths looked up."""

    def __init__(self, root: Path, config: Config):
        self.root = Path(os.path.normpath(root))
        self.file = self.root / config.data
        self.document = _load(self.file)
        self.base = self.file.parent
        path = self._text(self.document.get("path"))
        if path and self._is_inside(self.base / path) and is_folder(self.base / path):
            self.base = self.base / path

    @staticmethod
    def _text(value: Any) -> str:
        return value.strip().replace("\\", "/") if isinstance(value, str) and value.strip() not in _NOTHING else ""

    def _is_inside(self, path: Path) -> bool:
        return "\0" not in str(path) and Path(os.path.normpath(path)).is_relative_to(self.root)

    def entries(self, split: str) -> list[str]:
        """Folders and lists of images, as written."""
        value = self.document.get(split)
        return [text for item in (value if isinstance(value, list) else [value]) if (text := self._text(item))]

    def place(self, entry: str) -> Path | None:
        """The folder or list below the data set's folder that an entry names; None if there is none."""
        # `../train/images` is what Roboflow writes for the folder beside the YAML.
        for path in (self.base / entry, self.base / entry.removeprefix("../")):
            if self._is_inside(path) and (is_folder(path) or is_file(path)):
                return Path(os.path.normpath(path))
        return None

    def images(self, split: str, outside: list[Problem]) -> Iterator[Path]:
        """A split's images, each once; lines of a list that lead out of the data set's folder go to `outside`."""
        seen: set[Path] = set()
        for entry in self.entries(split):
            place = self.place(entry)
            if place is None:
                raise DataError(
                    f"{split} names no folder or list of images of this data set", value=entry,
                    where=f"{self.file}, looked up from {self.base}",
                    fix=f"write the path from the YAML's folder, below {self.root}",
                )  # fmt: skip
            for path in files_below(place, IMAGE_SUFFIXES) if is_folder(place) else self._listed(place, outside):
                if path not in seen:
                    seen.add(path)
                    yield path

    def _listed(self, place: Path, outside: list[Problem]) -> Iterator[Path]:
        for number, line in enumerate(read_text(place).splitlines(), start=1):
            if not (text := self._text(line)):
                continue
            paths = [Path(os.path.normpath(folder / text)) for folder in (place.parent, self.base)]
            paths = [path for path in paths if self._is_inside(path) and path != self.root]
            if paths:
                yield next((path for path in paths if is_file(path)), paths[0])
            else:
                detail = f"line {number}: {shown(text)}"
                outside.append(
                    Problem(reason="unsafe_path", kind="record", file=str(place), item_id=str(number), detail=detail)
                )

    def names(self) -> dict[int, str]:
        """Class number -> name.

        Raises:
            DataError: there are none, or one has no number or no name of its own.
        """
        names, number = self.document.get("names"), self.document.get("nc")
        if names is None and isinstance(number, str) and number.isdecimal():
            names = [f"class_{i}" for i in range(int(number))]  # as Ultralytics calls them
        if isinstance(names, list):
            names = {str(i): name for i, name in enumerate(names)}
        if not isinstance(names, dict) or not names:
            raise DataError("the YAML has no `names`", where=str(self.file), allowed="a list, or number: name")
        out: dict[int, str] = {}
        for key, name in names.items():
            usable = isinstance(key, str) and key.isdecimal() and isinstance(name, str) and name.strip()
            if not usable or int(key) in out or name.strip() in out.values():
                raise DataError(
                    "a class needs a number and a name of its own",
                    value=shown({key: name}),
                    where=f"{self.file}: names",
                )
            out[int(key)] = name.strip()
        return out

    def num_keypoint_columns(self) -> int:
        """Columns after the box in a data set of poses, which are not read; 0 in others."""
        shape = self.document.get("kpt_shape")
        counts = [int(n) for n in shape if isinstance(n, str) and n.isdecimal()] if isinstance(shape, list) else []
        return math.prod(counts) if len(counts) == 2 else 0


def _load(file: Path) -> dict[str, Any]:
    if not is_file(file):
        there = (
            [path.name for path in listed(file.parent) if path.suffix in (".yaml", ".yml")]
            if is_folder(file.parent)
            else []
        )
        raise DataError(
            "no YAML of splits and class names here", value=str(file), allowed=f"there are: {there}",
            fix="set sources.yolo.data, or write one with the keys train, val and names",
        )  # fmt: skip
    try:
        # Every scalar as text: YAML 1.1 takes a class called `no` or `on` for a truth value.
        document = yaml.load(read_text(file), Loader=yaml.BaseLoader)
    except (yaml.YAMLError, RecursionError) as error:
        raise DataError("broken YAML", value=" ".join(str(error).split())[:200], where=str(file)) from None
    if not isinstance(document, dict):
        raise DataError("this YAML is no mapping", value=shown(document), where=str(file), allowed="train, val, names")
    return document


def _label_file(image: Path, root: Path) -> Path:
    parts = list(image.relative_to(root).parts)
    for i in range(len(parts) - 2, -1, -1):  # the last folder of that name, as Ultralytics does
        if parts[i] == "images":
            parts[i] = "labels"
            break
    return root.joinpath(*parts).with_suffix(".txt")


def _object(number: int, line: str, names: dict[int, str], num_keypoint_columns: int) -> RawObject | str:
    """The object of a line, or what is wrong with it."""
    try:
        category, *values = map(float, line.split())
    except ValueError:
        return "not all are numbers"
    if not (category.is_integer() and category >= 0):
        return "the class is no whole number from 0 on"
    if num_keypoint_columns and len(values) == _BOX_COLUMNS + num_keypoint_columns:
        values = values[:_BOX_COLUMNS]
    is_polygon = len(values) >= _MIN_POLYGON_COLUMNS and len(values) % 2 == 0
    if len(values) != _BOX_COLUMNS and not is_polygon:
        return f"{1 + len(values)} columns, neither 5 (box) nor 7, 9, .. (polygon)"
    if not all(-1 <= value <= 2 for value in values):
        return "not shares of the width and height, from 0 to 1"
    if is_polygon:
        box = (min(values[::2]), min(values[1::2]), max(values[::2]), max(values[1::2]))
    else:
        x, y, w, h = values
        box = (x - w / 2, y - h / 2, x + w / 2, y + h / 2)
    name = names.get(int(category), f"#{int(category)}")
    return RawObject(
        object_id=str(number),
        category=name,
        box=box,
        segmentation=[values] if is_polygon else None,
        is_relative=True,
    )
