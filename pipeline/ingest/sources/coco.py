"""COCO: instances and captions JSON (https://cocodataset.org/#format-data), of COCO itself and of annotation tools.

A full COCO does not fit into memory as dicts: images become rows of a small table, annotations go through a `Spool` and
come back image by image.
"""

from __future__ import annotations

import math
import posixpath
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from contracts.errors import ConfigError, DataError
from contracts.raw import ItemKind, Problem, RawObject, RawRecord
from contracts.records import Caption
from pipeline.ingest.sources import _coco_json as entries
from pipeline.ingest.sources._coco_images import Images
from pipeline.ingest.sources._files import (
    NOT_CLASSES,
    Spool,
    check_folders,
    check_template,
    find_id,
    item_id,
    number,
    shown,
    stream_list,
)
from pipeline.ingest.sources._recognise import looks_like
from pipeline.ingest.sources._splits import (
    SPLITS,
    Split,
    SplitNames,
    check_all_there,
    file_splits,
    in_key_order,
    split_names,
)
from pipeline.system.reading import is_file, patiently


@dataclass(frozen=True, kw_only=True)
class Config:
    """Paths below the data set's folder, `{split}` filled in; a split exists if one of its two JSON files does.

    `splits` says how the files call a split where they do not call it so: `{val: valid}`; a list is read as one. A JSON
    path without `{split}` is the file of one split: of the one in `only`, else of train. `folders` below the data set's
    folder have these paths each and are read as one. `only` limits the splits.
    """

    images: str = "{split}2017"
    instances: str = "annotations/instances_{split}2017.json"
    captions: str = "annotations/captions_{split}2017.json"
    folders: tuple[str, ...] = (".",)
    splits: SplitNames = field(default_factory=dict)
    only: tuple[Split, ...] = SPLITS

    def __post_init__(self) -> None:
        for key in ("images", "instances", "captions"):
            check_template(key, getattr(self, key), split="train")
        check_folders(self.folders)
        if not self.only:
            raise ConfigError("only is empty", value=self.only, allowed=", ".join(SPLITS))
        if self.splits and "{split}" not in self.instances + self.captions:
            raise ConfigError(
                "`splits` names files, but no path has {split} to put a name into",
                value=self.instances or self.captions,
                allowed='instances: "{split}/_annotations.coco.json", or without `splits`, and `split: {val: 0.1}` '
                "beside `sources` to draw a val split from one file",
            )


@dataclass(frozen=True)
class _Part:
    """The files of one split in one folder, under one of its names."""

    images: str  # below the data set's folder
    instances: Path | None
    captions: Path | None

    @property
    def files(self) -> list[Path]:
        return [path for path in (self.instances, self.captions) if path is not None]


def _parts(root: Path, split: str, config: Config) -> list[_Part]:
    """What there is of a split."""
    if split not in config.only:
        return []
    parts, found, names = list[_Part](), set[str](), split_names(split, config.splits)
    for folder in config.folders:
        for name in names:
            part = _Part(
                posixpath.join(folder, config.images.format(split=name)),
                _path(root / folder, config.instances, split, name, config),
                _path(root / folder, config.captions, split, name, config),
            )
            if part.files:
                parts.append(part)
                found.add(name)
    if parts:
        check_all_there(split, names, found, f"{root}: {config.instances}, {config.captions}")
    return parts


def _path(folder: Path, template: str, split: str, name: str, config: Config) -> Path | None:
    if split not in file_splits(template, config.only):
        return None
    path = folder / template.format(split=name)
    return path if template and is_file(path) else None


def splits(root: Path, config: Config) -> tuple[str, ...]:
    """Splits of `config.only` that have an instances or a captions file."""
    return tuple(split for split in SPLITS if _parts(root, split, config))


def _instances(root: Path, config: Config) -> tuple[Path, ...]:
    parts = (part for split in SPLITS for part in _parts(root, split, config))
    return tuple(part.instances for part in parts if part.instances is not None)


def classes(root: Path, config: Config) -> tuple[str, ...]:
    """Category names by ascending category id, which the instances files must agree on; ids may differ.

    A category that only groups the others and owns no annotation is no class (`notes` tells of it).

    Raises:
        DataError: a file without usable categories, or two files that differ.
    """
    files = _instances(root, config)
    names, grouping = _survey(files, _versions(files))
    return tuple(name for name in names if name != grouping)


def notes(root: Path, config: Config) -> tuple[str, ...]:
    """What a user should know of these files though nothing is wrong."""
    files = _instances(root, config)
    _, grouping = _survey(files, _versions(files))
    if grouping is None:
        return ()
    return (f"category {grouping!r} of {files[0]} groups the others and owns no annotation: it is no class",)


def _versions(files: tuple[Path, ...]) -> tuple[int, ...]:
    return tuple(patiently(path.stat, path).st_mtime_ns for path in files)


@lru_cache(maxsize=8)  # each reads whole files
def _survey(files: tuple[Path, ...], _: tuple[int, ...]) -> tuple[tuple[str, ...], str | None]:
    """Class names, and the name of the category that only groups the others in all files."""
    if not files:
        return (), None
    known = {path: entries.categories(stream_list(path, "categories"), str(path)) for path in files}
    first, names = files[0], dict[Path, list[str]]()
    for path, listed in known.items():
        names[path] = [category.name for category in listed.values() if category.name.lower() not in NOT_CLASSES]
    for path, found in names.items():
        if not found:
            raise DataError(
                "this instances file lists no categories",
                where=str(path),
                allowed="`categories` with names",
                fix=looks_like(path),
            )
        if differing := set(found) ^ set(names[first]):
            raise DataError(
                "the instances files have different categories", value=sorted(differing)[:6], where=f"{first}, {path}",
                fix="write the same `categories` list into all of them",
            )  # fmt: skip
    roots = {entries.ownerless_root(found, entries.category_ids(path)) for path, found in known.items()}
    return tuple(names[first]), roots.pop() if len(roots) == 1 else None


def read(root: Path, split: str, config: Config) -> Iterator[RawRecord | Problem]:
    """Records of one split in ascending key order, after the problems found in its files.

    Raises:
        DataError: a JSON file is broken, or a file of another kind.
    """
    return in_key_order([_read_part(root, part) for part in _parts(root, split, config)])


def _read_part(root: Path, part: _Part) -> Iterator[RawRecord | Problem]:
    images = Images(part.images)
    for path in part.files:
        yield from images.read(path)
    yield from images.finish()
    with Spool() as objects, Spool() as texts:
        if part.instances is not None:
            yield from _read_annotations(part.instances, images, objects, "object")
        if part.captions is not None:
            yield from _read_annotations(part.captions, images, texts, "caption")
        names: dict[entries.Id, entries.Category] = {}
        if part.instances is not None:
            names = entries.categories(stream_list(part.instances, "categories"), str(part.instances))
        annotation_file = ", ".join(map(str, part.files))
        make = partial(_object, names=names)
        for row in images.rows_by_key():
            yield RawRecord(
                key=images.keys[row],
                image_id=images.ids[row],
                image=root / part.images / images.files[row],
                annotation_file=annotation_file,
                width=images.sizes[row][0],
                height=images.sizes[row][1],
                objects=objects.unread(row, make),
                captions=texts.unread(row, _caption),
                fixes=images.fixes(row),
            )


def _object(item: list, names: dict[entries.Id, entries.Category]) -> RawObject:
    own_id, category, (x, y, w, h), segmentation, area, is_crowd = item
    key = find_id(category, names)
    return RawObject(
        object_id=str(own_id),
        category=names[key].name if key is not None else f"#{category}",
        box=(x, y, x + w, y + h),
        segmentation=segmentation,
        area=area,
        is_crowd=is_crowd,
    )


def _caption(item: list) -> Caption:
    number, text = item
    return Caption(caption_id=number, text=text)


def _read_annotations(path: Path, images: Images, spool: Spool, kind: ItemKind) -> Iterator[Problem]:
    """Put the annotations of one file into `spool`, by image row; the problems of those that cannot be."""
    convert = _object_item if kind == "object" else _caption_item
    for position, item in enumerate(stream_list(path, "annotations")):
        place, fixes = f"annotations[{position}]", list[str]()
        if position == 0:
            entries.refuse_panoptic(item, f"{path}: {place}")
        own_id = item_id(item.get("id")) if isinstance(item, dict) else None
        row, retyped = images.row(item.get("image_id")) if isinstance(item, dict) else (None, False)
        if own_id is None:
            own_id = place
            fixes.append("annotation_id_made")
        if retyped:
            fixes.append("image_id_type")
        reason, kept = "", None
        if not isinstance(item, dict):
            reason = "not_an_object"
        elif row is None:
            reason = "unknown_image"
        else:
            kept, reason = convert(own_id, item, fixes)
        if reason:
            where = item.get("id") if isinstance(item, dict) and "id" in item else place
            key = images.keys[row] if row is not None else ""
            yield Problem(
                reason=reason, kind=kind, file=str(path), item_id=shown(where), key=key, detail=_short(item)
            )  # fmt: skip
        elif row is not None:
            spool.add(row, own_id, kept)
            images.note_fixes(row, fixes)
    for repeated in spool.seal():
        yield Problem(reason="duplicate_annotation_id", kind=kind, file=str(path), item_id=str(repeated))


def _short(item: Any) -> str:
    if isinstance(item, dict):
        item = {key: item.get(key) for key in ("image_id", "category_id", "bbox", "caption") if key in item}
    return shown(item, 200)


def _object_item(own_id: int | str, item: dict[str, Any], fixes: list[str]) -> tuple[list | None, str]:
    """What `_object` needs of an annotation, and the reason if it cannot be had. null in a box becomes NaN."""
    corners = entries.box(item.get("bbox"), fixes)
    segmentation = item.get("segmentation")
    if corners is None or (corners is entries.NO_BOX and not segmentation):
        return None, "bad_box"
    area, was_text = (None, False) if item.get("area") is None else number(item["area"])
    if was_text and area is not None:
        fixes.append("number_from_text")
    if area is None and item.get("area") is not None:
        area = math.nan  # given, but no number: the door replaces it
    category = item.get("category_id")
    if isinstance(category, bool) or not isinstance(category, int | float | str | None):  # true is no 1
        category = shown(category)
    return [own_id, category, corners, segmentation, area, entries.is_crowd(item.get("iscrowd"))], ""


def _caption_item(own_id: int | str, item: dict[str, Any], fixes: list[str]) -> tuple[list | None, str]:
    caption = item.get("caption")
    return ([own_id, caption], "") if isinstance(caption, str) else (None, "bad_caption")
