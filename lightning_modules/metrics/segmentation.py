"""Semantic segmentation metrics from one confusion matrix over the whole split, as VOC's VOCevalseg counts.

Shapes: K classes with background, labels 0..K-1; matrix (K, K) int64, rows truth, columns prediction.
"""

from __future__ import annotations

import numpy as np

from contracts.errors import DataError
from contracts.records import IGNORE_INDEX


def confusion_matrix(truth: np.ndarray, predicted: np.ndarray, num_classes: int) -> np.ndarray:
    """Counts of (truth, predicted) over the pixels whose truth is not ignored: two (H, W) maps -> (K, K) int64.

    Raises:
        DataError: different sizes, or a label that is neither a class nor (in the truth) ignored.
    """
    if truth.shape != predicted.shape:
        raise DataError(
            "a predicted label map must have the size of its truth",
            value=predicted.shape,
            allowed=str(truth.shape),
            fix="resize the logits, not the labels",
        )
    counted = truth != IGNORE_INDEX
    rows, columns = truth[counted].astype(np.int64), predicted[counted].astype(np.int64)
    for name, labels in (("truth", rows), ("prediction", columns)):
        if labels.size and not 0 <= labels.min() <= labels.max() < num_classes:
            raise DataError(
                f"a label of the {name} is no class",
                value=int(labels.max() if labels.max() >= num_classes else labels.min()),
                allowed=f"0..{num_classes - 1}" + (f" or {IGNORE_INDEX}" if name == "truth" else ""),
            )
    return np.bincount(rows * num_classes + columns, minlength=num_classes**2).reshape(num_classes, num_classes)


def class_ious(matrix: np.ndarray) -> np.ndarray:
    """Intersection over union per class (K,) float64; NaN for a class in neither truth nor prediction."""
    hits = np.diag(matrix).astype(np.float64)
    union = matrix.sum(1) + matrix.sum(0) - hits
    with np.errstate(invalid="ignore"):
        return hits / union


def segmentation_metrics(matrix: np.ndarray) -> dict[str, float]:
    """Metrics of FCN (1411.4038), fractions in 0..1.

    `mean_iou`: over the classes that occur in truth or prediction (one that is predicted but never true counts 0).
    `pixel_accuracy`. `mean_class_accuracy`: recall over the classes that occur in the truth.
    `frequency_weighted_iou`: IoU weighted by the class's part of the truth. All 0 when no pixel counts.
    """
    total = matrix.sum()
    if not total:
        return dict.fromkeys(("mean_iou", "pixel_accuracy", "mean_class_accuracy", "frequency_weighted_iou"), 0.0)
    ious, support = class_ious(matrix), matrix.sum(1)
    present = support > 0
    return {
        "mean_iou": float(np.nanmean(ious)),
        "pixel_accuracy": float(np.diag(matrix).sum() / total),
        "mean_class_accuracy": float((np.diag(matrix)[present] / support[present]).mean()),
        "frequency_weighted_iou": float((support[present] * ious[present]).sum() / total),
    }
