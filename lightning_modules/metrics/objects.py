"""Predictions and truths of object tasks -> the inputs of the COCO and VOC metrics. Shapes as in `object_task.py`.

Both metrics let a detection of what is not to be found (crowd, difficult) count neither for nor against: COCO by
`iscrowd`, VOC by `difficult`. Each gets the union of the two flags, so either kind of data can be measured by either.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from hotcoco import mask as coco_mask

from lightning_modules.metrics.coco_map import CocoDetections, CocoEvaluation, CocoTruth
from lightning_modules.metrics.voc_map import PRCurve, pr_curve
from lightning_modules.ops.boxes import to_xywh

IouType = Literal["bbox", "segm"]


def coco_evaluation(
    predictions: Mapping[str, Mapping[str, Any]],
    truths: Mapping[str, Mapping[str, Any]],
    class_names: Sequence[str],
    iou_type: IouType,
) -> CocoEvaluation:
    """COCO's evaluation of every image of `truths`. Objects without a mask are left out of "segm"."""
    masks, keys = iou_type == "segm", sorted(truths)
    measured = {
        key: np.flatnonzero([not masks or bool(truth["masks"][i]) for i in range(len(truth["labels"]))])
        for key, truth in truths.items()
    }
    objects = {
        name: _joined([truths[key][name][measured[key]] for key in keys])
        for name in ("labels", "areas", "is_crowd", "is_difficult")
    }
    truth = CocoTruth(
        sizes={key: truth["size"] for key, truth in truths.items()},
        categories=dict(enumerate(class_names, 1)),
        image_ids=[key for key in keys for _ in measured[key]],
        category_ids=objects["labels"].astype(np.int64),
        boxes=_boxes([truths[key]["boxes"][measured[key]] for key in keys]),
        areas=objects["areas"].astype(np.float64),
        is_crowd=objects["is_crowd"].astype(bool) | objects["is_difficult"].astype(bool),
        masks=[_rle(truths[key], int(i)) for key in keys for i in measured[key]] if masks else None,
    )
    found = [predictions[key] for key in keys]
    detections = CocoDetections(
        image_ids=[key for key in keys for _ in predictions[key]["labels"]],
        category_ids=_joined([p["labels"] for p in found]).astype(np.int64),
        scores=_joined([p["scores"] for p in found]).astype(np.float64),
        boxes=None if masks else _boxes([p["boxes"] for p in found]),
        masks=[_rle(p, i) for p in found for i in range(len(p["labels"]))] if masks else None,
    )
    return CocoEvaluation(truth, detections, iou_type)


def voc_curves(
    predictions: Mapping[str, Mapping[str, Any]],
    truths: Mapping[str, Mapping[str, Any]],
    class_names: Sequence[str],
    *,
    iou_threshold: float = 0.5,
) -> dict[str, PRCurve]:
    """One curve per class, by name, label 1 first."""
    curves = {}
    for label, name in enumerate(class_names, 1):
        found, objects = {}, {}
        for key, truth in truths.items():
            of_class = predictions[key]["labels"] == label
            found[key] = (predictions[key]["boxes"][of_class], predictions[key]["scores"][of_class])
            true_class = truth["labels"] == label
            ignored = (truth["is_crowd"] | truth["is_difficult"])[true_class]
            objects[key] = (truth["boxes"][true_class], ignored)
        curves[name] = pr_curve(found, objects, iou_threshold=iou_threshold)
    return curves


def object_confusion(
    predictions: Mapping[str, Mapping[str, Any]],
    truths: Mapping[str, Mapping[str, Any]],
    num_classes: int,
    iou_type: IouType,
    *,
    min_score: float,
    iou_threshold: float = 0.5,
) -> np.ndarray:
    """(C + 1, C + 1) int64, rows truth, columns prediction, 0 background: row 0 counts detections of nothing, column 0
    objects that were missed.

    Detections of at least `min_score`, best first, take the free object they overlap most, whatever its class. Crowds
    and difficult objects are left out, and so are detections that lie in nothing else. (hotcoco's own matrix counts
    those as detections of nothing.)
    """
    matrix = np.zeros((num_classes + 1, num_classes + 1), np.int64)
    for key, truth in truths.items():
        prediction = predictions[key]
        order = np.argsort(-prediction["scores"], kind="stable")
        order = order[prediction["scores"][order] >= min_score]
        measured = np.array([iou_type == "bbox" or bool(truth["masks"][i]) for i in range(len(truth["labels"]))], bool)
        labels = truth["labels"][measured]
        ignored = (truth["is_crowd"] | truth["is_difficult"])[measured]
        free = ~ignored
        ious = _ious(prediction, order, truth, np.flatnonzero(measured), ignored, iou_type)
        for row, label in zip(ious, prediction["labels"][order], strict=True):
            candidates = np.where(free, row, 0.0)
            best = int(candidates.argmax()) if len(row) else -1
            if best >= 0 and candidates[best] >= iou_threshold:
                free[best] = False
                matrix[labels[best], label] += 1
            elif not (row[ignored] >= iou_threshold).any():
                matrix[0, label] += 1
        np.add.at(matrix[:, 0], labels[free], 1)
    return matrix


def _ious(
    prediction: Mapping[str, Any],
    found: np.ndarray,
    truth: Mapping[str, Any],
    objects: np.ndarray,
    ignored: np.ndarray,
    iou_type: IouType,
) -> np.ndarray:
    """(D, N) overlaps of some detections with some objects; with an ignored object, the part of the detection in it."""
    if not len(found) or not len(objects):
        return np.zeros((len(found), len(objects)))
    if iou_type == "segm":
        return coco_mask.iou([_rle(prediction, i) for i in found], [_rle(truth, i) for i in objects], ignored.tolist())
    boxes = [[to_xywh(item["boxes"][i]) for i in rows] for item, rows in ((prediction, found), (truth, objects))]
    return coco_mask.iou(np.array(boxes[0]), np.array(boxes[1]), ignored.tolist())


def _joined(parts: Sequence[np.ndarray]) -> np.ndarray:
    return np.concatenate(parts) if parts else np.zeros(0)


def _boxes(parts: Sequence[np.ndarray]) -> np.ndarray:
    """Boxes of all images as COCO's `[x, y, width, height]`: (D, 4) float64."""
    corners = _joined(parts).astype(np.float64).reshape(-1, 4)
    corners[:, 2:] -= corners[:, :2]
    return corners


def _rle(item: Mapping[str, Any], index: int) -> dict[str, Any]:
    return {"size": list(item["size"]), "counts": item["masks"][index]}
