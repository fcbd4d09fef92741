"""Semantic segmentation metrics as `torchmetrics.Metric`, from one confusion matrix over the whole split.

Shapes: K classes with background, labels 0..K-1; matrix (K, K) int64, rows truth, columns prediction.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import torch
from torchmetrics.functional.classification import multiclass_confusion_matrix

from contracts.errors import DataError
from contracts.records import IGNORE_INDEX
from lightning_modules.metrics.item_metric import Id, Item, ItemMetric, array, by_groups
from lightning_modules.metrics.measurement import Measurement
from lightning_modules.metrics.segmentation import measure_segmentation


def confusion_matrix(
    truth: np.ndarray, predicted: np.ndarray, num_classes: int, *, ignored: int | None = IGNORE_INDEX
) -> np.ndarray:
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
    counted = np.full(truth.shape, True) if ignored is None else truth != ignored
    rows, columns = truth[counted].astype(np.int64), predicted[counted].astype(np.int64)
    for name, labels in (("truth", rows), ("prediction", columns)):
        if labels.size and not 0 <= labels.min() <= labels.max() < num_classes:
            raise DataError(
                f"a label of the {name} is not a class id",
                value=int(labels.max() if labels.max() >= num_classes else labels.min()),
                allowed=f"0..{num_classes - 1}" + (f" or {ignored}" if name == "truth" and ignored is not None else ""),
            )
    # Its own check sorts all pixels of each map.
    counts = multiclass_confusion_matrix(
        torch.from_numpy(columns), torch.from_numpy(rows), num_classes, validate_args=False
    )
    return counts.numpy()


class SegmentationScores(ItemMetric):
    """`mean_iou` `pixel_accuracy` `mean_class_accuracy` `frequency_weighted_iou` (1411.4038), fractions in 0..1.

    An item is an image. Prediction and truth: `label_map` (H, W) of one size, the label's own. Kept are the cells of
    each image's confusion matrix, not its pixels.

    Args:
        num_classes: K with background, labels 0..K-1.
        ignored: the label of the truth whose pixels do not count; None for none.
        **settings: of `ItemMetric` and `torchmetrics.Metric`.
    """

    def __init__(self, num_classes: int, *, ignored: int | None = IGNORE_INDEX, **settings: Any):
        super().__init__(**settings)
        self.num_classes, self.ignored = num_classes, ignored

    @property
    def layout(self) -> str:
        return f"confusions of {self.num_classes} without {self.ignored}"

    def keep(self, prediction: Item, truth: Item) -> tuple[np.ndarray, np.ndarray]:
        """The cells that are not 0, and their counts."""
        maps = array(truth, "label_map", "truth", (-1, -1)), array(prediction, "label_map", "prediction", (-1, -1))
        matrix = confusion_matrix(*maps, self.num_classes, ignored=self.ignored).ravel()
        cells = np.flatnonzero(matrix)
        return cells, matrix[cells]

    def measure_kept(
        self, kept: Mapping[Id, tuple[np.ndarray, np.ndarray]], groups: Mapping[Id, Hashable]
    ) -> list[Measurement]:
        matrices = np.zeros((len(kept), self.num_classes, self.num_classes), np.int64)
        for matrix, (cells, counts) in zip(matrices, kept.values(), strict=True):
            matrix.flat[cells] = counts
        return by_groups([measure_segmentation(matrices, ignored=self.ignored)], groups)
