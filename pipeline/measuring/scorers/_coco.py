"""COCO's annotation and result files as columns, checked; entries are read by the rules of `sources/_coco_json.py`.

Results are a list of objects, or a document whose `annotations` carry `score`. What has a box and a mask is compared by
its mask, but its size is its box's, as in the official code.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, Literal

import numpy as np

from contracts.errors import DataError
from lightning_modules.metrics.coco_map import CocoDetections, CocoEvaluation, CocoTruth
from pipeline.ingest.door.masks import segmentation_to_counts
from pipeline.ingest.door.polygons import polygons_box
from pipeline.ingest.door.rules import FIXES, RULES, Refused
from pipeline.ingest.sources._coco_json import NO_BOX, Id, box, categories, is_crowd, refuse_panoptic, side
from pipeline.ingest.sources._files import find_id, number
from pipeline.measuring.scorers import Inputs, Scores
from pipeline.measuring.scorers._files import Entries, entries_of, read_json, short

Sizes = Mapping[Any, tuple[int, int]]
Found = Counter[str]  # what was read otherwise than written, by rule


@dataclass(frozen=True)
class Truth:
    """An annotation file. `numbers` maps the ids of its categories to numbers, `names` those to names."""

    objects: CocoTruth
    numbers: Mapping[Id, int]
    names: Mapping[int, str]
    notes: tuple[str, ...] = ()


def score_objects(inputs: Inputs, iou_type: Literal["bbox", "segm"]) -> Scores:
    """The twelve official numbers, and AP by class."""
    truth = read_truth(inputs.truth, iou_type)
    found, notes = read_results(inputs.predictions, truth, iou_type)
    evaluation = CocoEvaluation(truth.objects, found, iou_type)
    per_class, per_class_50 = evaluation.class_ap(), evaluation.class_ap(iou=0.5)
    names = truth.names
    details = {"per_class": {names[c]: {"AP": per_class[c], "AP50": per_class_50[c]} for c in sorted(names)}}
    nothing = () if len(found.image_ids) else (f"{inputs.predictions} holds no detection: every number is 0",)
    return Scores(measurements=[evaluation.measure()], details=details, notes=(*truth.notes, *notes, *nothing))


def read_truth(path: Path, iou_type: Literal["bbox", "segm"]) -> Truth:
    """An annotation file.

    Raises:
        DataError: names the file, the entry and what is wrong.
    """
    document, fixes = read_json(path), Counter[str]()
    images = entries_of(document, path, id_name="id", name="images")
    sizes = {key: _size(images, i) for i, key in enumerate(images.ids())}
    listed = entries_of(document, path, id_name="id", name="categories")
    known = categories(({"name": str(item.get("id")), **item} for item in listed.items), str(path))
    is_plain = all(isinstance(key, int) for key in known)
    numbers = {key: key if isinstance(key, int) and is_plain else i for i, key in enumerate(known, start=1)}
    names = {numbers[key]: category.name for key, category in known.items()}
    objects = entries_of(document, path, id_name="id", name="annotations")
    if objects.items:
        refuse_panoptic(objects.items[0], objects.where(0))
    image_ids = _image_ids(objects, sizes, fixes)
    masks = None
    if iou_type == "segm":
        masks = [_mask(objects, i, sizes[key], fixes) for i, key in enumerate(image_ids)]
    truth = CocoTruth(
        sizes=sizes,
        categories=names,
        image_ids=image_ids,
        category_ids=_category_numbers(objects, numbers),
        boxes=np.zeros((len(objects), 4)) if masks is not None else _boxes(objects, fixes),
        areas=_numbers(objects, "area", fixes),
        is_crowd=np.array([is_crowd(item.get("iscrowd")) for item in objects.items], bool),
        masks=masks,
        name=f"{path}: annotations",
    )
    return Truth(truth, numbers, names, _notes(path, fixes))


def read_results(path: Path, truth: Truth, iou_type: Literal["bbox", "segm"]) -> tuple[CocoDetections, tuple[str, ...]]:
    """A result file, and what there is to note about it.

    Raises:
        DataError: names the file, the entry and what is wrong.
    """
    document, fixes, sizes = read_json(path), Counter[str](), truth.objects.sizes
    name = ""
    if isinstance(document, dict):
        name = "annotations"
        _check_same_categories(document, path, truth)
    found = entries_of(document, path, id_name="image_id", name=name)
    image_ids = _image_ids(found, sizes, fixes)
    first = found.items[0] if found.items else {}
    has_boxes, has_masks = bool(first.get("bbox")), bool(first.get("segmentation"))
    needed = "segmentation" if iou_type == "segm" else "bbox"
    if found.items and not (has_masks or (has_boxes and iou_type == "bbox")):
        found.get(0, needed, "[x, y, width, height]" if needed == "bbox" else "run lengths or polygons")
        raise found.wrong(0, needed, "no empty one")
    masks = None
    if found.items and (iou_type == "segm" or not has_boxes):
        masks = [_mask(found, i, sizes[key], fixes) for i, key in enumerate(image_ids)]
    detections = CocoDetections(
        image_ids=image_ids,
        category_ids=_category_numbers(found, truth.numbers),
        scores=_numbers(found, "score", fixes),
        boxes=_boxes(found, fixes) if has_boxes or not found.items else None,
        masks=masks,
        name=f"{path}: {name or 'results'}",
    )
    return detections, _notes(path, fixes)


def _notes(path: Path, fixes: Found) -> tuple[str, ...]:
    return tuple(f"{path}: {count} x {rule}: {FIXES[rule]}" for rule, count in sorted((+fixes).items()))


# columns: made at once, and gone through again only to tell which entry is wrong


def _column(entries: Entries, key: str) -> list[Any]:
    try:
        return [item[key] for item in entries.items]
    except KeyError:
        position = next(i for i, item in enumerate(entries.items) if key not in item)
        entries.get(position, key, "a value in every entry")
        raise


def _numbers(entries: Entries, key: str, fixes: Found) -> np.ndarray:
    values = _column(entries, key)
    if not set(map(type, values)) <= {int, float}:
        for position, value in enumerate(values):
            values[position], was_text = number(value)
            if values[position] is None:
                raise entries.wrong(position, key, "a number")
            fixes["number_from_text"] += was_text
    return np.array(values, np.float64)


def _category_numbers(entries: Entries, numbers: Mapping[Id, int]) -> np.ndarray:
    values = _column(entries, "category_id")
    found = [numbers.get(value) if type(value) in (int, str) else None for value in values]
    for position, value in enumerate(found):
        if value is None:
            key = find_id(values[position], numbers)
            if key is None:
                raise entries.wrong(
                    position,
                    "category_id",
                    f"an id of the truth's categories: {', '.join(map(repr, list(numbers)[:8]))}",
                )
            found[position] = numbers[key]
    return np.array(found, np.int64)


def _boxes(entries: Entries, fixes: Found) -> np.ndarray:
    """(N, 4) boxes; the one around its polygons where an entry has none."""
    boxes: list[Any] = [item.get("bbox") for item in entries.items]
    is_plain = set(map(type, boxes)) <= {list} and set(map(len, boxes)) <= {4}
    if not (is_plain and set(map(type, chain.from_iterable(boxes))) <= {int, float}):
        for position, value in enumerate(boxes):
            boxes[position] = _one_box(entries, position, value, fixes)
    return np.fromiter(chain.from_iterable(boxes), np.float64, 4 * len(boxes)).reshape(-1, 4)


def _one_box(entries: Entries, position: int, value: Any, fixes: Found) -> Sequence[float]:
    changed: list[str] = []
    corners = box(value, changed)
    fixes.update(changed)
    if corners is NO_BOX:
        around = polygons_box(entries.items[position].get("segmentation"))
        if around is None:
            entries.get(position, "bbox", "[x, y, width, height], or polygons to take it from")
            raise entries.wrong(position, "bbox", "[x, y, width, height], or polygons to take it from")
        fixes["box_from_mask"] += 1
        x1, y1, x2, y2 = around
        return x1, y1, x2 - x1, y2 - y1
    if corners is None or not all(map(math.isfinite, corners)):
        raise entries.wrong(position, "bbox", "[x, y, width, height], four numbers")
    return corners


def _size(images: Entries, position: int) -> tuple[int, int]:
    """(height, width); (0, 0) if the file does not say: boxes are measured without."""
    item = images.items[position]
    height, width = side(item.get("height")), side(item.get("width"))
    if height is None or width is None or (height == 0) != (width == 0):
        raise images.wrong(position, "width" if height else "height", "a whole number of pixels, or null for both")
    return height, width


def _mask(entries: Entries, position: int, size: tuple[int, int], fixes: Found) -> dict[str, Any]:
    height, width = size
    if not height:
        raise DataError("masks need the size of their image", where=entries.where(position), fix="add height and width")
    segmentation = entries.get(position, "segmentation", "run lengths or polygons")
    try:
        counts = segmentation_to_counts(segmentation, height, width, fixes)
    except Refused as error:
        raise DataError(
            f"a segmentation that cannot be used: {RULES[error.reason]}",
            value=error.detail,
            where=entries.where(position),
            allowed=f"run lengths of {height} x {width} pixels, or polygons of at least 3 points in or near the image",
        ) from None
    if not counts:
        raise entries.wrong(position, "segmentation", "no empty one: at least one polygon of 3 points, or run lengths")
    return {"size": [height, width], "counts": counts}


def _image_ids(entries: Entries, sizes: Sizes, fixes: Found) -> list[Id]:
    """The image of each entry, by the truth's id of it."""
    found = _column(entries, "image_id")
    for position, value in enumerate(found):
        if type(value) in (int, str) and value in sizes:
            continue
        key = find_id(value, sizes)
        if key is None:
            raise DataError(
                "an image that the truth does not have",
                value=short(value),
                where=entries.where(position),
                allowed=f"one of its {len(sizes)} image ids, such as {next(iter(sizes), '(none)')!r}",
            )
        found[position] = key
        fixes["image_id_type"] += type(value) is not float
    return found


def _check_same_categories(document: Mapping[str, Any], path: Path, truth: Truth) -> None:
    """A results document with categories of its own must mean the same by each id."""
    for item in document.get("categories") or []:
        own = item if isinstance(item, dict) else {}
        key = find_id(own.get("id"), truth.numbers)
        if key is not None and "name" in own and own["name"] != truth.names[truth.numbers[key]]:
            raise DataError(
                "a category has another name in the results than in the truth",
                value=own["name"],
                where=f"{path}: categories, id {own['id']}",
                allowed=truth.names[truth.numbers[key]],
            )
