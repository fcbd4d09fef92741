"""Objects: boxes inside the image, known classes, masks as checked run lengths."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from contracts.raw import ItemKind, Problem, RawObject, RawRecord
from contracts.records import IGNORE_INDEX, Box, Objects, Proposals, Record
from contracts.searching import Search
from pipeline.ingest.door.masks import binary_to_counts, counts_area_and_box, segmentation_to_counts
from pipeline.ingest.door.polygons import polygons_box
from pipeline.ingest.door.rules import Refused


def clean_objects(
    raw: RawRecord,
    labels: Mapping[str, int],
    size: tuple[int, int],
    instance_ids: np.ndarray | None,
    problems: list[Problem],
    fixes: Counter[str],
) -> Objects:
    """The objects of `raw` that hold, in columns and in their order.

    Args:
        labels: class name -> label 1..C.
        size: (height, width) of the image.
        instance_ids: (H, W), value i marks the i-th object (from 1), 255 marks borders; None if there is none.
        problems: what is dropped is appended.
        fixes: what is changed is counted.
    """
    kept = Objects()
    boxes: list[Box] = []
    columns: dict[str, list] = {"labels": [], "areas": [], "is_crowd": [], "is_difficult": [], "is_truncated": []}
    for position, written in enumerate(raw.objects, start=1):
        item = in_pixels(written, size) if written.is_relative else written
        try:
            if item.category not in labels:
                raise Refused("unknown_class", item.category)
            box, mask = _box_and_mask(item, size, position, instance_ids, fixes)
        except Refused as refused:
            problems.append(_problem(raw, item.object_id, refused))
            continue
        kept.ids.append(item.object_id)
        kept.masks.append(mask)
        boxes.append(box)
        columns["labels"].append(labels[item.category])
        columns["areas"].append(_area(item, box, mask, size, fixes))
        for name in ("is_crowd", "is_difficult", "is_truncated"):
            columns[name].append(getattr(item, name))
    if instance_ids is not None:
        beyond = np.unique(instance_ids)
        for value in beyond[(beyond > len(raw.objects)) & (beyond != IGNORE_INDEX)]:
            problems.append(_problem(raw, str(value), Refused("instance_without_object", str(raw.instance_mask))))
    return Objects(
        ids=kept.ids,
        masks=kept.masks,
        boxes=np.asarray(boxes, np.float32).reshape(-1, 4),
        labels=np.asarray(columns["labels"], np.int64),
        areas=np.asarray(columns["areas"], np.float64),
        is_crowd=np.asarray(columns["is_crowd"], bool),
        is_difficult=np.asarray(columns["is_difficult"], bool),
        is_truncated=np.asarray(columns["is_truncated"], bool),
    )


def in_pixels(item: RawObject, size: tuple[int, int]) -> RawObject:
    """An object of shares in pixels of an image of (height, width) `size`."""
    sides = (size[1], size[0])
    segmentation = item.segmentation and [[v * sides[i % 2] for i, v in enumerate(p)] for p in item.segmentation]
    x1, y1, x2, y2 = (v * sides[i % 2] for i, v in enumerate(item.box))
    return replace(item, box=(x1, y1, x2, y2), segmentation=segmentation, is_relative=False)


def clean_labels(raw: RawRecord, labels: Mapping[str, int], problems: list[Problem]) -> tuple[str, ...]:
    """The classes of the whole image that the data set lists, each once; the others are appended to `problems`."""
    for name in raw.labels:
        if name not in labels:
            problems.append(_problem(raw, name, Refused("unknown_class", name), kind="label"))
    return tuple(name for name in dict.fromkeys(raw.labels) if name in labels)


def clean_box(box: Box, size: tuple[int, int], fixes: Counter[str]) -> Box:
    """The box clipped to the image.

    Raises:
        Refused: it has no area, or none inside the image, in float32.
    """
    height, width = size
    if not all(math.isfinite(v) for v in box):
        raise Refused("box_not_finite", str(box))
    x1, y1, x2, y2 = box
    if x2 < x1 or y2 < y1:
        raise Refused("negative_box", str(box))
    if x1 == x2 or y1 == y2:
        raise Refused("zero_area_box", str(box))
    if x2 <= 0 or y2 <= 0 or x1 >= width or y1 >= height:
        raise Refused("box_outside", f"{box}, the image is {width} x {height}")
    clipped = (max(x1, 0.0), max(y1, 0.0), min(x2, float(width)), min(y2, float(height)))
    single = np.asarray(clipped, np.float32)
    if single[2] <= single[0] or single[3] <= single[1]:
        raise Refused("zero_area_box", f"{box} in float32")
    fixes["box_clipped"] += clipped != box
    return clipped


def clean_proposals(raw: RawRecord, size: tuple[int, int], fixes: Counter[str]) -> Proposals | None:
    """The proposals clipped to the image of (height, width) `size`, without those that have no area in it."""
    if raw.proposals is None:
        return None
    height, width = size
    boxes = np.clip(raw.proposals.boxes.astype(np.float32), 0, np.array([width, height, width, height], np.float32))
    scores = raw.proposals.scores.astype(np.float32)
    keep = np.isfinite(raw.proposals.boxes).all(axis=1) & np.isfinite(scores)
    keep &= (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
    fixes["proposal_dropped"] += int((~keep).sum())
    return Proposals(boxes=boxes[keep], scores=scores[keep])


def find_proposals(record: Record, search: Search) -> Proposals:
    """Those of Selective Search, in the image as it is stored."""
    from lightning_modules.ops.proposing import search_regions  # imports torch, and few data sets need it

    boxes, scores = search_regions(record.image, (record.height, record.width), search)
    return Proposals(boxes=boxes, scores=scores)


def _box_and_mask(
    item: RawObject, size: tuple[int, int], position: int, instance_ids: np.ndarray | None, fixes: Counter[str]
) -> tuple[Box, str]:
    """The box, taken from the mask where the annotation has none, and the mask's counts or ""."""
    box = clean_box(item.box, size, fixes) if _has_box(item.box) else None
    mask = _mask(item, size, position, instance_ids, fixes)
    if mask:
        area, extent = counts_area_and_box(mask, *size)
        if area == 0:
            fixes["empty_mask_dropped"] += 1
            mask = ""
    if not mask:
        return (clean_box(item.box, size, fixes) if box is None else box), ""
    if box is None:
        polygon_box = polygons_box(item.segmentation) if instance_ids is None else None
        fixes["box_from_mask"] += 1
        return clean_box(polygon_box or extent, size, fixes), mask
    if extent[0] >= box[2] or extent[2] <= box[0] or extent[1] >= box[3] or extent[3] <= box[1]:
        raise Refused("mask_outside_box", f"mask {extent}, box {box}")
    return box, mask


def _has_box(box: Box) -> bool:
    """False for four NaNs (a source found none) and four zeros, which tools write for none."""
    return not (all(math.isnan(v) for v in box) or not any(box))


def _mask(
    item: RawObject, size: tuple[int, int], position: int, instance_ids: np.ndarray | None, fixes: Counter[str]
) -> str:
    if instance_ids is None:
        return segmentation_to_counts(item.segmentation, *size, fixes)
    counts = binary_to_counts(instance_ids == position)
    fixes["empty_mask_dropped"] += not counts
    return counts


def _area(item: RawObject, box: Box, mask: str, size: tuple[int, int], fixes: Counter[str]) -> float:
    if item.area is not None:
        if math.isfinite(item.area) and item.area > 0:
            return item.area
        fixes["area_replaced"] += 1
    if mask:
        return counts_area_and_box(mask, *size)[0]
    return (box[2] - box[0]) * (box[3] - box[1])


def _problem(raw: RawRecord, item_id: str, refused: Refused, kind: ItemKind = "object") -> Problem:
    return Problem(
        reason=refused.reason,
        kind=kind,
        file=raw.annotation_file,
        item_id=item_id,
        key=raw.key,
        detail=refused.detail,
    )
