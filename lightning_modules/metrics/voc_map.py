"""VOC mean average precision by the rules of the devkit's VOCevaldet.m.

Shapes: N objects and D detections of one image, boxes (.., 4) float64 `(x1, y1, x2, y2)` in pixel edges. The kit counts
inclusive pixel indices and adds 1 to widths; `(xmin - 1, ymin - 1, xmax, ymax)` of a VOC file has that width as it is.

The rules, each of which moves the official number: a match needs IoU >= threshold; only the best-overlapping object is
a candidate, so a second detection of it is wrong; a difficult object is not to be found, and a detection whose best
object is difficult is neither right nor wrong; equal scores keep the order of the images' keys, then of the
detections; 11-point thresholds are `np.arange(0, 1.1, 0.1)`, whose last digits differ from k / 10.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

_ELEVEN_POINTS = np.arange(0, 1.1, 0.1)


@dataclass(frozen=True, kw_only=True)
class PRCurve:
    """Recall and precision (D,) after each of the D counted detections of one class, best score first.

    `num_objects` counts what is to be found; with none, nothing can be measured and the APs are NaN.
    """

    recall: np.ndarray
    precision: np.ndarray
    scores: np.ndarray
    num_objects: int

    def ap_all_points(self) -> float:
        """Area under the curve made monotone: VOC2010 and later."""
        if not self.num_objects:
            return float("nan")
        recall = np.concatenate([[0.0], self.recall, [1.0]])
        precision = np.concatenate([[0.0], self.precision, [0.0]])
        precision = np.maximum.accumulate(precision[::-1])[::-1]
        steps = np.flatnonzero(recall[1:] != recall[:-1]) + 1
        return float(((recall[steps] - recall[steps - 1]) * precision[steps]).sum())

    def ap_11_points(self) -> float:
        """Mean of the best precision at recall >= 0, 0.1, .., 1: VOC2007."""
        if not self.num_objects:
            return float("nan")
        best = [self.precision[self.recall >= t].max(initial=0.0) for t in _ELEVEN_POINTS]
        return float(sum(best) / len(_ELEVEN_POINTS))


def box_ious(box: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """IoU of one box (4,) with N boxes (N, 4) -> (N,)."""
    sides = np.minimum(box[2:], boxes[:, 2:]) - np.maximum(box[:2], boxes[:, :2])
    intersection = sides.clip(min=0).prod(axis=1)
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
    return intersection / ((box[2:] - box[:2]).prod() + areas - intersection)


def pr_curve(
    detections: Mapping[str, tuple[np.ndarray, np.ndarray]],
    objects: Mapping[str, tuple[np.ndarray, np.ndarray]],
    *,
    iou_threshold: float = 0.5,
) -> PRCurve:
    """The curve of one class.

    Args:
        detections: by image key, boxes (D, 4) and scores (D,).
        objects: by image key, boxes (N, 4) and difficult flags (N,); images without objects may be left out.
    """
    rows = [(key, i) for key in sorted(detections) for i in range(len(detections[key][1]))]
    scores = np.array([detections[key][1][i] for key, i in rows], np.float64)
    found = {key: np.zeros(len(boxes), bool) for key, (boxes, _) in objects.items()}
    hits: list[bool] = []
    kept_scores: list[float] = []
    for row in np.argsort(-scores, kind="stable"):
        key, i = rows[row]
        outcome = _judge(np.asarray(detections[key][0][i], np.float64), objects.get(key), found.get(key), iou_threshold)
        if outcome is not None:
            hits.append(outcome)
            kept_scores.append(float(scores[row]))
    num_objects = sum(int((~difficult.astype(bool)).sum()) for _, difficult in objects.values())
    right = np.cumsum(np.array(hits, np.float64))
    return PRCurve(
        recall=right / max(num_objects, 1),
        precision=right / np.arange(1, len(hits) + 1),
        scores=np.array(kept_scores),
        num_objects=num_objects,
    )


def _judge(
    box: np.ndarray, objects: tuple[np.ndarray, np.ndarray] | None, found: np.ndarray | None, threshold: float
) -> bool | None:
    """Right, wrong or (None) not counted; marks the object as found."""
    if objects is None or found is None or not len(objects[0]):
        return False
    ious = box_ious(box, objects[0].astype(np.float64))
    best = int(ious.argmax())
    if ious[best] < threshold:
        return False
    if objects[1][best]:
        return None
    first = not found[best]
    found[best] = True
    return first


def mean_ap(aps: Sequence[float]) -> float:
    """Mean over the classes that have something to find; 0 when none has."""
    measured = [ap for ap in aps if not np.isnan(ap)]
    return float(np.mean(measured)) if measured else 0.0
