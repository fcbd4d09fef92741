"""Semantic segmentation metrics from one confusion matrix over the whole split, as VOC's VOCevalseg counts.

Shapes: K classes with background, labels 0..K-1; matrix (K, K) int64, rows truth, columns prediction, made by
`segmentation_scores.py`.
"""

from __future__ import annotations

import cv2
import numpy as np

from contracts.records import IGNORE_INDEX
from lightning_modules.metrics.measurement import SOURCE, Measurement


def class_ious(matrix: np.ndarray) -> np.ndarray:
    """Intersection over union per class (K,) float64; NaN for a class in neither truth nor prediction."""
    hits = np.diag(matrix).astype(np.float64)
    union = matrix.sum(1) + matrix.sum(0) - hits
    with np.errstate(invalid="ignore"):
        return hits / union


ERROR_KINDS = ("missed", "invented", "wrong class")
BOUNDARY_PX = 3


def count_errors(truth: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Wrong pixels of one image by kind and place: two (H, W) maps -> (3, 2) int64.

    Rows: `ERROR_KINDS` (an object taken for background, background for an object, one object for another). Columns: at
    most `BOUNDARY_PX` pixels from where the truth's label changes (void borders included), and farther away.
    """
    kernel = np.ones((2 * BOUNDARY_PX + 1,) * 2, np.uint8)
    labels = truth.astype(np.uint8)
    near = cv2.dilate(labels, kernel) != cv2.erode(labels, kernel)
    wrong = (truth != IGNORE_INDEX) & (truth != predicted)
    kinds = (wrong & (predicted == 0), wrong & (truth == 0), wrong & (truth > 0) & (predicted > 0))
    return np.array([[np.count_nonzero(kind & near), np.count_nonzero(kind & ~near)] for kind in kinds], np.int64)


def segmentation_metrics(matrix: np.ndarray) -> dict[str, float]:
    """Metrics of FCN (1411.4038), fractions in 0..1.

    `mean_iou`: over the classes that occur in truth or prediction (one that is predicted but never true counts 0).
    `pixel_accuracy`. `mean_class_accuracy`: recall over the classes that occur in the truth.
    `frequency_weighted_iou`: IoU weighted by the class's part of the truth. All 0 when no pixel counts.
    """
    return {name: float(values[0]) for name, values in _metrics(matrix[None]).items()}


def measure_segmentation(matrices: np.ndarray, *, ignored: int | None = IGNORE_INDEX) -> Measurement:
    """The four metrics over a split, from one confusion matrix an image: (I, K, K) int64.

    `ignored` is the label of the truth that was left out of them, None for none.
    """
    left_out = "no label" if ignored is None else ignored
    flat = matrices.reshape(len(matrices), -1)
    num_classes = matrices.shape[-1]
    return Measurement(
        values=segmentation_metrics(matrices.sum(axis=0)),
        variant=f"one confusion matrix over the split, {left_out} ignored, at the label's own size",
        source=SOURCE,
        num_items=len(matrices),
        # float64 holds counts of up to 9e15 pixels exactly, and its product runs in BLAS.
        resample=lambda weights: _metrics((weights.astype(float) @ flat).reshape(-1, num_classes, num_classes)),
    )


def _metrics(matrices: np.ndarray) -> dict[str, np.ndarray]:
    """(B, K, K) counts -> (B,) of each metric."""
    hits = np.diagonal(matrices, axis1=1, axis2=2).astype(np.float64)
    support = matrices.sum(axis=2).astype(np.float64)
    union = support + matrices.sum(axis=1) - hits
    total = np.maximum(support.sum(axis=1), 1)
    ious, recalls = hits / np.maximum(union, 1), hits / np.maximum(support, 1)
    return {
        "mean_iou": ious.sum(axis=1) / np.maximum((union > 0).sum(axis=1), 1),
        "pixel_accuracy": hits.sum(axis=1) / total,
        "mean_class_accuracy": recalls.sum(axis=1) / np.maximum((support > 0).sum(axis=1), 1),
        "frequency_weighted_iou": (support * ious).sum(axis=1) / total,
    }
