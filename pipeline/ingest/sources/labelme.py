"""LabelMe: one JSON per image, beside it (https://github.com/wkentaro/labelme).

Rectangles become boxes, polygons and circles boxes with masks. Shapes of one label and one `group_id` are parts of one
object. Points, lines and the like have no area: they are told and counted. Coordinates are those of the upright image,
as LabelMe shows it. An image without a JSON was not annotated, and is not read.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from contracts.errors import DataError
from contracts.raw import ImagePart, Problem, RawObject, RawRecord
from pipeline.ingest.door.rules import Refused
from pipeline.ingest.sources._files import IMAGE_SUFFIXES, NOT_CLASSES, check_classes, shown, whole_number
from pipeline.ingest.sources._images import files_below, keyed
from pipeline.ingest.sources._splits import SPLITS
from pipeline.system.reading import is_file, is_folder, read_bytes, read_text

_CIRCLE_CORNERS = 64
_IMAGE_DATA = re.compile(rb'"imageData"\s*:\s*"([^"\\]*(?:\\.[^"\\]*)*)"')


@dataclass(frozen=True, kw_only=True)
class Config:
    """Folders of the splits, below the data set's folder; "." is that folder itself, "" no such split. JSON files are
    also read from the folders below, other splits' folders left out.

    `classes` gives the order of labels; otherwise a file `labels.txt` in the data set's folder does (a name a line, as
    LabelMe is started with), or the names in the JSON files, sorted.
    """

    train: str = "train"
    val: str = "val"
    test: str = "test"
    classes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_classes(self.classes)


def splits(root: Path, config: Config) -> tuple[str, ...]:
    """Splits whose folder is there with a JSON file in it."""
    return tuple(split for split in SPLITS if any(_files(root, split, config)))


def _files(root: Path, split: str, config: Config) -> Iterator[Path]:
    """JSON files of a split."""
    name = getattr(config, split)
    if not name or not is_folder(root / name):
        return
    others = {root / getattr(config, other) for other in SPLITS if other != split and getattr(config, other)}
    for path in files_below(root / name, {".json"}):
        between = path.parents[: len(path.parents) - len((root / name).parents) - 1]
        if others.isdisjoint(between):
            yield path


def classes(root: Path, config: Config) -> tuple[str, ...]:
    """The class list by the rule at `Config`.

    Raises:
        DataError: no file names a class.
    """
    if config.classes:
        return config.classes
    if is_file(root / "labels.txt"):
        lines = (line.strip() for line in read_text(root / "labels.txt").splitlines())
        names = dict.fromkeys(line for line in lines if line and line.lower() not in NOT_CLASSES)
    else:
        documents = (_load(file) for split in splits(root, config) for file in _files(root, split, config))
        shapes = (shape for document in documents if isinstance(document, dict) for shape in document["shapes"])
        labels = (shape.get("label") for shape in shapes if isinstance(shape, dict))
        found = {label for label in labels if isinstance(label, str) and label.lower() not in NOT_CLASSES}
        names = dict.fromkeys(sorted(found - {""}))
    if not names:
        raise DataError("no class list, and no LabelMe file that names a class", where=str(root))
    return tuple(names)


def notes(root: Path, config: Config) -> list[str]:
    """How many images of the splits' folders were not annotated."""
    told = []
    for split in splits(root, config):
        annotated = {file.stem for file in _files(root, split, config)}
        images = (path for path in files_below(root / getattr(config, split), IMAGE_SUFFIXES))
        left = [path for path in images if path.stem not in annotated]
        if left:
            told.append(f"{len(left)} images of {split} have no LabelMe JSON and are not read, such as {left[0]}")
    return told


def read(root: Path, split: str, config: Config) -> Iterator[RawRecord | Problem]:
    """One record per JSON file, in ascending key order. Holds one file at a time."""
    found, problems = keyed(_files(root, split, config), root)
    yield from problems
    for key, file in found:
        document = _load(file)
        name = file.relative_to(root).as_posix()
        if isinstance(document, str):
            reason = "not_labelme"
            yield Problem(reason=reason, kind="record", file=str(file), item_id=name, key=key, detail=document)
            continue
        objects: list[RawObject] = []
        for item in _objects(file, key, document["shapes"]):
            if isinstance(item, RawObject):
                objects.append(item)
            else:
                yield item
        image, part = _image(root, file, document)
        width, height = (whole_number(document.get(side)) or 0 for side in ("imageWidth", "imageHeight"))
        yield RawRecord(
            key=key,
            image_id=name,
            image=image,
            image_part=part,
            annotation_file=str(file),
            width=max(0, width),
            height=max(0, height),
            objects=tuple(objects),
        )


def _load(file: Path) -> dict[str, Any] | str:
    """The document, or why it is none of LabelMe's."""
    try:
        document = json.loads(read_bytes(file))
    except (OSError, ValueError, RecursionError) as error:  # OSError: one of `ABSENT`
        return f"{type(error).__name__}: {error}"[:200]
    if not isinstance(document, dict) or not isinstance(document.get("shapes"), list):
        return "no JSON object with a list `shapes`"
    return document


def _image(root: Path, file: Path, document: dict[str, Any]) -> tuple[Path, ImagePart | None]:
    """The image's file: the one that is named, else one beside the JSON with its name, else the JSON that holds it."""
    name = document.get("imagePath")
    named = None
    if isinstance(name, str) and name:
        path = Path(os.path.normpath(file.parent / name.replace("\\", "/")))
        named = path if path.is_relative_to(os.path.normpath(root)) else file.parent / path.name
        if "\0" not in name and is_file(named):
            return named, None
    for suffix in sorted(IMAGE_SUFFIXES):
        for path in (file.with_suffix(suffix), file.with_suffix(suffix.upper())):
            if is_file(path):
                return path, None
    if isinstance(document.get("imageData"), str) and (found := _IMAGE_DATA.search(read_bytes(file))):
        return file, ImagePart(offset=found.start(1), size=found.end(1) - found.start(1), is_base64=True)
    return named or file.with_suffix(".jpg"), None


def _objects(file: Path, key: str, shapes: list[Any]) -> Iterator[RawObject | Problem]:
    """The objects of a file, each of its good shapes, and a Problem for each shape that is none."""
    groups: dict[Any, list[tuple[int, dict[str, Any], list[float]]]] = {}
    for position, shape in enumerate(shapes):
        try:
            corners = _corners(shape)
        except Refused as refused:
            yield Problem(
                reason=refused.reason, kind="object", file=str(file), item_id=f"shapes[{position}]", key=key,
                detail=refused.detail,
            )  # fmt: skip
            continue
        group = shape.get("group_id")
        name = position if group is None else (shape["label"], shown(group))
        groups.setdefault(name, []).append((position, shape, corners))
    for parts in groups.values():
        xs, ys = ([value for *_, corners in parts for value in corners[start::2]] for start in (0, 1))
        position, shape, _ = parts[0]
        is_box = all(part.get("shape_type") == "rectangle" for _, part, _ in parts)
        yield RawObject(
            object_id=f"shapes[{position}]",
            category=shape["label"],
            box=(min(xs), min(ys), max(xs), max(ys)),
            segmentation=None if is_box else [corners for *_, corners in parts],
        )


def _corners(shape: Any) -> list[float]:
    """The outline of a shape: x, y of one corner after another.

    Raises:
        Refused: it has none.
    """
    if not isinstance(shape, dict) or not isinstance(shape.get("label"), str):
        raise Refused("bad_shape", shown(shape))
    kind, points = shape.get("shape_type") or "polygon", _points(shape.get("points"))
    if not isinstance(kind, str) or kind not in _NUM_POINTS:
        raise Refused("shape_without_area", f"{shown(kind)} {shown(shape['label'])}")
    least, most = _NUM_POINTS[kind]
    if points is None or not least <= len(points) <= most:
        raise Refused("bad_shape", f"{kind} {shown(shape['label'])}: {shown(shape.get('points'))}")
    return [value for point in _outline(kind, points) for value in point]


# Least and most points of the shapes that have an area.
_NUM_POINTS = {
    "rectangle": (2, 2), "circle": (2, 2), "polygon": (3, math.inf), "oriented_rectangle": (4, 4),
}  # fmt: skip


def _points(value: Any) -> list[tuple[float, float]] | None:
    if not isinstance(value, list) or not all(isinstance(point, list) and len(point) == 2 for point in value):
        return None
    numbers = [number for point in value for number in point]
    if not all(isinstance(n, int | float) and not isinstance(n, bool) and abs(n) < 1e9 for n in numbers):
        return None
    return [(float(x), float(y)) for x, y in value]


def _outline(kind: str, points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Corners of a shape; a circle, given by its centre and a point of its rim, as a regular polygon."""
    if kind == "rectangle":
        (x1, y1), (x2, y2) = points
        return [(x1, y1), (x2, y1), (x2, y2), (x1, y2)]
    if kind == "circle":
        (x, y), rim = points
        radius = math.dist((x, y), rim)
        angles = (2 * math.pi * i / _CIRCLE_CORNERS for i in range(_CIRCLE_CORNERS))
        return [(x + radius * math.cos(angle), y + radius * math.sin(angle)) for angle in angles]
    return points
