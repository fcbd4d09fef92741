"""Entries of COCO's JSON as tools write them: ids, numbers, boxes, categories. Shared with the COCO scorers.

What people's tools do and COCO's own files do not: ids and numbers as text, ids from 0, one category a region, polygons
as one flat list, no box beside a polygon. All of it has one meaning, so it is read, and counted as a fix.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from contracts.errors import DataError
from pipeline.ingest.sources._files import find_id, item_id, number, shown, stream_list, whole_number

Id = int | str
Box = tuple[float, float, float, float]
NO_BOX: Box = (math.nan, math.nan, math.nan, math.nan)


@dataclass(frozen=True)
class Category:
    """An entry of `categories`."""

    name: str
    supercategory: str = ""


def image_id(value: Any) -> Id | None:
    """`value` as the id of an image: a whole number or a text that is not empty; None if it is neither."""
    if isinstance(value, float):
        value = whole_number(value)
    return value if isinstance(value, int | str) and not isinstance(value, bool) and value != "" else None


def side(value: Any) -> int | None:
    """A width or height in pixels; 0 where the file does not say (null, absent); None if it is no such number."""
    if value is None:
        return 0
    found, _ = number(value)
    pixels = whole_number(found)
    return pixels if pixels is not None and pixels >= 0 else None


def box(value: Any, fixes: list[str]) -> Box | None:
    """(x, y, width, height); `NO_BOX` where there is none, NaN in place of null; None if it is no box.

    Args:
        fixes: names of what was changed are appended.
    """
    if value is None or value == []:
        return NO_BOX
    if not isinstance(value, list) or len(value) != 4:
        return None
    if {*map(type, value)} <= {int, float}:
        return float(value[0]), float(value[1]), float(value[2]), float(value[3])
    numbers = [(math.nan, False) if v is None else number(v) for v in value]
    if any(v is None for v, _ in numbers):
        return None
    if any(text for _, text in numbers):
        fixes.append("number_from_text")
    x, y, w, h = (v for v, _ in numbers if v is not None)
    return x, y, w, h


def is_crowd(value: Any) -> bool:
    """What `iscrowd` says: 1, true, "1"."""
    return value in (1, True, "1", "true")


def categories(items: Iterable[Any], where: str) -> dict[Id, Category]:
    """Id -> category, by ascending id. Equal records of one category count once: some tools list it once a region.

    Raises:
        DataError: an entry without id or name; two unequal entries of one id; one name with two ids.
    """
    found: dict[Id, Category] = {}
    ids: dict[str, Id] = {}
    for item in items:
        key = item_id(item.get("id")) if isinstance(item, dict) else None
        name = item.get("name") if isinstance(item, dict) else None
        if key is None or not isinstance(name, str) or not name.strip():
            raise DataError(
                "a category needs an id and a name", value=shown(item), where=f"{where}: categories",
                allowed='{"id": 1, "name": "cup"}; an id is a whole number from 0 on, or a text',
            )  # fmt: skip
        category = Category(name, text if isinstance(text := item.get("supercategory"), str) else "")
        if found.setdefault(key, category).name != name:
            raise DataError(
                "two categories with one id", value=[found[key].name, name], where=f"{where}: categories, id {key!r}",
                fix="give each category an id of its own, and its annotations that `category_id`",
            )  # fmt: skip
        if ids.setdefault(name, key) != key:
            raise DataError(
                "two categories with one name", value=name, where=f"{where}: categories, ids {ids[name]!r} and {key!r}",
                fix="write one of the two ids into the annotations of both, and list the category once",
            )  # fmt: skip
    return dict(sorted(found.items(), key=lambda item: _order(item[0])))


def _order(key: Id) -> tuple[bool, int, str]:
    """Numbers before texts; a text of digits is a number."""
    is_number = isinstance(key, int) or (key.isascii() and key.isdigit())
    return (not is_number, int(key) if is_number else 0, str(key))


def ownerless_root(known: Mapping[Id, Category], used: Iterator[Any]) -> str | None:
    """The name of a category that only groups the others: it is their supercategory, and owns no annotation.

    Roboflow writes such a root.

    Args:
        used: category ids of all annotations, read only if there is a candidate.
    """
    for key, root in known.items():
        others = [category for other, category in known.items() if other != key]
        if others and all(category.supercategory == root.name for category in others):
            return None if any(find_id(one, (key,)) is not None for one in used) else root.name
    return None


def refuse_panoptic(item: Any, where: str) -> None:
    """Raise DataError if an entry of `annotations` is a panoptic file's: one entry an image, its segments in a PNG."""
    if isinstance(item, Mapping) and "segments_info" in item:
        raise DataError(
            "this is a COCO panoptic file (its annotations have `segments_info`), not one of instances",
            where=where,
            allowed="instances: one annotation an object, with bbox or segmentation",
            fix="name the instances file, or convert: panopticapi's panoptic2detection_coco_format.py writes instances "
            "(https://github.com/cocodataset/panopticapi)",
        )


def category_ids(path: Any) -> Iterator[Any]:
    """`category_id` of each annotation of a file."""
    for item in stream_list(path, "annotations"):
        if isinstance(item, dict):
            yield item.get("category_id")
