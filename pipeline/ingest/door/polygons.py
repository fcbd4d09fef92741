"""Polygons of one object, as tools write them -> those that can be filled."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import numpy as np

from pipeline.ingest.door.rules import Refused

Extent = tuple[float, float, float, float]


def usable_polygons(segmentation: list[Any], height: int, width: int, fixes: Counter[str]) -> list[list[float]]:
    """The parts of a list of polygons that are polygons; empty if it has none and none was lost.

    One flat list of numbers is one polygon. A part that cannot be used goes, and the others stay; where none stays,
    points and lines are a mask without pixels, and anything else refuses the object.

    Raises:
        Refused: no part can be used, and one of them has lost coordinates.
    """
    if segmentation and not any(isinstance(part, list) for part in segmentation):
        segmentation = [segmentation]
        fixes["polygon_nested"] += 1
    kept: list[list[float]] = []
    lost: list[Refused] = []
    for part in segmentation:
        try:
            kept += [polygon] if (polygon := _polygon(part, height, width, fixes)) else []
        except Refused as refused:
            lost.append(refused)
    if lost and not kept:
        raise lost[0]
    if kept:
        fixes["polygon_part_dropped"] += len(segmentation) - len(kept)
    elif any(segmentation):
        fixes["empty_mask_dropped"] += 1
    return kept


def polygons_box(segmentation: Any) -> Extent | None:
    """(x1, y1, x2, y2) around the points of polygons, of those with three points or more; None if there is none."""
    if not isinstance(segmentation, list) or not segmentation:
        return None
    parts = segmentation if isinstance(segmentation[0], list) else [segmentation]
    points = [np.asarray(p, np.float64).reshape(-1, 2) for p in parts if isinstance(p, list) and _is_polygon(p)]
    if not points:
        return None
    (x1, y1), (x2, y2) = np.concatenate(points).min(0).tolist(), np.concatenate(points).max(0).tolist()
    return x1, y1, x2, y2


def _is_polygon(part: list[Any]) -> bool:
    return len(part) >= 6 and len(part) % 2 == 0 and all(_number(v) is not None for v in part)


def _polygon(part: Any, height: int, width: int, fixes: Counter[str]) -> list[float] | None:
    """The coordinates; None of a point or a line."""
    if not isinstance(part, list):
        raise Refused("bad_segmentation", f"a polygon is a {type(part).__name__}")
    if len(part) % 2:
        raise Refused("polygon_odd_coordinates", f"{len(part)} numbers")
    if len(part) < 6:
        return None
    numbers = [number for v in part if (number := _number(v)) is not None]
    if len(numbers) < len(part):
        raise Refused("polygon_not_finite")
    fixes["number_from_text"] += any(isinstance(v, str) for v in part)
    points = np.asarray(numbers, np.float64).reshape(-1, 2)
    size = np.asarray([width, height])
    if (points < -size).any() or (points > 2 * size).any():
        raise Refused("polygon_far_outside", f"x, y from {points.min(0).tolist()} to {points.max(0).tolist()}")
    return numbers


def _number(value: Any) -> float | None:
    """A coordinate, also one that is written as text; None if it is no finite number."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None
