"""Pascal VOC: XML boxes, palette masks of classes and of instances, image lists (host.robots.ox.ac.uk/pascal/VOC).

Coordinates: VOC counts pixels from 1 and includes the last one, so a box is (xmin - 1, ymin - 1, xmax, ymax). Corners
that coincide or are swapped as written (labelling tools do that; VOC has none) are passed on as written, so that the
door sees the box without area that was drawn.

Classes, by the first rule that applies: `classes` of the configuration; `class_names.txt` or `labels.txt` in the VOC
folder, a name a line; the 20 official names, if the XML files name no other; the names in the XML files, sorted.
Label masks hold positions in that list, so sorted names are first compared with the masks: see `_check_masks`.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from xml.etree import ElementTree

import numpy as np

from contracts.errors import ConfigError, DataError
from contracts.records import IGNORE_INDEX, Problem, RawObject, RawRecord
from pipeline.door.masks import decode_ids
from pipeline.door.rules import Refused
from pipeline.reading import is_file, is_folder, listed, read_bytes, read_text
from pipeline.sources._files import NOT_CLASSES, image_key, is_inside

OFFICIAL_CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog",
    "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip
_SPLITS: tuple[Literal["train", "val", "test"], ...] = ("train", "val", "test")
_EVERY_IMAGE = "*"
_NUM_MASKS_CHECKED = 200
_MAX_XML_BYTES = 64 << 20
_BROKEN = (ElementTree.ParseError, ValueError, LookupError)  # LookupError: an encoding that Python does not have
_IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp")


@dataclass(frozen=True, kw_only=True)
class Config:
    """`folders` hold JPEGImages and so on; several are read as one (VOC 2007 + 2012).

    `train`, `val`, `test` name the lists in ImageSets/<image_sets>: VOC 2007 has `trainval` and `test`; "" for no such
    split, "*" for every image. Folders without any ImageSets are one `train` split. `one_based: false` takes boxes as
    they are written, for tools that count from 0.
    """

    folders: tuple[str, ...] = ("VOCdevkit/VOC2012",)
    image_sets: str = "Main"
    train: str = "train"
    val: str = "val"
    test: str = "test"
    classes: tuple[str, ...] = ()
    one_based: bool = True

    def __post_init__(self) -> None:
        if not self.folders:
            raise ConfigError("folders is empty", allowed="folders that hold JPEGImages")
        if len(set(self.classes)) != len(self.classes):
            raise ConfigError("a class is listed twice", value=self.classes)


def splits(root: Path, config: Config) -> tuple[str, ...]:
    """Splits that have a list in at least one folder."""
    return tuple(split for split in _SPLITS if any(_list(f, split, config) for f in _folders(root, config)))


def _folders(root: Path, config: Config) -> list[Path]:
    return [root / name for name in config.folders]


def _list(folder: Path, split: str, config: Config) -> Path | str | None:
    """The file that lists a split's images, "*" for all of them, None for no such split."""
    name = {"train": config.train, "val": config.val, "test": config.test}[split]
    if not is_folder(folder / "ImageSets") and split == "train" and name:
        name = _EVERY_IMAGE
    if name == _EVERY_IMAGE:
        return _EVERY_IMAGE if is_folder(folder / "JPEGImages") else None
    path = folder / "ImageSets" / config.image_sets / f"{name}.txt"
    return path if name and is_file(path) else None


def _stems(folder: Path, split: str, config: Config) -> list[str]:
    """Names of a split's images without suffix, as listed."""
    list_file = _list(folder, split, config)
    if list_file is None:
        return []
    if isinstance(list_file, str):
        return sorted(path.stem for path in listed(folder / "JPEGImages") if path.suffix.lower() in _IMAGE_SUFFIXES)
    lines = read_text(list_file).splitlines()
    names = [line.split()[0] for line in lines if line.strip()]  # class lists have a second column
    return [name[: -len(Path(name).suffix)] if name.lower().endswith(_IMAGE_SUFFIXES) else name for name in names]


def classes(root: Path, config: Config) -> tuple[str, ...]:
    """The class list by the rules at the top of this file.

    Raises:
        ConfigError: there is no way to know the classes, or the masks contradict the sorted names.
    """
    if config.classes:
        return config.classes
    folders = _folders(root, config)
    if (names := _listed_classes(folders)) is not None:
        return names
    found = sorted({name for folder in folders for xml in _xml_files(folder) for name in _names(xml)})
    if not found:
        raise ConfigError(
            "no class list, and no XML that names classes",
            where=", ".join(map(str, folders)),
            fix="add class_names.txt (a name a line, in the masks' order) to the folder, or set sources.voc.classes",
        )
    if set(found) <= set(OFFICIAL_CLASSES):
        return OFFICIAL_CLASSES
    for folder in folders:
        _check_masks(folder, found)
    return tuple(found)


def _listed_classes(folders: list[Path]) -> tuple[str, ...] | None:
    found: dict[Path, tuple[str, ...]] = {}
    for folder in folders:
        for path in (folder / "class_names.txt", folder / "labels.txt"):
            if is_file(path):
                lines = (line.strip() for line in read_text(path).splitlines())
                found[path] = tuple(line for line in lines if line and line.lower() not in NOT_CLASSES)
                break
    if len(set(found.values())) > 1:
        raise ConfigError(
            "the folders list different classes", value=sorted(map(str, found)), fix="set sources.voc.classes"
        )
    names = next(iter(found.values()), None)
    if names is not None and (not names or len(set(names)) != len(names)):
        raise ConfigError("this class list is empty or has a name twice", value=names, where=str(next(iter(found))))
    return names


def _xml_files(folder: Path) -> list[Path]:
    if not is_folder(folder / "Annotations"):
        return []
    return [path for path in listed(folder / "Annotations") if path.suffix == ".xml"]


def _parsed(xml: Path) -> ElementTree.Element:
    """The root element of an XML file.

    Raises:
        ValueError, ElementTree.ParseError, LookupError: it cannot be parsed, or declares a document type: VOC has none,
            and entities, which could grow without end or name other files, are declared there.
        OSError: one of `ABSENT`.
        DataError: this host cannot read the file.
    """
    data = read_bytes(xml)
    if len(data) > _MAX_XML_BYTES:
        raise ValueError(f"{len(data)} bytes, allowed are {_MAX_XML_BYTES}")
    return ElementTree.parse(io.BytesIO(data), ElementTree.XMLParser(target=_NoDocumentType())).getroot()


class _NoDocumentType(ElementTree.TreeBuilder):
    def doctype(self, name: str, pubid: str | None, system: str | None) -> None:
        raise ValueError("it declares a document type")


def _names(xml: Path) -> list[str]:
    """Class names of an XML file, none if it cannot be parsed (`read` reports that)."""
    try:
        return [name for item in _parsed(xml).findall("object") if (name := _text(item, "name"))]
    except (*_BROKEN, OSError):
        return []


def _check_masks(folder: Path, names: list[str]) -> None:
    """Compare label masks with XML: on no image may the mask show a class that its XML does not name.

    Checks up to `_NUM_MASKS_CHECKED` images, evenly spread. A list in another order than the masks' fails this on the
    first image that does not show every class.
    """
    pairs = [
        (xml, mask) for xml in _xml_files(folder) if is_file(mask := folder / "SegmentationClass" / f"{xml.stem}.png")
    ]
    for xml, mask in pairs[:: max(1, len(pairs) // _NUM_MASKS_CHECKED)]:
        named = {names.index(name) + 1 for name in _names(xml)}
        try:
            shown = set(np.unique(decode_ids(read_bytes(mask))).tolist())
        except (Refused, OSError):
            continue  # the door says why
        if shown - named - {0, IGNORE_INDEX}:
            raise ConfigError(
                "the label masks do not follow the sorted class names",
                value=names,
                where=f"{mask} shows values {sorted(shown)}, its XML names {sorted(_names(xml))}",
                fix="add class_names.txt (a name a line, in the masks' order) to the folder, or set voc.classes",
            )


def read(root: Path, split: str, config: Config) -> Iterator[RawRecord | Problem]:
    """Records of one split in ascending key order. Holds one XML file at a time.

    Raises:
        DataError: a folder of the configuration does not exist.
    """
    found: dict[str, tuple[Path, str]] = {}
    images: dict[Path, dict[str, str]] = {}
    for folder in _folders(root, config):
        if not is_folder(folder / "JPEGImages"):
            raise DataError("no JPEGImages here", where=str(folder), fix="set sources.voc.folders")
        images[folder] = {path.stem: path.name for path in listed(folder / "JPEGImages")}
        where = str(_list(folder, split, config))
        for stem in _stems(folder, split, config):
            if not is_inside(stem):
                yield Problem(reason="unsafe_path", kind="record", file=where, item_id=stem)
                continue
            image = folder / "JPEGImages" / images[folder].get(stem, f"{stem}.jpg")
            key = image_key(image, root)
            if key in found:
                yield Problem(reason="duplicate_key", kind="record", file=where, item_id=stem, key=key)
            else:
                found[key] = (folder, stem)
    for key, (folder, stem) in sorted(found.items()):
        image = folder / "JPEGImages" / images[folder].get(stem, f"{stem}.jpg")
        yield _record(key, stem, folder, image, config.one_based)


def _record(key: str, stem: str, folder: Path, image: Path, one_based: bool) -> RawRecord | Problem:
    xml = folder / "Annotations" / f"{stem}.xml"
    has_xml = is_folder(xml.parent)
    width = height = 0
    objects: tuple[RawObject, ...] = ()
    if has_xml:
        try:
            document = _parsed(xml)
        except OSError:  # one of `ABSENT`
            return Problem(reason="missing_annotation", kind="record", file=str(xml), item_id=stem, key=key)
        except _BROKEN as error:
            return Problem(
                reason="broken_xml", kind="record", file=str(xml), item_id=stem, key=key, detail=str(error)
            )  # fmt: skip
        width, height = (int(_number(document.find("size"), name, 0)) for name in ("width", "height"))
        objects = tuple(_object(i, item, one_based) for i, item in enumerate(document.findall("object"), start=1))
    masks = {name: folder / name / f"{stem}.png" for name in ("SegmentationClass", "SegmentationObject")}
    semantic, instances = (path if is_file(path) else None for path in masks.values())
    return RawRecord(
        key=key,
        image_id=stem,
        image=image,
        annotation_file=str(xml if has_xml else semantic or image),
        width=width,
        height=height,
        objects=objects,
        semantic_mask=semantic,
        instance_mask=instances if has_xml else None,  # without XML its ids have no class
    )


def _object(position: int, item: ElementTree.Element, one_based: bool) -> RawObject:
    """The object as written, broken or not: dropping one here would shift the ids of the instance mask."""
    x1, y1, x2, y2 = (_number(item.find("bndbox"), name, math.nan) for name in ("xmin", "ymin", "xmax", "ymax"))
    if one_based and x2 > x1 and y2 > y1:
        x1, y1 = x1 - 1, y1 - 1
    return RawObject(
        object_id=str(position),
        category=_text(item, "name"),
        box=(x1, y1, x2, y2),
        is_difficult=_text(item, "difficult") == "1",
        is_truncated=_text(item, "truncated") == "1",
    )


def _text(item: ElementTree.Element, name: str) -> str:
    return (item.findtext(name) or "").strip()


def _number(item: ElementTree.Element | None, name: str, default: float) -> float:
    """The number in a child element; `default` where there is none that is finite."""
    try:
        value = float(_text(item, name)) if item is not None else default
    except ValueError:
        return default
    return value if math.isfinite(value) else default
