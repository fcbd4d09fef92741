"""Pascal VOC: XML boxes, palette masks of classes and of instances, image lists (host.robots.ox.ac.uk/pascal/VOC).

Coordinates: VOC counts pixels from 1 and includes the last one, so a box is (xmin - 1, ymin - 1, xmax, ymax). Corners
that coincide or are swapped as written (labelling tools do that; VOC has none) are passed on as written, so that the
door sees the box without area that was drawn.

Classes, by the first rule that applies: `classes` of the configuration; `class_names.txt` or `labels.txt` in the VOC
folder, a name a line; CVAT's `labelmap.txt`; the names in `mask_values`; the 20 official names, if the XML files name
no other; the names in the XML files, sorted. Label masks hold positions in that list, so sorted names are first
compared with the masks (see `_check_masks`); or the colours of `labelmap.txt`; or what `mask_values` says.
"""

from __future__ import annotations

import io
import math
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from contracts.errors import ConfigError, DataError
from contracts.raw import Color, Problem, RawObject, RawRecord
from contracts.records import IGNORE_INDEX
from pipeline.ingest.door.masks import decode_ids
from pipeline.ingest.door.rules import Refused
from pipeline.ingest.sources._files import (
    IMAGE_SUFFIXES,
    NOT_CLASSES,
    check_classes,
    check_folders,
    image_key,
    is_inside,
)
from pipeline.ingest.sources._splits import SPLITS
from pipeline.ingest.sources._voc_files import color_labels, images_by_stem, is_flag, listed_name, read_label_colors
from pipeline.system.reading import is_file, is_folder, listed, read_bytes, read_text

OFFICIAL_CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog",
    "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip
_EVERY_IMAGE = "*"
_NUM_MASKS_CHECKED = 200
_MAX_XML_BYTES = 64 << 20
_BROKEN = (ElementTree.ParseError, ValueError, LookupError)  # LookupError: an encoding that Python does not have
_LABEL_COLORS = "labelmap.txt"
_NO_CLASS = {"background": 0, "ignore": IGNORE_INDEX}  # what `mask_values` may say besides


@dataclass(frozen=True, kw_only=True)
class Config:
    """`folders` hold JPEGImages and so on; several are read as one (VOC 2007 + 2012).

    `train`, `val`, `test` name the lists in `ImageSets/<image_sets>`: VOC 2007 has `trainval` and `test`; "" for no
    such split, "*" for every image. Where that folder is not there and ImageSets has one other, that one is read.
    Folders without any ImageSets are one `train` split. `images` and `annotations` name the folders of pictures and of
    XML files: "." for both where all lie in one folder. `one_based: false` takes boxes as they are written, for tools
    that count from 0. `mask_values` says what the values of label masks stand for where they are not the positions in
    the class list: `{background: 0, cell: 255, ignore: [1, 128]}`.
    """

    folders: tuple[str, ...] = ("VOCdevkit/VOC2012",)
    image_sets: str = "Main"
    train: str = "train"
    val: str = "val"
    test: str = "test"
    classes: tuple[str, ...] = ()
    images: str = "JPEGImages"
    annotations: str = "Annotations"
    one_based: bool = True
    mask_values: dict[str, int | tuple[int, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_folders(self.folders)
        check_classes(self.classes)
        values = [value for _, value in self.named_values()]
        if len(set(values)) != len(values) or any(not 0 <= value <= 0xFFFF for value in values):
            raise ConfigError("mask_values: no mask holds these", value=values, allowed="0..65535, each value once")

    def named_values(self) -> list[tuple[str, int]]:
        """`mask_values` as (class name, value)."""
        return [
            (name, value)
            for name, values in self.mask_values.items()
            for value in (values if isinstance(values, tuple) else (values,))
        ]


def splits(root: Path, config: Config) -> tuple[str, ...]:
    """Splits that have a list in at least one folder."""
    return tuple(split for split in SPLITS if any(_list(f, split, config) for f in _folders(root, config)))


def _folders(root: Path, config: Config) -> list[Path]:
    return [root / name for name in config.folders]


def _list(folder: Path, split: str, config: Config) -> Path | str | None:
    """The file that lists a split's images, "*" for all of them, None for no such split."""
    name = {"train": config.train, "val": config.val, "test": config.test}[split]
    if not is_folder(folder / "ImageSets") and split == "train" and name:
        name = _EVERY_IMAGE
    if name == _EVERY_IMAGE:
        return _EVERY_IMAGE if is_folder(folder / config.images) else None
    path = _image_sets(folder, config) / f"{name}.txt"
    return path if name and is_file(path) else None


def _image_sets(folder: Path, config: Config) -> Path:
    """The folder of lists."""
    sets = folder / "ImageSets"
    if not is_folder(sets / config.image_sets) and is_folder(sets):
        others = [path for path in listed(sets) if is_folder(path)]
        if len(others) == 1:
            return others[0]
    return sets / config.image_sets


def _stems(folder: Path, split: str, config: Config, images: Mapping[str, str]) -> list[str]:
    """Names of a split's images without suffix, as listed. `images`: file names by stem."""
    list_file = _list(folder, split, config)
    if list_file is None:
        return []
    if isinstance(list_file, str):
        return sorted(images)
    names = [listed_name(line, images) for line in read_text(list_file).splitlines() if line.strip()]
    return [name[: -len(Path(name).suffix)] if name.lower().endswith(IMAGE_SUFFIXES) else name for name in names]


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
    if config.mask_values:
        return tuple(name for name in config.mask_values if name not in _NO_CLASS)
    found = sorted({name for folder in folders for xml in _xml_files(folder, config) for name in _names(xml)})
    if not found:
        raise ConfigError(
            "no class list, and no XML that names classes",
            where=", ".join(map(str, folders)),
            fix="add class_names.txt (a name a line, in the masks' order) to the folder, or set sources.voc.classes",
        )
    if set(found) <= set(OFFICIAL_CLASSES):
        return OFFICIAL_CLASSES
    for folder in folders:
        _check_masks(folder, found, config)
    return tuple(found)


def _listed_classes(folders: list[Path]) -> tuple[str, ...] | None:
    found: dict[Path, tuple[str, ...]] = {}
    for folder in folders:
        for path in (folder / "class_names.txt", folder / "labels.txt"):
            if is_file(path):
                lines = (line.strip() for line in read_text(path).splitlines())
                found[path] = tuple(line for line in lines if line and line.lower() not in NOT_CLASSES)
                break
        else:
            if is_file(path := folder / _LABEL_COLORS):
                found[path] = tuple(name for name in read_label_colors(path) if name.lower() not in NOT_CLASSES)
    if len(set(found.values())) > 1:
        raise ConfigError(
            "the folders list different classes", value=sorted(map(str, found)), fix="set sources.voc.classes"
        )
    names = next(iter(found.values()), None)
    if names is not None and (not names or len(set(names)) != len(names)):
        raise ConfigError("this class list is empty or has a name twice", value=names, where=str(next(iter(found))))
    return names


def _xml_files(folder: Path, config: Config) -> list[Path]:
    if not is_folder(folder / config.annotations):
        return []
    return [path for path in listed(folder / config.annotations) if path.suffix == ".xml"]


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


def _check_masks(folder: Path, names: list[str], config: Config) -> None:
    """Compare label masks with XML: on no image may the mask show a class that its XML does not name.

    Checks up to `_NUM_MASKS_CHECKED` images, evenly spread. A list in another order than the masks' fails this on the
    first image that does not show every class.
    """
    pairs = [
        (xml, mask)
        for xml in _xml_files(folder, config)
        if is_file(mask := folder / "SegmentationClass" / f"{xml.stem}.png")
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


@dataclass(frozen=True, kw_only=True)
class _Folder:
    """A VOC folder with the names of its image and mask files by stem."""

    path: Path
    config: Config
    images: Mapping[str, str]
    masks: Mapping[str, Mapping[str, str]]  # SegmentationClass, SegmentationObject
    has_xml: bool
    label_map: Mapping[int, int] | None
    label_colors: Mapping[Color, int] | None

    def image(self, stem: str) -> Path:
        return self.path / self.config.images / self.images.get(stem, f"{stem}.jpg")

    def mask(self, kind: str, stem: str) -> Path | None:
        """The mask file, whatever its format: the door says why it takes no JPEG."""
        name = self.masks[kind].get(stem)
        return self.path / kind / name if name is not None else None


def _open(folder: Path, classes: tuple[str, ...], config: Config) -> _Folder:
    if not is_folder(folder / config.images):
        raise DataError(f"no {config.images} here", where=str(folder), fix="set sources.voc.folders")
    kinds = [kind for kind in ("SegmentationClass", "SegmentationObject") if is_folder(folder / kind)]
    labels = {name: label for label, name in enumerate(classes, start=1)} | _NO_CLASS
    if unknown := sorted(config.mask_values.keys() - labels.keys()):
        raise ConfigError("mask_values names unknown classes", value=unknown, allowed=", ".join(labels))
    colors = folder / _LABEL_COLORS
    return _Folder(
        path=folder,
        config=config,
        images=images_by_stem(folder / config.images),
        masks=defaultdict(dict, {kind: images_by_stem(folder / kind, ".png") for kind in kinds}),
        has_xml=is_folder(folder / config.annotations),
        label_map={value: labels[name] for name, value in config.named_values()} or None,
        label_colors=color_labels(read_label_colors(colors), classes) if is_file(colors) else None,
    )


def read(root: Path, split: str, config: Config) -> Iterator[RawRecord | Problem]:
    """Records of one split in ascending key order. Holds one XML file at a time.

    Raises:
        DataError: a folder of the configuration does not exist.
        ConfigError: `mask_values` names a class that is none.
    """
    found: dict[str, tuple[_Folder, str]] = {}
    names = classes(root, config) if config.mask_values or _colored(root, config) else ()
    for path in _folders(root, config):
        folder = _open(path, names, config)
        where = str(_list(path, split, config))
        for stem in _stems(path, split, config, folder.images):
            if not is_inside(stem):
                yield Problem(reason="unsafe_path", kind="record", file=where, item_id=stem)
                continue
            key = image_key(folder.image(stem), root)
            if key in found:
                yield Problem(reason="duplicate_key", kind="record", file=where, item_id=stem, key=key)
            else:
                found[key] = (folder, stem)
    for key, (folder, stem) in sorted(found.items(), key=lambda item: item[0]):
        yield _record(key, stem, folder)


def _colored(root: Path, config: Config) -> bool:
    return any(is_file(folder / _LABEL_COLORS) for folder in _folders(root, config))


def _record(key: str, stem: str, folder: _Folder) -> RawRecord | Problem:
    xml, image = folder.path / folder.config.annotations / f"{stem}.xml", folder.image(stem)
    width = height = 0
    objects: tuple[RawObject, ...] = ()
    if folder.has_xml:
        try:
            document = _parsed(xml)
        except OSError:  # one of `ABSENT`
            return Problem(reason="missing_annotation", kind="record", file=str(xml), item_id=stem, key=key)
        except _BROKEN as error:
            return Problem(
                reason="broken_xml", kind="record", file=str(xml), item_id=stem, key=key, detail=str(error)
            )  # fmt: skip
        width, height = (int(_number(document.find("size"), name, 0)) for name in ("width", "height"))
        items = enumerate(document.findall("object"), start=1)
        objects = tuple(_object(i, item, folder.config.one_based) for i, item in items)
    semantic, instances = folder.mask("SegmentationClass", stem), folder.mask("SegmentationObject", stem)
    return RawRecord(
        key=key,
        image_id=stem,
        image=image,
        annotation_file=str(xml if folder.has_xml else semantic or image),
        width=width,
        height=height,
        objects=objects,
        semantic_mask=semantic,
        instance_mask=instances if folder.has_xml else None,  # without XML its ids have no class
        label_map=folder.label_map,
        label_colors=folder.label_colors,
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
        is_difficult=is_flag(_text(item, "difficult")),
        is_truncated=is_flag(_text(item, "truncated")),
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
