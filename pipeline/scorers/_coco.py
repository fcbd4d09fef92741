"""COCO's annotation and result files as columns, checked.

Results are a list of objects, or a document whose `annotations` carry `score`. What has a box and a mask is compared by
its mask, but its size is its box's, as in the official code.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import chain
from pathlib import Path
from typing import Any, Literal

import numpy as np

from contracts.errors import DataError
from lightning_modules.metrics.coco_map import CocoDetections, CocoEvaluation, CocoTruth
from pipeline.door.masks import segmentation_to_counts
from pipeline.door.rules import Refused
from pipeline.scorers import Inputs, Scores
from pipeline.scorers._files import Entries, entries_of, read_json, short
from pipeline.sources._files import whole_number

Sizes = Mapping[Any, tuple[int, int]]


def score_objects(inputs: Inputs, iou_type: Literal["bbox", "segm"]) -> Scores:
    """The twelve official numbers, and AP by class."""
    truth, names = read_truth(inputs.truth, iou_type)
    found = read_results(inputs.predictions, truth.sizes, names, iou_type)
    evaluation = CocoEvaluation(truth, found, iou_type)
    per_class, per_class_50 = evaluation.class_ap(), evaluation.class_ap(iou=0.5)
    details = {"per_class": {names[c]: {"AP": per_class[c], "AP50": per_class_50[c]} for c in sorted(names)}}
    return Scores(
        measurements=[evaluation.measure()],
        details=details,
        notes=() if len(found.image_ids) else (f"{inputs.predictions} holds no detection: every number is 0",),
    )


def read_truth(path: Path, iou_type: Literal["bbox", "segm"]) -> tuple[CocoTruth, dict[int, str]]:
    """An annotation file, and the names of its categories by id.

    Raises:
        DataError: names the file, the entry and what is wrong.
    """
    document = read_json(path)
    images = entries_of(document, path, id_name="id", name="images")
    image_ids = images.ids()
    if len({type(i) for i in image_ids}) > 1:
        raise DataError(
            "image ids of two types", value=image_ids[:5], where=str(path), allowed="all numbers or all texts"
        )
    sizes = {key: _size(images, i) for i, key in enumerate(image_ids)}
    categories = entries_of(document, path, id_name="id", name="categories")
    names = {_integer(categories, i, "id"): str(item.get("name", i)) for i, item in enumerate(categories.items)}
    categories.ids()  # no two alike
    objects = entries_of(document, path, id_name="id", name="annotations")
    _check_images(objects, sizes)
    masks = None
    if iou_type == "segm":
        masks = [_mask(objects, i, sizes) for i in range(len(objects))]
    truth = CocoTruth(
        sizes=sizes,
        categories=names,
        image_ids=_column(objects, "image_id"),
        category_ids=_integers(objects, "category_id"),
        boxes=np.zeros((len(objects), 4)) if masks is not None else _boxes(objects),
        areas=_numbers(objects, "area"),
        is_crowd=np.array([bool(item.get("iscrowd", 0)) for item in objects.items], bool),
        masks=masks,
        name=f"{path}: annotations",
    )
    return truth, names


def read_results(
    path: Path, sizes: Sizes, names: Mapping[int, str], iou_type: Literal["bbox", "segm"]
) -> CocoDetections:
    """A result file.

    Raises:
        DataError: names the file, the entry and what is wrong.
    """
    document = read_json(path)
    name = ""
    if isinstance(document, dict):
        name = "annotations"
        _check_same_categories(document, path, names)
    found = entries_of(document, path, id_name="image_id", name=name)
    _check_images(found, sizes)
    first = found.items[0] if found.items else {}
    has_boxes, has_masks = bool(first.get("bbox")), bool(first.get("segmentation"))
    needed = "segmentation" if iou_type == "segm" else "bbox"
    if found.items and not (has_masks or (has_boxes and iou_type == "bbox")):
        found.get(0, needed, "[x, y, width, height]" if needed == "bbox" else "run lengths or polygons")
        raise found.wrong(0, needed, "no empty one")
    masks = None
    if found.items and (iou_type == "segm" or not has_boxes):
        masks = [_mask(found, i, sizes) for i in range(len(found))]
    return CocoDetections(
        image_ids=_column(found, "image_id"),
        category_ids=_integers(found, "category_id"),
        scores=_numbers(found, "score"),
        boxes=_boxes(found) if has_boxes or not found.items else None,
        masks=masks,
        name=f"{path}: {name or 'results'}",
    )


# columns: made at once, and gone through again only to tell which entry is wrong


def _column(entries: Entries, key: str) -> list[Any]:
    try:
        return [item[key] for item in entries.items]
    except KeyError:
        position = next(i for i, item in enumerate(entries.items) if key not in item)
        entries.get(position, key, "a value in every entry")
        raise


def _numbers(entries: Entries, key: str) -> np.ndarray:
    values = _column(entries, key)
    if not set(map(type, values)) <= {int, float}:
        position = next(i for i, value in enumerate(values) if type(value) not in (int, float))
        raise entries.wrong(position, key, "a number")
    return np.array(values, np.float64)


def _integers(entries: Entries, key: str) -> np.ndarray:
    values = _column(entries, key)
    if set(map(type, values)) <= {int}:
        return np.array(values, np.int64)
    return np.array([_integer(entries, i, key) for i in range(len(values))], np.int64)


def _integer(entries: Entries, position: int, key: str) -> int:
    number = whole_number(entries.get(position, key, "a whole number"))
    if number is None:
        raise entries.wrong(position, key, "a whole number")
    return number


def _boxes(entries: Entries) -> np.ndarray:
    boxes = _column(entries, "bbox")
    shape = "[x, y, width, height]"
    if not (set(map(type, boxes)) <= {list} and set(map(len, boxes)) <= {4}):
        raise entries.wrong(next(i for i, b in enumerate(boxes) if type(b) is not list or len(b) != 4), "bbox", shape)
    if not set(map(type, chain.from_iterable(boxes))) <= {int, float}:
        wrong = (i for i, b in enumerate(boxes) if not {type(v) for v in b} <= {int, float})
        raise entries.wrong(next(wrong), "bbox", f"{shape}, four numbers")
    return np.fromiter(chain.from_iterable(boxes), np.float64, 4 * len(boxes)).reshape(-1, 4)


def _size(images: Entries, position: int) -> tuple[int, int]:
    """(height, width); (0, 0) if the file does not say: boxes are measured without."""
    if not {"height", "width"} & images.items[position].keys():
        return (0, 0)
    height, width = (_integer(images, position, key) for key in ("height", "width"))
    if height < 1 or width < 1:
        raise images.wrong(position, "height" if height < 1 else "width", "at least 1")
    return height, width


def _mask(entries: Entries, position: int, sizes: Sizes) -> dict[str, Any]:
    height, width = sizes[entries.items[position]["image_id"]]
    if not height:
        raise DataError("masks need the size of their image", where=entries.where(position), fix="add height and width")
    segmentation = entries.get(position, "segmentation", "run lengths or polygons")
    try:
        counts = segmentation_to_counts(segmentation, height, width)
    except Refused as error:
        raise DataError(
            f"a segmentation that cannot be used ({error.reason})",
            value=error.detail,
            where=entries.where(position),
            allowed=f"run lengths of {height} x {width} pixels, or polygons of at least 3 points in or near the image",
        ) from None
    if not counts:
        raise entries.wrong(position, "segmentation", "no empty one")
    return {"size": [height, width], "counts": counts}


def _check_images(entries: Entries, sizes: Sizes) -> None:
    for position, key in enumerate(_column(entries, "image_id")):
        if isinstance(key, dict | list) or key not in sizes:
            raise DataError(
                "an image that the truth does not have",
                value=short(key),
                where=entries.where(position),
                allowed=f"one of its {len(sizes)} image ids, such as {next(iter(sizes), '(none)')!r}",
            )


def _check_same_categories(document: Mapping[str, Any], path: Path, names: Mapping[int, str]) -> None:
    """A results document with categories of its own must mean the same by each id."""
    for item in document.get("categories") or []:
        own = item if isinstance(item, dict) else {}
        if own.get("id") in names and "name" in own and own["name"] != names[own["id"]]:
            raise DataError(
                "a category has another name in the results than in the truth",
                value=own["name"],
                where=f"{path}: categories, id {own['id']}",
                allowed=names[own["id"]],
            )
