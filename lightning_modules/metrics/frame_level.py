"""Classes of frames: average precision over all frames, accuracy, and errors by the distance to where classes change.

Shapes: I clips, T frames of a clip, F of all clips, C classes; `weights` (B, I), how often a resample holds each clip.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from lightning_modules.metrics.item_metric import Id, Item, ItemMetric, array, by_groups
from lightning_modules.metrics.measurement import SOURCE, Measurement, ratio_of_sums

DISTANCES = 8  # frames after a change that are told apart; the last stands for all further ones
_NUMBERS_AT_ONCE = 4_000_000
_MOST_NUMBERS = 20_000_000  # frames x classes up to which average precision is drawn again
Kept = Mapping[Id, tuple[np.ndarray, np.ndarray]]


class _FrameMetric(ItemMetric):
    """An item is a clip. Prediction: `probs` (T, C), any scores. Truth: `labels` (T, C) bool."""

    @property
    def layout(self) -> str:
        return "frames"

    def keep(self, prediction: Item, truth: Item) -> tuple[np.ndarray, np.ndarray]:
        labels = array(truth, "labels", "truth", (-1, -1)).astype(bool)
        return array(prediction, "probs", "prediction", labels.shape), labels


class FrameMeanAP(_FrameMetric):
    """`mAP`: the mean over classes of the average precision of all frames of all clips, ranked together, as MultiTHUMOS
    (1507.05738) and Charades (1604.01753) are measured. A class without a frame has none.

    Precision and recall at each score that occurs, without interpolation: frames of equal scores come together, so that
    their order is of no matter.

    Args:
        class_names: C names.
        each: also `AP/<class>`.
        **settings: of `ItemMetric` and `torchmetrics.Metric`.
    """

    def __init__(self, class_names: Sequence[str], *, each: bool = False, **settings: Any):
        super().__init__(**settings)
        self.class_names, self.each = tuple(class_names), each

    def measure_kept(self, kept: Kept, groups: Mapping[Id, Hashable]) -> list[Measurement]:
        scores, labels, column = _joined(kept, len(self.class_names))
        ones = np.ones((1, len(kept)))

        def values(weights: np.ndarray) -> dict[str, np.ndarray]:
            each = np.stack(
                [average_precision(scores[:, c], labels[:, c], column, weights) for c in range(labels.shape[1])], axis=1
            )
            there = ~np.isnan(each)
            with np.errstate(invalid="ignore"):
                mean = np.where(there, each, 0.0).sum(axis=1) / there.sum(axis=1)
            told = {f"AP/{name}": each[:, c] for c, name in enumerate(self.class_names)} if self.each else {}
            return {"mAP": mean, **told}

        few = labels.size <= _MOST_NUMBERS
        measured = Measurement(
            values={name: float(value[0]) for name, value in values(ones).items()},
            variant="per frame, mean over classes, all points, equal scores together",
            source=SOURCE,
            num_items=len(labels),
            unit="frames",
            num_clusters=len(kept),
            resample=values if few else None,
        )
        return by_groups([measured], groups)


class FrameAccuracy(_FrameMetric):
    """`frame_accuracy`: of the frames that have a class, the share whose best class is one of theirs; of equal scores
    the first class.

    Args:
        by_distance: also `error/after 0` to `error/after 7`: the share that is wrong, of the frames so many frames
            after the classes changed; 0 is the first frame of what is new, 7 the eighth or a later one. What comes
            before the first change counts for none.
        **settings: of `ItemMetric` and `torchmetrics.Metric`.
    """

    def __init__(self, *, by_distance: bool = False, **settings: Any):
        super().__init__(**settings)
        self.by_distance = by_distance

    def measure_kept(self, kept: Kept, groups: Mapping[Id, Hashable]) -> list[Measurement]:
        clips = [(_right(probs, labels), labels) for probs, labels in kept.values()]
        right = np.array([hits.sum() for hits, _ in clips], np.float64)
        counted = np.array([labels.any(axis=1).sum() for _, labels in clips], np.float64)
        parts = {"frame_accuracy": (right, counted)}
        if self.by_distance:
            for distance in range(DISTANCES):
                chosen = [(hits, labels.any(axis=1) & (after_change(labels) == distance)) for hits, labels in clips]
                wrong = np.array([(~hits & where).sum() for hits, where in chosen], np.float64)
                parts[f"error/after {distance}"] = (wrong, np.array([where.sum() for _, where in chosen], np.float64))

        def values(weights: np.ndarray) -> dict[str, np.ndarray]:
            return {name: ratio_of_sums(weights, *numbers) for name, numbers in parts.items()}

        measured = Measurement(
            values={name: float(value[0]) for name, value in values(np.ones((1, len(clips)))).items()},
            variant="of the frames that have a class; of equal scores the lower class first",
            source=SOURCE,
            num_items=int(counted.sum()),
            unit="frames",
            num_clusters=len(clips),
            resample=values,
        )
        return by_groups([measured], groups)


def _right(probs: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """(T,) bool: the best class is one of the frame's."""
    if not len(labels):
        return np.zeros(0, bool)
    return np.take_along_axis(labels, probs.argmax(axis=1)[:, None], axis=1)[:, 0]


def after_change(labels: np.ndarray) -> np.ndarray:
    """(T, C) bool -> (T,) int64: frames since the classes last changed, at most `DISTANCES` - 1; -1 before a change."""
    after = np.full(len(labels), -1, np.int64)
    for t in range(1, len(labels)):
        if (labels[t] != labels[t - 1]).any():
            after[t] = 0
        elif after[t - 1] >= 0:
            after[t] = min(after[t - 1] + 1, DISTANCES - 1)
    return after


def average_precision(scores: np.ndarray, labels: np.ndarray, column: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Sum over the scores that occur of (recall gained there) x (precision there), (B,); NaN without a true frame.

    Args:
        scores: (F,). labels: (F,) bool. column: (F,), which column of `weights` (B, I) counts for each frame.
    """
    order = np.argsort(-scores, kind="stable")
    ranked, true, clip = scores[order], labels[order], column[order]
    ends = np.flatnonzero(np.append(ranked[1:] != ranked[:-1], True)) if len(ranked) else np.zeros(0, np.int64)
    return np.concatenate([_precision(true, clip, ends, part) for part in _parts(weights, len(ranked))])


def _parts(weights: np.ndarray, frames: int) -> Iterator[np.ndarray]:
    """Some rows at a time: all at once would fill the memory."""
    rows = max(1, _NUMBERS_AT_ONCE // max(1, frames))
    for start in range(0, len(weights), rows):
        yield weights[start : start + rows]


def _precision(true: np.ndarray, clip: np.ndarray, ends: np.ndarray, weights: np.ndarray) -> np.ndarray:
    held = weights[:, clip]
    found = (held * true).cumsum(axis=1)[:, ends]
    seen = held.cumsum(axis=1)[:, ends]
    gained = np.diff(found, axis=1, prepend=0.0)
    total = found[:, -1] if found.shape[1] else np.zeros(len(weights))
    with np.errstate(invalid="ignore", divide="ignore"):
        return (gained * np.where(seen > 0, found / seen, 0.0)).sum(axis=1) / np.where(total > 0, total, math.nan)


def _joined(kept: Kept, num_classes: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scores (F, C), labels (F, C), clip of each frame (F,)."""
    none = np.zeros((0, num_classes))
    scores = np.concatenate([none, *(probs for probs, _ in kept.values())])
    labels = np.concatenate([none.astype(bool), *(labels for _, labels in kept.values())])
    return scores, labels, np.repeat(np.arange(len(kept)), [len(one) for _, one in kept.values()])
