"""VOC mean average precision by the rules of the devkit's VOCevaldet.m.

Shapes: N objects and D detections of one image, boxes (.., 4) float64 `(x1, y1, x2, y2)` in pixel edges. The kit counts
inclusive pixel indices and adds 1 to widths; `(xmin - 1, ymin - 1, xmax, ymax)` of a VOC file has that width as it is.

The rules, each of which moves the official number: a match needs IoU >= threshold; only the best-overlapping object is
a candidate, so a second detection of it is wrong; a difficult object is not to be found, and a detection whose best
object is difficult is neither right nor wrong; equal scores keep the order of the file; 11-point thresholds are
`np.arange(0, 1.1, 0.1)`, whose last digits differ from k / 10.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from lightning_modules.metrics.measurement import SOURCE, Measurement

_ELEVEN_POINTS = np.arange(0, 1.1, 0.1)


@dataclass(frozen=True, kw_only=True)
class PRCurve:
    """What became of the D counted detections of one class, best score first.

    Attributes:
        scores: (D,) falling. images: the key of each one's image. hits: (D,) whether it found an object.
        objects_per_image: how many objects were to be found; with none in all, nothing is measured and APs are NaN.
    """

    scores: np.ndarray
    images: tuple[str, ...]
    hits: np.ndarray
    objects_per_image: Mapping[str, int]

    @property
    def num_objects(self) -> int:
        return sum(self.objects_per_image.values())

    @property
    def recall(self) -> np.ndarray:
        """(D,) after each detection."""
        return np.cumsum(self.hits, dtype=np.float64) / max(self.num_objects, 1)

    @property
    def precision(self) -> np.ndarray:
        """(D,) after each detection."""
        return np.cumsum(self.hits, dtype=np.float64) / np.arange(1, len(self.hits) + 1)

    def ap_all_points(self) -> float:
        """Area under the curve made monotone: VOC2010 and later."""
        return ap_all_points(self.recall, self.precision) if self.num_objects else float("nan")

    def ap_11_points(self) -> float:
        """Mean of the best precision at recall >= 0, 0.1, .., 1: VOC2007."""
        return ap_11_points(self.recall, self.precision) if self.num_objects else float("nan")

    def resampled_aps(self, weights: np.ndarray, columns: Mapping[str, int]) -> tuple[np.ndarray, np.ndarray]:
        """11-point and all-point AP (B,) each when image `key` is drawn `weights[:, columns[key]]` times; NaN where a
        resample has no object. An image drawn twice has each detection twice, one behind the other."""
        drawn = weights[:, [columns[key] for key in self.images]].astype(np.float64)  # (B, D)
        found, all_counted = np.cumsum(drawn * self.hits, axis=1), np.cumsum(drawn, axis=1)
        per_image = np.array([self.objects_per_image[key] for key in self.objects_per_image], np.float64)
        num_objects = weights[:, [columns[key] for key in self.objects_per_image]] @ per_image  # (B,)
        recall = found / np.maximum(num_objects, 1)[:, None]
        precision = found / np.maximum(all_counted, 1)
        pairs = list(zip(recall, precision, num_objects, strict=True))
        aps_11 = [ap_11_points(r, p) if n else np.nan for r, p, n in pairs]
        aps_all = [ap_all_points(r, p) if n else np.nan for r, p, n in pairs]
        return np.array(aps_11), np.array(aps_all)


def ap_all_points(recall: np.ndarray, precision: np.ndarray) -> float:
    """Two (D,) curves, recall rising -> area under the precision made monotone."""
    recall = np.concatenate([[0.0], recall, [1.0]])
    precision = np.concatenate([[0.0], precision, [0.0]])
    precision = np.maximum.accumulate(precision[::-1])[::-1]
    steps = np.flatnonzero(recall[1:] != recall[:-1]) + 1
    return float(((recall[steps] - recall[steps - 1]) * precision[steps]).sum())


def ap_11_points(recall: np.ndarray, precision: np.ndarray) -> float:
    """Two (D,) curves, recall rising -> mean of the best precision at recall >= each of the eleven thresholds."""
    envelope = np.append(np.maximum.accumulate(precision[::-1])[::-1], 0.0)
    return float(envelope[np.searchsorted(recall, _ELEVEN_POINTS)].sum() / len(_ELEVEN_POINTS))


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
    """The curve of one class; equal scores keep the order of the images' keys, then of the detections.

    Args:
        detections: by image key, boxes (D, 4) and scores (D,).
        objects: by image key, boxes (N, 4) and difficult flags (N,); images without objects may be left out.
    """
    keys = sorted(detections)
    images = [key for key in keys for _ in range(len(detections[key][1]))]
    boxes = np.concatenate([detections[key][0].reshape(-1, 4) for key in keys] or [np.zeros((0, 4))])
    scores = np.concatenate([detections[key][1] for key in keys] or [np.zeros(0)])
    return pr_curve_of_rows(images, boxes, scores, objects, iou_threshold=iou_threshold)


def pr_curve_of_rows(
    images: Sequence[str],
    boxes: np.ndarray,
    scores: np.ndarray,
    objects: Mapping[str, tuple[np.ndarray, np.ndarray]],
    *,
    iou_threshold: float = 0.5,
) -> PRCurve:
    """The curve of one class from D detections in the order of a file, which equal scores keep.

    Args:
        images: key of each detection's image. boxes: (D, 4). scores: (D,).
        objects: as in `pr_curve`.
    """
    boxes, scores = np.asarray(boxes, np.float64), np.asarray(scores, np.float64)
    found = {key: np.zeros(len(own), bool) for key, (own, _) in objects.items()}
    outcomes: list[bool] = []
    counted: list[int] = []
    for row in np.argsort(-scores, kind="stable"):
        key = images[row]
        outcome = _judge(boxes[row], objects.get(key), found.get(key), iou_threshold)
        if outcome is not None:
            outcomes.append(outcome)
            counted.append(int(row))
    return PRCurve(
        scores=scores[counted],
        images=tuple(images[row] for row in counted),
        hits=np.array(outcomes, bool),
        objects_per_image={key: int((~difficult.astype(bool)).sum()) for key, (_, difficult) in objects.items()},
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


def measure_voc(curves: Mapping[str, PRCurve], images: Sequence[str], *, iou_threshold: float = 0.5) -> Measurement:
    """`mAP_2007` (11 points) and `mAP_2010` (all points), over the classes with something to find.

    Args:
        curves: by class name.
        images: keys of all images of the split, in the order of `resample`'s columns.
        iou_threshold: of the curves; the kit's is 0.5.
    """
    columns = {key: i for i, key in enumerate(images)}

    def resample(weights: np.ndarray) -> dict[str, np.ndarray]:
        aps = np.array([curve.resampled_aps(weights, columns) for curve in curves.values()])  # (classes, 2, B)
        present = ~np.isnan(aps)
        means = np.nan_to_num(aps).sum(axis=0) / np.maximum(present.sum(axis=0), 1)
        return {"mAP_2007": means[0], "mAP_2010": means[1]}

    return Measurement(
        values={
            "mAP_2007": mean_ap([curve.ap_11_points() for curve in curves.values()]),
            "mAP_2010": mean_ap([curve.ap_all_points() for curve in curves.values()]),
        },
        variant=f"VOC devkit rules, IoU >= {iou_threshold:g} with inclusive pixels, difficult ignored, absent classes "
        "left out",
        source=SOURCE,
        num_items=len(images),
        resample=resample if curves else None,
    )


def mean_ap(aps: Sequence[float]) -> float:
    """Mean over the classes that have something to find; 0 when none has."""
    measured = [ap for ap in aps if not np.isnan(ap)]
    return float(np.mean(measured)) if measured else 0.0
