"""How much of an action must be seen: accuracy over the share of a clip that was looked at."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np

from lightning_modules.metrics.classification import measure_classification
from lightning_modules.metrics.item_metric import Id, Item, ItemMetric, array, by_groups
from lightning_modules.metrics.measurement import Measurement


class AccuracyByObserved(ItemMetric):
    """`top1/observed 0.3`: the share of clips whose class is the best after the first 30 % of their frames.

    An item is a clip. Prediction: `observed` (S, C), scores after each of the S shares. Truth: `label`, 0..C-1. Equal
    scores as in `TopAccuracy`.

    Args:
        shares: S of them, in (0, 1].
        **settings: of `ItemMetric` and `torchmetrics.Metric`.
    """

    def __init__(self, shares: Sequence[float], **settings: Any):
        super().__init__(**settings)
        self.shares = tuple(shares)

    def keep(self, prediction: Item, truth: Item) -> tuple[np.ndarray, int]:
        scores = array(prediction, "observed", "prediction", (len(self.shares), -1))
        return scores, int(array(truth, "label", "truth", ()))

    def measure_kept(
        self, kept: Mapping[Id, tuple[np.ndarray, int]], groups: Mapping[Id, Hashable]
    ) -> list[Measurement]:
        if not kept:
            return []
        scores = np.stack([observed for observed, _ in kept.values()])
        labels = np.array([label for _, label in kept.values()], np.int64)
        found = [measure_classification(scores[:, i], labels) for i in range(len(self.shares))]
        names = [f"top1/observed {share:g}" for share in self.shares]

        def resample(weights: np.ndarray) -> dict[str, np.ndarray]:
            values = {}
            for name, measured in zip(names, found, strict=True):
                assert measured.resample is not None
                values[name] = measured.resample(weights)["top1"]
            return values

        one = Measurement(
            values={name: measured.values["top1"] for name, measured in zip(names, found, strict=True)},
            variant="of equal scores the lower class first; shares are rounded up to whole frames",
            source=found[0].source,
            num_items=len(labels),
            unit="clips",
            resample=resample,
        )
        return by_groups([one], groups)
