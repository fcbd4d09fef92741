"""Class-agnostic proposals against objects: recall, average recall (1502.05082) and mean average best overlap.

Three ways to pair proposals with objects are in use, and each metric keeps its own:
- `recall_50@k`, `recall_70@k`, `AR@k` as Hosang et al. measure them: one proposal for one object, the pair of greatest
  overlap first (`closest_candidates` of hosang/detection-proposals), so that one box cannot find two objects.
  AR is twice the integral of recall over IoU 0.5 to 1, in its closed form 2 * mean(max(IoU - 0.5, 0)). Their script
  takes trapezoids between the overlaps that occur and leaves out what lies below the lowest: a little less.
- `coco_AR@k` as COCOeval without categories: at each IoU 0.5, 0.55, .., 0.95 the proposals, best first, take the free
  object that they overlap most (of equal overlaps the later one); the mean of the ten recalls.
- `MABO@k` (Uijlings et al., 2013): each object's best overlap, whoever else has that proposal; the mean over the
  objects of a class, then over classes. `ABO@k` is the mean over all objects, where classes are not known.

Boxes (x1, y1, x2, y2) are half-open pixels: IoU without the +1 of VOC. Crowds and difficult objects are for the caller
to leave out.

Shapes: P proposals and N objects of an image, M objects of the split, K counts, I images, B resamples.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from contracts.errors import ConfigError, DataError
from lightning_modules.metrics.measurement import SOURCE, Measurement, ratio_of_sums
from lightning_modules.ops.boxes import pairwise_ious

_MIN_IOU = 0.5  # below it no pair changes recall or AR
_RECALL_IOUS = (0.5, 0.7)
_COCO_IOUS = np.linspace(0.5, 0.95, 10)


def measure_proposals(
    proposals: Mapping[Any, np.ndarray],
    objects: Mapping[Any, np.ndarray],
    *,
    counts: Sequence[int] = (10, 100, 1000),
    labels: Mapping[Any, np.ndarray] | None = None,
) -> Measurement:
    """Fractions in 0..1 over the best k proposals of every image, for each k of `counts`: `recall_50@k`,
    `recall_70@k`, `AR@k`, `coco_AR@k`, and `MABO@k` or, without labels, `ABO@k`. NaN without objects.

    Args:
        proposals: image -> (P, 4), best first; an image with fewer than k gives what it has.
        objects: image -> (N, 4), the same images; one without objects contributes nothing.
        counts: each 1 or more.
        labels: image -> (N,) class of each object.

    Raises:
        DataError: other images in one mapping than in another, or boxes that are none.
    """
    if min(counts, default=0) < 1:
        raise ConfigError("proposals must be counted", value=tuple(counts), allowed="numbers of 1 and more")
    _check(proposals, objects, labels)
    keys = sorted(objects)
    image = np.repeat(np.arange(len(keys)), [len(objects[key]) for key in keys])
    matched, best, coco = _overlaps(proposals, objects, keys, counts)
    per_object = {
        **{f"recall_{round(100 * iou)}": matched >= iou for iou in _RECALL_IOUS},
        "AR": 2 * np.maximum(matched - 0.5, 0),
        "coco_AR": coco,
        **({"ABO": best} if labels is None else {}),
    }
    num_objects = np.bincount(image, minlength=len(keys))
    sums = {
        f"{name}@{k}": np.bincount(image, values[:, i], minlength=len(keys))
        for name, values in per_object.items()
        for i, k in enumerate(counts)
    }
    classes = [] if labels is None else _class_rows([labels[key] for key in keys])

    def resample(weights: np.ndarray) -> dict[str, np.ndarray]:
        out = {name: ratio_of_sums(weights, of_image, num_objects) for name, of_image in sums.items()}
        if labels is not None:
            means = _class_means(weights, image, best, classes)
            out |= {f"MABO@{k}": means[:, i] for i, k in enumerate(counts)}
        return out

    return Measurement(
        values={name: float(drawn[0]) for name, drawn in resample(np.ones((1, len(keys)), np.int64)).items()},
        variant="class-agnostic, best k of each image, IoU without +1; recall and AR: one to one, greatest IoU first",
        source=SOURCE,
        num_items=len(image),
        unit="objects",
        num_clusters=len(keys),
        resample=resample,
        not_computed={f"MABO@{k}": "the objects have no class labels" for k in counts} if labels is None else {},
    )


def _overlaps(
    proposals: Mapping[Any, np.ndarray], objects: Mapping[Any, np.ndarray], keys: Sequence[Any], counts: Sequence[int]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of every object (M, K): IoU with its own proposal (0 below 0.5), best IoU, share of COCO's thresholds found."""
    matched, best, coco = ([np.zeros((0, len(counts)))] for _ in range(3))
    for key in keys:
        if not len(objects[key]):
            continue
        ious = pairwise_ious(*(boxes[key].astype(np.float64) for boxes in (proposals, objects)))
        ranks = _coco_ranks(ious)
        matched.append(np.stack([_matched_ious(ious[:k]) for k in counts], axis=1))
        best.append(np.stack([ious[:k].max(axis=0, initial=0) for k in counts], axis=1))
        coco.append(np.stack([(ranks < k).mean(axis=0) for k in counts], axis=1))
    return np.concatenate(matched), np.concatenate(best), np.concatenate(coco)


def _matched_ious(ious: np.ndarray) -> np.ndarray:
    """(P, N) -> (N,) IoU of each object with the proposal that is its own, 0 where no free one overlaps it by half.

    Pairs are made greatest IoU first; of equal ones that of the better proposal, then of the earlier object.
    """
    out = np.zeros(ious.shape[1])
    rows, columns = np.nonzero(ious >= _MIN_IOU)
    values = ious[rows, columns]
    order = np.argsort(-values, kind="stable")
    used: set[int] = set()
    for row, column, value in zip(*(x[order].tolist() for x in (rows, columns, values)), strict=True):
        if row not in used and not out[column]:
            used.add(row)
            out[column] = value
    return out


def _coco_ranks(ious: np.ndarray) -> np.ndarray:
    """(P, N) -> (10, N) which proposal takes the object at each of COCO's thresholds; inf where none does.

    A proposal's match depends on better ones alone, so that the first k give what ranks below k say.
    """
    num_objects = ious.shape[1]
    ranks = np.full((len(_COCO_IOUS), num_objects), np.inf)
    levels = np.arange(len(_COCO_IOUS))
    for rank in np.flatnonzero((ious >= _MIN_IOU).any(axis=1)):
        free = np.where(np.isinf(ranks), ious[rank], -1.0)
        last_best = num_objects - 1 - free[:, ::-1].argmax(axis=1)
        taken = free[levels, last_best] >= _COCO_IOUS
        ranks[levels[taken], last_best[taken]] = rank
    return ranks


def _class_rows(labels: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Labels of every image -> the objects (rows of all images' together) of each class that has any."""
    flat = np.concatenate([np.zeros(0, np.int64), *labels])
    order = np.argsort(flat, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(flat[order])) + 1) if len(flat) else []


def _class_means(weights: np.ndarray, image: np.ndarray, best: np.ndarray, classes: Sequence[np.ndarray]) -> np.ndarray:
    """(B, K) mean over the classes that a resample holds of its objects' mean best overlap; NaN without any."""
    total, num_classes = np.zeros((len(weights), best.shape[1])), np.zeros((len(weights), 1))
    for rows in classes:
        drawn = weights[:, image[rows]].astype(np.float64)  # (B, objects of the class)
        num_objects = drawn.sum(axis=1, keepdims=True)
        total += drawn @ best[rows] / np.maximum(num_objects, 1)
        num_classes += num_objects > 0
    with np.errstate(invalid="ignore"):
        return total / num_classes


def _check(
    proposals: Mapping[Any, np.ndarray], objects: Mapping[Any, np.ndarray], labels: Mapping[Any, np.ndarray] | None
) -> None:
    for name, keys in (
        ("proposals", proposals.keys()),
        ("labels", objects.keys() if labels is None else labels.keys()),
    ):
        wrong = sorted(keys ^ objects.keys())
        if wrong:
            raise DataError(f"{name} and objects are of different images", value=len(wrong), where=f"image {wrong[0]}")
    both = [("proposals", *item) for item in proposals.items()] + [("objects", *item) for item in objects.items()]
    for name, key, boxes in both:
        if boxes.ndim != 2 or boxes.shape[1] != 4:
            raise DataError(f"{name} of another shape", value=boxes.shape, where=f"image {key}", allowed="(count, 4)")
        if not np.isfinite(boxes).all() or (boxes[:, 2:] < boxes[:, :2]).any():
            raise DataError(
                f"invalid {name}", where=f"image {key}", allowed="finite x1, y1, x2, y2; x1 <= x2, y1 <= y2"
            )
    for key, classes in (labels or {}).items():
        if classes.shape != objects[key].shape[:1]:
            raise DataError(
                "labels do not fit the objects",
                value=classes.shape,
                where=f"image {key}",
                allowed=f"({len(objects[key])},)",
            )
