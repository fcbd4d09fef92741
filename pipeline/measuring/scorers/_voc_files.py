"""Pascal VOC files for scoring: XML objects, and detections as the devkit's text files or as JSON.

Unlike `pipeline/ingest/sources/voc.py`, which counts what it cannot use, this stops at the first fault: a score over
part of the objects is another score. Boxes are converted to pixel edges here: `(xmin - 1, ymin - 1, xmax, ymax)`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from contracts.errors import DataError
from pipeline.ingest.sources._voc_files import is_flag, listed_name
from pipeline.measuring.scorers._files import list_files, read_bytes, read_entries, read_lines, read_text

_DETECTION_FILE = re.compile(r"(comp\d+)_det_(.+)\.txt", re.IGNORECASE)
_LIKE_A_DETECTION_FILE = re.compile(r"comp.*det.*", re.IGNORECASE)
_CORNERS = ("xmin", "ymin", "xmax", "ymax")
_CLASS_KEYS = ("category", "class", "label")


@dataclass(frozen=True)
class Rows:
    """Detections of one class in the order of their file."""

    images: list[str] = field(default_factory=list)
    boxes: list[tuple[float, ...]] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)

    def add(self, image: str, score: float, box: tuple[float, ...]) -> None:
        self.images.append(image)
        self.scores.append(score)
        self.boxes.append(box)


@dataclass(frozen=True, kw_only=True)
class Truth:
    """The objects of a split: class -> image -> boxes (N, 4) float64 and difficult flags (N,)."""

    images: tuple[str, ...]
    objects: Mapping[str, Mapping[str, tuple[np.ndarray, np.ndarray]]]


@dataclass(frozen=True, kw_only=True)
class DetectionFiles:
    """The text files of one folder: class -> file, and the image set that their names have."""

    image_set: str
    files: Mapping[str, Path]


def annotations_folder(truth: Path) -> Path:
    """The folder with the XML files: `truth` or its Annotations.

    Raises:
        DataError: it is a VOCdevkit, whose folders are data sets.
    """
    if (truth / "Annotations").is_dir():
        return truth / "Annotations"
    inner = sorted(path.parent.name for path in truth.glob("*/Annotations"))
    if inner:
        raise DataError("this folder holds several data sets", value=inner, where=str(truth), fix="name one of them")
    return truth


def listed_images(truth: Path, image_set: str) -> tuple[str, ...] | None:
    """Images of ImageSets/Main/<image_set>.txt; None if there is no such file.

    Raises:
        DataError: no image is listed, or one twice.
    """
    path = truth / "ImageSets" / "Main" / f"{image_set}.txt"
    if not image_set or not path.is_file():
        return None
    known = list_files(annotations_folder(truth), ".xml")
    names = [listed_name(line, known) for line in read_lines(path) if line.strip()]
    if not names:
        raise DataError("this set has no image", where=str(path))
    if len(set(names)) != len(names):
        twice = next(name for i, name in enumerate(names) if name in names[:i])
        raise DataError("an image is listed twice", value=twice, where=str(path))
    return tuple(names)


def read_truth(truth: Path, images: Iterable[str] | None) -> Truth:
    """Objects of `images`, or of all XML files.

    Raises:
        DataError: an XML file is missing or broken, or an object in it.
    """
    files = list_files(annotations_folder(truth), ".xml")
    names = tuple(files) if images is None else tuple(images)
    objects: dict[str, dict[str, list[tuple[tuple[float, ...], bool]]]] = {}
    for name in names:
        path = files.get(name)
        if path is None:
            raise DataError(
                "an image of the set has no XML file", value=name, where=str(truth / "ImageSets" / "Main"),
                allowed=f"{name}.xml in {annotations_folder(truth)}",
            )  # fmt: skip
        for category, box, difficult in _xml_objects(path):
            objects.setdefault(category, {}).setdefault(name, []).append((box, difficult))
    return Truth(
        images=names,
        objects={
            category: {
                name: (np.array([box for box, _ in rows], np.float64), np.array([flag for _, flag in rows], bool))
                for name, rows in of_class.items()
            }
            for category, of_class in sorted(objects.items())
        },
    )


def _xml_objects(path: Path) -> Iterable[tuple[str, tuple[float, ...], bool]]:
    """Class, box and difficult flag of each object."""
    try:
        root = ElementTree.fromstring(read_bytes(path))
    except (ElementTree.ParseError, ValueError) as error:
        raise DataError("broken XML", value=str(error), where=str(path)) from None
    for number, item in enumerate(root.findall("object"), start=1):
        where = f"{path}, object {number}"
        category = (item.findtext("name") or "").strip()
        if not category:
            raise DataError("an object has no name", where=where, allowed="<name>class</name>")
        corners = [(item.findtext(f"bndbox/{corner}") or "").strip() for corner in _CORNERS]
        box = _box(corners, where)
        if box[2] == box[0] or box[3] == box[1]:
            raise DataError("an object has no area", value=corners, where=where, allowed="xmax >= xmin, ymax >= ymin")
        yield category, box, is_flag(item.findtext("difficult") or "")


def _box(corners: Iterable[object], where: str) -> tuple[float, ...]:
    """Corners as VOC writes them -> (x1, y1, x2, y2) in pixel edges."""
    corners = list(corners)
    try:
        x1, y1, x2, y2 = (float(corner) for corner in corners)  # type: ignore[arg-type]
        valid = all(map(math.isfinite, (x1, y1, x2, y2))) and x2 >= x1 - 1 and y2 >= y1 - 1
    except (TypeError, ValueError):
        valid = False
    if not valid:
        raise DataError(
            "invalid box", value=corners, where=where,
            allowed="finite xmin, ymin, xmax, ymax; xmax and ymax are inclusive and not below xmin - 1, ymin - 1",
        )  # fmt: skip
    return x1 - 1, y1 - 1, x2, y2


def find_detection_files(folder: Path, truth: Path) -> DetectionFiles:
    """The `comp*_det_<set>_<class>.txt` files of a folder.

    The set is the longest one that ImageSets/Main lists, or what lies before the first "_": a class may hold one.

    Raises:
        DataError: no such file, several competitions or sets, or a file of almost that name.
    """
    found: dict[str, tuple[str, str, Path]] = {}
    for stem, path in list_files(folder, ".txt").items():
        match = _DETECTION_FILE.fullmatch(path.name)
        image_set, category = _set_and_class(match[2], truth) if match else ("", "")
        if match and image_set and category:
            found[stem] = (f"{match[1]}_det_{image_set}", category, path)
        elif _LIKE_A_DETECTION_FILE.fullmatch(stem):
            raise DataError("a file's name lacks a part", value=str(path), allowed="comp3_det_<set>_<class>.txt")
    if not found:
        raise DataError("no detection file here", value=str(folder), allowed="comp3_det_<set>_<class>.txt, or one JSON")
    kinds = sorted({kind for kind, _, _ in found.values()})
    if len(kinds) > 1:
        raise DataError(
            "detections of several competitions or image sets", value=kinds, where=str(folder), allowed="those of one",
            fix="move the others to a folder of their own",
        )  # fmt: skip
    return DetectionFiles(
        image_set=kinds[0].partition("_det_")[2], files={category: path for _, category, path in found.values()}
    )


def _set_and_class(text: str, truth: Path) -> tuple[str, str]:
    """`val_traffic_light` -> `val`, `traffic_light`."""
    cuts = [match.start() for match in re.finditer("_", text)]
    listed = [cut for cut in cuts if (truth / "ImageSets" / "Main" / f"{text[:cut]}.txt").is_file()]
    cut = max(listed) if listed else min(cuts, default=0)
    return text[:cut], text[cut + 1 :]


def read_detection_files(files: Mapping[str, Path], images: Collection[str]) -> dict[str, Rows]:
    """Lines `image_id score xmin ymin xmax ymax` of each class; an empty file means that nothing was found.

    Raises:
        DataError: a line that cannot be read, or of an image that the truth does not have.
    """
    known = set(images)
    out: dict[str, Rows] = {}
    for category, path in files.items():
        rows = out.setdefault(category, Rows())
        for number, line in enumerate(read_text(path).split("\n"), start=1):
            parts = line.rsplit(maxsplit=5)  # an image's name may have blanks
            if not parts:
                continue
            where = f"{path}, line {number}"
            if len(parts) != 6:
                raise DataError(
                    "a line has another number of fields", value=line, where=where,
                    allowed="image_id score xmin ymin xmax ymax",
                )  # fmt: skip
            image = parts[0].strip()
            _check_image(image, known, where)
            rows.add(image, _score(parts[1], where), _box(parts[2:], where))
    return out


def read_detection_json(path: Path, images: Collection[str]) -> dict[str, Rows]:
    """A list of `{"image_id", "category", "score", "bbox": [xmin, ymin, xmax, ymax]}`; "class" and "label" are
    other names of "category".

    Raises:
        DataError: an entry that cannot be used, or of an image that the truth does not have.
    """
    known = set(images)
    entries = read_entries(path, id_name="image_id")
    out: dict[str, Rows] = {}
    for i in range(len(entries)):
        keys = [key for key in _CLASS_KEYS if key in entries.items[i]]
        category = entries.text(i, keys[0] if keys else _CLASS_KEYS[0])
        if not category or len(keys) > 1:
            raise entries.wrong(i, keys[0], "the name of a class, under one of " + ", ".join(_CLASS_KEYS))
        image = str(entries.id(i, "image_id"))
        _check_image(image, known, entries.where(i))
        allowed = "[xmin, ymin, xmax, ymax] in VOC's coordinates"
        box = entries.get(i, "bbox", allowed)
        if not isinstance(box, list) or len(box) != 4 or any(isinstance(v, bool | str) for v in box):
            raise entries.wrong(i, "bbox", allowed)
        out.setdefault(category, Rows()).add(image, entries.number(i, "score"), _box(box, entries.where(i)))
    return out


def _check_image(image: str, known: Collection[str], where: str) -> None:
    if image not in known:
        raise DataError(
            "a detection of an image that the truth does not have", value=image, where=where,
            allowed=f"one of {len(known)} images: the XML files' names, or those that ImageSets/Main lists",
        )  # fmt: skip


def _score(text: str, where: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise DataError("a score must be a finite number", value=text, where=where)
    return value
