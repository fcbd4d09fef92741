"""Semantic segmentation: two folders of label PNGs, palette or grey, with equal stems, as VOC's SegmentationClass.

Labels are the stored numbers, not the palette's colours. 255 in the truth is ignored; a prediction may not hold it: the
official evaluation stops there too. Images are read one after the other; what is kept of each is its label counts.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from contracts.errors import DataError
from contracts.records import IGNORE_INDEX
from lightning_modules.metrics.segmentation import class_ious, confusion_matrix, measure_segmentation
from pipeline.door.masks import decode_ids
from pipeline.door.rules import RULES, Refused
from pipeline.scorers import Inputs, Scores
from pipeline.scorers._files import check_same_ids, list_files, read_bytes


def score(inputs: Inputs) -> Scores:
    """The four metrics as fractions, and `per_class` IoU of labels 0 .. the largest one (null for absent ones).

    Raises:
        DataError: a missing, extra, unreadable or other-sized file; a label that is not a class id.
    """
    truths, predictions = list_files(inputs.truth, ".png"), list_files(inputs.predictions, ".png")
    check_same_ids(truths, predictions, name="image", truth_file=inputs.truth, given_file=inputs.predictions)
    largest, counts = 0, []
    for stem, truth_file in truths.items():
        truth, predicted = _labels(truth_file), _labels(predictions[stem])
        _check(truth, predicted, truth_file, predictions[stem])
        shown = truth[truth != IGNORE_INDEX]
        largest = max(largest, int(shown.max(initial=0)), int(predicted.max()))
        counts.append(_Counts(confusion_matrix(truth, predicted, IGNORE_INDEX)))
    labels, matrices = _dense(counts)
    ious = np.full(largest + 1, np.nan)
    ious[labels] = class_ious(matrices.sum(axis=0))
    return Scores(
        measurements=[measure_segmentation(matrices)],
        details={"per_class": {str(label): float(iou) for label, iou in enumerate(ious)}},
    )


def _labels(path: Path) -> np.ndarray:
    """(H, W) uint16."""
    try:
        return decode_ids(read_bytes(path))
    except Refused as refused:
        raise DataError(
            "not a label map", value=refused.detail, where=str(path),
            allowed=f"a PNG with a palette, or grey with one channel. {RULES[refused.reason]}",
        ) from refused  # fmt: skip


def _check(truth: np.ndarray, predicted: np.ndarray, truth_file: Path, predicted_file: Path) -> None:
    """Sizes, and labels: 255 in a prediction is refused even where the truth is ignored."""
    if truth.shape != predicted.shape:
        raise DataError(
            "a predicted label map has another size than its truth",
            value=f"{predicted.shape[1]} x {predicted.shape[0]}",
            where=str(predicted_file),
            allowed=f"{truth.shape[1]} x {truth.shape[0]}, as {truth_file}",
            fix="resize the logits to the label's size, not the labels",
        )
    for path, labels, allowed in (
        (truth_file, truth, f"0..{IGNORE_INDEX - 1}, and {IGNORE_INDEX} for pixels that are ignored"),
        (predicted_file, predicted, f"0..{IGNORE_INDEX - 1}: a prediction says something of every pixel"),
    ):
        limit = IGNORE_INDEX if path is truth_file else IGNORE_INDEX - 1
        if labels.max() > limit:
            raise DataError("a label is not a class id", value=int(labels.max()), where=str(path), allowed=allowed)


class _Counts:
    """A confusion matrix of 255 labels as the cells that are not 0: an image shows few labels."""

    def __init__(self, matrix: np.ndarray):
        self.rows, self.columns = (axis.astype(np.uint8) for axis in np.nonzero(matrix))
        self.values = matrix[self.rows, self.columns]


def _dense(counts: list[_Counts]) -> tuple[np.ndarray, np.ndarray]:
    """Labels that occur (K,), ascending, and the images' confusion matrices over them (I, K, K) int64."""
    labels = np.unique(np.concatenate([axis for image in counts for axis in (image.rows, image.columns)]))
    matrices = np.zeros((len(counts), len(labels), len(labels)), np.int64)
    for matrix, image in zip(matrices, counts, strict=True):
        matrix[np.searchsorted(labels, image.rows), np.searchsorted(labels, image.columns)] = image.values
    return labels, matrices
