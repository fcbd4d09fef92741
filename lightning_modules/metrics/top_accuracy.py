"""Top-1 and top-5 accuracy as `torchmetrics.Metric`."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
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
