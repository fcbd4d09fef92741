"""Recall and overlap of class-agnostic proposals as `torchmetrics.Metric`."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np

from lightning_modules.metrics.item_metric import Id, Item, ItemMetric, array, by_groups
from lightning_modules.metrics.measurement import Measurement
from lightning_modules.metrics.proposals import measure_proposals


class ProposalRecall(ItemMetric):
    """`measure_proposals` as `torchmetrics.Metric`: `recall_50@k` `recall_70@k` `AR@k` `coco_AR@k` `MABO@k`, in 0..1.

    An item is an image. Prediction: `boxes` (P, 4), best first. Truth: `boxes` (N, 4) of the objects to be found, and
    `labels` (N,) if their classes are known, of every image or of none.

    Args:
        counts: the numbers k of proposals that are looked at.
        **settings: of `ItemMetric` and `torchmetrics.Metric`.
    """

    def __init__(self, *, counts: Sequence[int] = (10, 100, 1000), **settings: Any):
        super().__init__(**settings)
        self.counts = tuple(counts)

    def keep(self, prediction: Item, truth: Item) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        objects = array(truth, "boxes", "truth", (-1, 4))
        labels = array(truth, "labels", "truth", (len(objects),)) if "labels" in truth else None
        return array(prediction, "boxes", "prediction", (-1, 4))[: max(self.counts)], objects, labels

    def measure_kept(
        self, kept: Mapping[Id, tuple[np.ndarray, np.ndarray, np.ndarray | None]], groups: Mapping[Id, Hashable]
    ) -> list[Measurement]:
        labels = {key: of_image for key, (_, _, of_image) in kept.items() if of_image is not None}
        measured = measure_proposals(
            {key: boxes for key, (boxes, _, _) in kept.items()},
            {key: objects for key, (_, objects, _) in kept.items()},
            counts=self.counts,
            labels=labels or None,
        )
        return by_groups([measured], groups)
