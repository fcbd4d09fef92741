"""COCO: instances and captions JSON (https://cocodataset.org/#format-data).

A full COCO does not fit into memory as dicts: images become rows of a small table, annotations go through a `Spool` and
come back image by image.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from contracts.errors import ConfigError, DataError
from contracts.records import Caption, ItemKind, Problem, RawObject, RawRecord
from pipeline.reading import is_file
from pipeline.sources._files import (
    NOT_CLASSES,
    Spool,
    annotation_id,
    check_template,
    is_inside,
    record_key,
    shown,
    stream_list,
    whole_number,
)

_SPLITS: tuple[Literal["train", "val", "test"], ...] = ("train", "val", "test")


@dataclass(frozen=True, kw_only=True)
class Config:
    """Paths below the data set's folder, `{split}` filled in; a split exists if one of its two JSON files does.

    `only` limits the splits; a path without `{split}` needs it, as one file can be only one split.
    """

    images: str = "{split}2017"
    instances: str = "annotations/instances_{split}2017.json"
    captions: str = "annotations/captions_{split}2017.json"
    only: tuple[Literal["train", "val", "test"], ...] = _SPLITS

    def __post_init__(self) -> None:
        for key in ("images", "instances", "captions"):
            check_template(key, getattr(self, key), split="train")
        for key in ("instances", "captions"):
            template = getattr(self, key)
            if template and "{split}" not in template and len(self.only) > 1:
                raise ConfigError(
                    f"{key} names the same file for several splits",
                    value=template,
                    allowed="a path with {split}, or one split in `only`",
                )


def _path(root: Path, template: str, split: str) -> Path | None:
    path = root / template.format(split=split)
    return path if template and is_file(path) else None


def splits(root: Path, config: Config) -> tuple[str, ...]:
    """Splits of `config.only` that have an instances or a captions file."""
    return tuple(
        split
        for split in _SPLITS
        if split in config.only and (_path(root, config.instances, split) or _path(root, config.captions, split))
    )


def classes(root: Path, config: Config) -> tuple[str, ...]:
    """Category names by ascending category id, which the instances files of all splits must agree on.

    Raises:
        DataError: a file without usable categories, or two files that differ.
    """
    found: dict[Path, dict[int, str]] = {}
    for split in splits(root, config):
        if (path := _path(root, config.instances, split)) is not None:
            found[path] = _categories(path)
    if not found:
        return ()
    first, *others = found
    for other in others:
        if found[other] != found[first]:
            differing = sorted(set(found[first].items()) ^ set(found[other].items()))[:6]
            raise DataError(
                "the splits have different categories", value=differing, where=f"{first}, {other}",
                fix="write the same `categories` list into both files",
            )  # fmt: skip
    return tuple(name for _, name in sorted(found[first].items()))


def _categories(path: Path) -> dict[int, str]:
    """Category id -> name."""
    out: dict[int, str] = {}
    for item in stream_list(path, "categories"):
        number = whole_number(item.get("id")) if isinstance(item, dict) else None
        name = item.get("name") if isinstance(item, dict) else None
        if number is None or not isinstance(name, str) or not name or number in out or name in out.values():
            raise DataError(
                "a category needs an id and a name of its own", value=shown(item), where=f"{path}: categories"
            )
        if name.lower() not in NOT_CLASSES:
            out[number] = name
    if not out:
        raise DataError("this instances file lists no categories", where=str(path))
    return out


def read(root: Path, split: str, config: Config) -> Iterator[RawRecord | Problem]:
    """Records of one split in ascending key order, after the problems found in its files.

    Raises:
        DataError: a JSON file is broken.
    """
    instances, captions = _path(root, config.instances, split), _path(root, config.captions, split)
    folder = root / config.images.format(split=split)
    files = [path for path in (instances, captions) if path is not None]
    images = _Images()
    for path in files:
        yield from images.read(path)
    yield from images.finish()
    with Spool() as objects, Spool() as texts:
        if instances is not None:
            yield from _read_annotations(instances, images, objects, "object")
        if captions is not None:
            yield from _read_annotations(captions, images, texts, "caption")
        names = _categories(instances) if instances is not None else {}
        annotation_file = ", ".join(map(str, files))
        make = partial(_object, names=names)
        for row in images.rows_by_key():
            yield RawRecord(
                key=images.keys[row],
                image_id=images.ids[row],
                image=folder / images.files[row],
                annotation_file=annotation_file,
                width=images.sizes[row][0],
                height=images.sizes[row][1],
                objects=objects.unread(row, make),
                captions=texts.unread(row, _caption),
            )


def _object(item: list, names: dict) -> RawObject:
    number, category, (x, y, w, h), segmentation, area, is_crowd = item
    return RawObject(
        object_id=str(number),
        category=names.get(category, f"#{category}"),
        box=(x, y, x + w, y + h),
        segmentation=segmentation,
        area=area,
        is_crowd=is_crowd,
    )


def _caption(item: list) -> Caption:
    number, text = item
    return Caption(caption_id=number, text=text)


class _Images:
    """The image entries of one split's files: a row each, found by id."""

    def __init__(self) -> None:
        self.ids: list[int | str] = []
        self.files: list[str] = []
        self.keys: list[str] = []
        self.sizes: list[tuple[int, int]] = []
        self._rows: dict[int | str, int] = {}
        self._origin: list[Path] = []
        self._dropped: set[int] = set()

    def row(self, image_id: Any) -> int | None:
        """The row of a usable image; None if there is none."""
        if isinstance(image_id, float):
            image_id = whole_number(image_id)
        row = self._rows.get(image_id) if isinstance(image_id, int | str) else None
        return None if row in self._dropped else row

    def read(self, path: Path) -> Iterator[Problem]:
        """Add the entries of one file."""
        seen: set[int] = set()
        count = 0
        for count, item in enumerate(stream_list(path, "images"), start=1):
            problem = self._add(item, path, seen)
            if problem is not None:
                reason, detail = problem
                image_id = item.get("id") if isinstance(item, dict) else f"images[{count - 1}]"
                yield Problem(reason=reason, kind="record", file=str(path), item_id=shown(image_id), detail=detail)
        if not count:
            raise DataError("this file lists no images", where=f"{path}: images")

    def _add(self, item: Any, path: Path, seen: set[int]) -> tuple[str, str] | None:
        if not isinstance(item, dict):
            return "not_an_object", shown(item)
        image_id, name = item.get("id"), item.get("file_name")
        if isinstance(image_id, float):
            image_id = whole_number(image_id)
        if isinstance(image_id, bool) or not isinstance(image_id, int | str) or image_id == "":
            return "bad_image_id", shown(item.get("id"))
        size = (whole_number(item.get("width", 0)), whole_number(item.get("height", 0)))
        if not isinstance(name, str) or size[0] is None or size[1] is None or min(size[0], size[1]) < 0:
            return "bad_image_entry", shown([name, item.get("width"), item.get("height")], 200)
        if not is_inside(name):
            return "unsafe_path", name
        row = self._rows.get(image_id)
        if row is None:
            seen.add(len(self.ids))
            self._rows[image_id] = len(self.ids)
            self.ids.append(image_id)
            self.files.append(name)
            self.keys.append(record_key(name))
            self.sizes.append((size[0], size[1]))
            self._origin.append(path)
        elif row in seen:
            return "duplicate_image_id", name
        else:
            seen.add(row)
            self._compare(row, name, (size[0], size[1]))
        return None

    def _compare(self, row: int, name: str, size: tuple[int, int]) -> None:
        """Mark an image that an earlier file describes differently."""
        if self.sizes[row] == (0, 0):
            self.sizes[row] = size
        if name != self.files[row] or size not in ((0, 0), self.sizes[row]):
            self._dropped.add(row)

    def finish(self) -> Iterator[Problem]:
        """Problems that show only when all files are read; call once, before the first `row`."""
        for row in sorted(self._dropped):
            yield self._problem(row, "conflicting_image_entry", f"{self.files[row]}, {self.sizes[row]}")
        first: dict[str, int] = {}
        for row, key in enumerate(self.keys):
            if row not in self._dropped and first.setdefault(key, row) != row:
                self._dropped.add(row)
                yield self._problem(row, "duplicate_key", f"{self.files[row]} after {self.files[first[key]]}")

    def _problem(self, row: int, reason: str, detail: str) -> Problem:
        return Problem(
            reason=reason,
            kind="record",
            file=str(self._origin[row]),
            item_id=str(self.ids[row]),
            key=self.keys[row],
            detail=detail,
        )

    def rows_by_key(self) -> list[int]:
        kept = (row for row in range(len(self.ids)) if row not in self._dropped)
        return sorted(kept, key=self.keys.__getitem__)


def _read_annotations(path: Path, images: _Images, spool: Spool, kind: ItemKind) -> Iterator[Problem]:
    """Put the annotations of one file into `spool`, by image row; the problems of those that cannot be."""
    convert = _object_item if kind == "object" else _caption_item
    for position, item in enumerate(stream_list(path, "annotations")):
        number = annotation_id(item.get("id")) if isinstance(item, dict) else None
        row = images.row(item.get("image_id")) if isinstance(item, dict) else None
        reason, kept = "", None
        if not isinstance(item, dict):
            reason = "not_an_object"
        elif number is None:
            reason = "bad_annotation_id"
        elif row is None:
            reason = "unknown_image"
        else:
            kept, reason = convert(number, item)
        if reason:
            where = item.get("id") if isinstance(item, dict) and "id" in item else f"annotations[{position}]"
            key = images.keys[row] if row is not None else ""
            yield Problem(
                reason=reason, kind=kind, file=str(path), item_id=shown(where), key=key, detail=_short(item)
            )  # fmt: skip
        elif row is not None and number is not None:
            spool.add(row, number, kept)
    for number in spool.seal():
        yield Problem(reason="duplicate_annotation_id", kind=kind, file=str(path), item_id=str(number))


def _short(item: Any) -> str:
    if isinstance(item, dict):
        item = {key: item.get(key) for key in ("image_id", "category_id", "bbox", "caption") if key in item}
    return shown(item, 200)


def _object_item(number: int, item: dict[str, Any]) -> tuple[list | None, str]:
    """What `_object` needs of an annotation, and the reason if it cannot be had. null in a box becomes NaN."""
    box = item.get("bbox")
    if not isinstance(box, list) or len(box) != 4 or any(isinstance(v, bool | str | list | dict) for v in box):
        return None, "bad_box"
    corners = [math.nan if v is None else float(v) for v in box]
    area = item.get("area")
    if isinstance(area, bool) or not isinstance(area, int | float | None):
        area = math.nan  # given, but no number: the door replaces it
    category = item.get("category_id")
    if isinstance(category, bool) or not isinstance(category, int | float | str | None):  # true is no 1
        category = shown(category)
    return [number, category, corners, item.get("segmentation"), area, item.get("iscrowd") in (1, True)], ""


def _caption_item(number: int, item: dict[str, Any]) -> tuple[list | None, str]:
    caption = item.get("caption")
    return ([number, caption], "") if isinstance(caption, str) else (None, "bad_caption")
