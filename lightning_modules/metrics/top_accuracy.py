"""Top-1 and top-5 accuracy as `torchmetrics.Metric`."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from lightning_modules.metrics.classification import measure_classification
from lightning_modules.metrics.item_metric import Id, Item, ItemMetric, array, by_groups
from lightning_modules.metrics.measurement import Measurement


class TopAccuracy(ItemMetric):
    """`measure_classification` as `torchmetrics.Metric`: `top1` and `top5`, fractions in 0..1.

    An item is an image or a clip. Prediction: `scores` (C,), logits or probabilities. Truth: `label`, 0..C-1. Of equal
    scores the lower class comes first; torchmetrics' own `MulticlassAccuracy` leaves that to `topk`, so that a model
    that says the same of every class gets another number on each device.

    Args:
        videos: an item is a clip, its group the video: `clip_top1`, `clip_top5`, `video_top1`, `video_top5`.
        **settings: of `ItemMetric` and `torchmetrics.Metric`.
    """

    def __init__(self, *, videos: bool = False, **settings: Any):
        super().__init__(**settings)
        self.videos = videos

    def keep(self, prediction: Item, truth: Item) -> tuple[np.ndarray, int]:
        return array(prediction, "scores", "prediction", (-1,)), int(array(truth, "label", "truth", ()))

    def measure_kept(
        self, kept: Mapping[Id, tuple[np.ndarray, int]], groups: Mapping[Id, Hashable]
    ) -> list[Measurement]:
        scores = np.array([item for item, _ in kept.values()])
        labels = np.array([label for _, label in kept.values()], np.int64)
        if self.videos:
            return [measure_classification(scores, labels, groups=list(groups.values()))]
        return by_groups([measure_classification(scores.reshape(len(kept), -1), labels)], groups)


class AccuracyByLength(ItemMetric):
    """`top1/length n`: the share of the items of n tokens whose class is the best, for each n there is.

    Prediction: `scores` (C,). Truth: `label`, 0..C-1, and `length`. Equal scores as in `TopAccuracy`.
    """

    def keep(self, prediction: Item, truth: Item) -> tuple[np.ndarray, int, int]:
        scores = array(prediction, "scores", "prediction", (-1,))
        return scores, int(array(truth, "label", "truth", ())), int(array(truth, "length", "truth", ()))

    def measure_kept(
        self, kept: Mapping[Id, tuple[np.ndarray, int, int]], groups: Mapping[Id, Hashable]
    ) -> list[Measurement]:
        found: list[Measurement] = []
        for length in sorted({length for _, _, length in kept.values()}):
            ids = [key for key, (_, _, other) in kept.items() if other == length]
            measured = measure_classification(
                np.array([kept[key][0] for key in ids]), np.array([kept[key][1] for key in ids], np.int64)
            )
            (one,) = by_groups([_only_top1(measured, f"top1/length {length}")], {key: groups[key] for key in ids})
            found.append(one)
        return found


def _only_top1(measured: Measurement, name: str) -> Measurement:
    """A measurement of `top1` alone, called `name`."""
    resample = measured.resample
    assert resample is not None
    return replace(
        measured,
        values={name: measured.values["top1"]},
        resample=lambda weights: {name: resample(weights)["top1"]},
        unit="texts",
    )
