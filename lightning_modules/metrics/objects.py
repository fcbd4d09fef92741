"""Predictions and truths of object tasks -> the inputs of the COCO and VOC metrics. Shapes as in `object_task.py`.

Both metrics let a detection of what is not to be found (crowd, difficult) count neither for nor against: COCO by
`iscrowd`, VOC by `difficult`. Each gets the union of the two flags, so either kind of data can be measured by either.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np

from lightning_modules.metrics.coco_map import CocoEvaluation
from lightning_modules.metrics.voc_map import PRCurve, pr_curve
from lightning_modules.ops.boxes import to_xywh


def coco_evaluation(
    predictions: Mapping[str, Mapping[str, Any]],
    truths: Mapping[str, Mapping[str, Any]],
    num_classes: int,
    iou_type: Literal["bbox", "segm"],
) -> CocoEvaluation:
    """COCO's evaluation of every image of `truths`. Objects without a mask are left out of "segm"."""
    annotations: list[dict[str, Any]] = []
    results: list[dict[str, Any]] = []
    for key in sorted(truths):
        truth, prediction = truths[key], predictions[key]
        for i, label in enumerate(truth["labels"]):
            annotation: dict[str, Any] = {
                "image_id": key,
                "category_id": int(label),
                "bbox": to_xywh(truth["boxes"][i]),
                "area": float(truth["areas"][i]),
                "iscrowd": int(truth["is_crowd"][i] or truth["is_difficult"][i]),
            }
            if iou_type == "segm":
                if not truth["masks"][i]:
                    continue
                annotation["segmentation"] = _rle(truth, i)
            annotations.append(annotation)
        for i, label in enumerate(prediction["labels"]):
            result = {"image_id": key, "category_id": int(label), "score": float(prediction["scores"][i])}
            if iou_type == "segm":
                result["segmentation"] = _rle(prediction, i)
            else:
                result["bbox"] = to_xywh(prediction["boxes"][i])
            results.append(result)
    sizes = {key: truths[key]["size"] for key in sorted(truths)}
    return CocoEvaluation(sizes, annotations, results, range(1, num_classes + 1), iou_type=iou_type)


def voc_curves(
    predictions: Mapping[str, Mapping[str, Any]],
    truths: Mapping[str, Mapping[str, Any]],
    num_classes: int,
    *,
    iou_threshold: float = 0.5,
) -> list[PRCurve]:
    """One curve per class, label 1 first."""
    curves = []
    for label in range(1, num_classes + 1):
        found, objects = {}, {}
        for key, truth in truths.items():
            of_class = predictions[key]["labels"] == label
            found[key] = (predictions[key]["boxes"][of_class], predictions[key]["scores"][of_class])
            true_class = truth["labels"] == label
            ignored = (truth["is_crowd"] | truth["is_difficult"])[true_class]
            objects[key] = (truth["boxes"][true_class], ignored)
        curves.append(pr_curve(found, objects, iou_threshold=iou_threshold))
    return curves


def object_confusion(
    predictions: Mapping[str, Mapping[str, Any]],
    truths: Mapping[str, Mapping[str, Any]],
    num_classes: int,
    *,
    min_score: float,
    iou_threshold: float = 0.5,
) -> np.ndarray:
    """(C + 1, C + 1) int64, rows truth, columns prediction, 0 background: row 0 counts detections of nothing, column 0
    objects that were missed.

    Detections of at least `min_score`, best first, take the free object they overlap most, whatever its class. Crowds
    and difficult objects are left out, and so are detections that overlap nothing else.
    """
    matrix = np.zeros((num_classes + 1, num_classes + 1), np.int64)
    for key, truth in truths.items():
        prediction = predictions[key]
        kept = prediction["scores"] >= min_score
        boxes, labels = prediction["boxes"][kept].astype(np.float64), prediction["labels"][kept]
        boxes, labels = (x[np.argsort(-prediction["scores"][kept], kind="stable")] for x in (boxes, labels))
        ignored = truth["is_crowd"] | truth["is_difficult"]
        free = ~ignored
        ious = pairwise_ious(boxes, truth["boxes"].astype(np.float64))
        for row, label in zip(ious, labels, strict=True):
            candidates = np.where(free, row, 0.0)
            best = int(candidates.argmax()) if len(row) else -1
            if best >= 0 and candidates[best] >= iou_threshold:
                free[best] = False
                matrix[truth["labels"][best], label] += 1
            elif not (row[ignored] >= iou_threshold).any():
                matrix[0, label] += 1
        np.add.at(matrix[:, 0], truth["labels"][free], 1)
    return matrix


def pairwise_ious(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """(D, 4), (N, 4) -> (D, N)."""
    low = np.maximum(first[:, None, :2], second[None, :, :2])
    high = np.minimum(first[:, None, 2:], second[None, :, 2:])
    intersections = (high - low).clip(min=0).prod(axis=2)
    areas = [(b[:, 2:] - b[:, :2]).prod(axis=1) for b in (first, second)]
    return intersections / np.maximum(areas[0][:, None] + areas[1][None, :] - intersections, 1e-12)


def _rle(item: Mapping[str, Any], index: int) -> dict[str, Any]:
    return {"size": list(item["size"]), "counts": item["masks"][index]}
