"""Semantic segmentation: two folders of label PNGs, palette or grey, with equal stems, as VOC's SegmentationClass.

Labels are the stored numbers, not the palette's colours. One label of the truth is ignored, 255 unless the user names
another; a prediction may not hold it: the official evaluation stops there too. Images are read one after the other;
what is kept of each is its label counts.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from contracts.errors import DataError
from contracts.records import IGNORE_INDEX
from lightning_modules.metrics.segmentation import class_ious, measure_segmentation
from pipeline.ingest.door.masks import decode_ids
from pipeline.ingest.door.rules import RULES, Refused
from pipeline.measuring.scorers import Inputs, Scores
from pipeline.measuring.scorers._files import check_same_ids, list_files, read_bytes

MAX_CLASSES = 256


@dataclass(frozen=True)
class _Labels:
    """Which labels there may be: 0 to `highest`, and in the truth `ignored`."""

    highest: int
    ignored: int | None

    @staticmethod
    def of(inputs: Inputs) -> _Labels:
        ignored = inputs.ignore_index if inputs.ignore_index is not None else IGNORE_INDEX
        number = inputs.num_classes or len(inputs.class_names) or MAX_CLASSES
        return _Labels(number - 1, None if ignored == "none" else ignored)

    @property
    def allowed(self) -> str:
        highest = self.highest - (self.highest == self.ignored)
        return f"0..{highest}" + (f" without {self.ignored}" if self.ignored in range(highest) else "")


def score(inputs: Inputs) -> Scores:
    """The four metrics as fractions, and `per_class` IoU (null for absent classes): of the named classes, or of labels
    0 to the largest one.

    Raises:
        DataError: a missing, extra, unreadable or other-sized file; a label that is not a class id; a truth of ignored
            pixels and background alone.
    """
    truths, predictions = list_files(inputs.truth, ".png"), list_files(inputs.predictions, ".png")
    check_same_ids(truths, predictions, name="image", truth_file=inputs.truth, given_file=inputs.predictions)
    allowed = _Labels.of(inputs)
    shown, counts, num_ignored = np.zeros(MAX_CLASSES, bool), [], 0
    largest = inputs.num_classes - 1 if inputs.num_classes else max(len(inputs.class_names) - 1, 0)
    for stem, truth_file in truths.items():
        truth, predicted = _labels(truth_file), _labels(predictions[stem])
        _check(truth, predicted, truth_file, predictions[stem], allowed)
        counted = np.ones(truth.shape, bool) if allowed.ignored is None else truth != allowed.ignored
        num_ignored += int((~counted).sum())
        shown[truth[counted]] = True
        largest = max(largest, int(truth[counted].max(initial=0)), int(predicted.max()))
        counts.append(_Counts(truth[counted], predicted[counted]))
    if inputs.ignore_index is None and num_ignored and not shown[1:].any():
        _refuse_binary(inputs.truth)
    labels, matrices = _dense(counts)
    ious = np.full(largest + 1, np.nan)
    ious[labels] = class_ious(matrices.sum(axis=0))
    names = inputs.class_names or tuple(map(str, range(largest + 1)))
    return Scores(
        measurements=[measure_segmentation(matrices, ignored=allowed.ignored)],
        details={"per_class": dict(zip(names, map(float, ious), strict=True))},
        notes=_notes(inputs, names, shown),
    )


def _refuse_binary(folder: Path) -> None:
    raise DataError(
        f"the truth holds 0 and {IGNORE_INDEX} alone, and {IGNORE_INDEX} is ignored: predictions of 0 would be perfect",
        where=str(folder),
        fix=f"if {IGNORE_INDEX} marks the object, --ignore-index none counts it as label {IGNORE_INDEX}, which "
        f"predictions write as {IGNORE_INDEX}, too; if it is meant to be ignored, say --ignore-index {IGNORE_INDEX}",
    )


def _notes(inputs: Inputs, names: tuple[str, ...], shown: np.ndarray) -> list[str]:
    """What the numbers do not say by themselves."""
    found = np.flatnonzero(shown)
    if len(found) < 2:
        what = f"label {found[0]}" if len(found) else "no label"
        return [f"{inputs.truth} shows {what} alone: the numbers say little"]
    missing = [name for label, name in enumerate(names) if not shown[label]]
    if not missing or not (inputs.class_names or inputs.num_classes):
        return []
    return [f"{len(missing)} of {len(names)} classes have no pixel in {inputs.truth}: {', '.join(missing[:10])}"]


def _labels(path: Path) -> np.ndarray:
    """(H, W) uint16."""
    try:
        return decode_ids(read_bytes(path))
    except Refused as refused:
        raise DataError(
            "not a label map", value=refused.detail, where=str(path),
            allowed=f"a PNG with a palette, or grey with one channel. {RULES[refused.reason]}",
        ) from refused  # fmt: skip


def _check(truth: np.ndarray, predicted: np.ndarray, truth_file: Path, predicted_file: Path, allowed: _Labels) -> None:
    """Sizes, and labels: an ignored one in a prediction is refused even where the truth is ignored."""
    if truth.shape != predicted.shape:
        raise DataError(
            "a predicted label map has another size than its truth",
            value=f"{predicted.shape[1]} x {predicted.shape[0]}",
            where=str(predicted_file),
            allowed=f"{truth.shape[1]} x {truth.shape[0]}, as {truth_file}",
            fix="resize the logits to the label's size, not the labels",
        )
    ignored = allowed.ignored
    beside = "" if ignored is None else f", and {ignored} for pixels that are ignored"
    no_label = (predicted > allowed.highest) | (False if ignored is None else predicted == ignored)
    unknown = (truth > allowed.highest) & (True if ignored is None else truth != ignored)
    for path, labels, wrong, what in (
        (truth_file, truth, unknown, f"{allowed.allowed}{beside}"),
        (predicted_file, predicted, no_label, f"{allowed.allowed}: a prediction says something of every pixel"),
    ):
        if wrong.any():
            raise DataError(
                "a label is not a class id", value=int(labels[wrong].max()), where=str(path), allowed=what,
                fix="--ignore-index says which label of the truth does not count, `none` that all do; --num-classes "
                "how many there are",
            )  # fmt: skip


class _Counts:
    """A confusion matrix of 256 labels as the cells that are not 0: an image shows few labels."""

    def __init__(self, truth: np.ndarray, predicted: np.ndarray):
        cells = np.bincount(truth.astype(np.int64) * MAX_CLASSES + predicted, minlength=MAX_CLASSES**2)
        found = np.flatnonzero(cells)
        self.rows, self.columns = (axis.astype(np.uint8) for axis in np.divmod(found, MAX_CLASSES))
        self.values = cells[found]


def _dense(counts: list[_Counts]) -> tuple[np.ndarray, np.ndarray]:
    """Labels that occur (K,), ascending, and the images' confusion matrices over them (I, K, K) int64."""
    labels = np.unique(np.concatenate([axis for image in counts for axis in (image.rows, image.columns)]))
    matrices = np.zeros((len(counts), len(labels), len(labels)), np.int64)
    for matrix, image in zip(matrices, counts, strict=True):
        matrix[np.searchsorted(labels, image.rows), np.searchsorted(labels, image.columns)] = image.values
    return labels, matrices
