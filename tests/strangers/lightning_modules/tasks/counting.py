"""Counting: how many there are, the mean of a distribution over numbers.

Batch: `images` (B, 3, S, S) uint8; `true` (B,) int64, absent in prediction. Model: images -> logits (B, C) of counts
0..C-1. Prediction: `count`, a number. Truth: `count`, a whole one.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from contracts.ranges import Range, check_ranges
from contracts.records import Record
from lightning_modules.augment.augment import Augment, AugmentConfig
from lightning_modules.base.families import ClassifierSpec
from lightning_modules.base.task import BaseTask, Batch, Example, Mean, Prediction, Truth
from lightning_modules.blocks.pixels import stack_images
from lightning_modules.metrics.item_metric import Id, Item, ItemMetric, by_groups, part
from lightning_modules.metrics.measurement import SOURCE, Measurement, ratio_of_sums


class CountError(ItemMetric):
    """`MAE`, the mean absolute error of counts. Prediction and truth: `count`."""

    def keep(self, prediction: Item, truth: Item) -> float:
        return abs(float(part(prediction, "count", "prediction")) - float(part(truth, "count", "truth")))

    def measure_kept(self, kept: Mapping[Id, float], groups: Mapping[Id, Hashable]) -> list[Measurement]:
        errors = np.array(list(kept.values()))
        measured = Measurement(
            values={"MAE": float(errors.mean()) if len(errors) else math.nan},
            variant="mean absolute error of counts",
            source=SOURCE,
            num_items=len(errors),
            num_clusters=len(errors),
            resample=lambda weights: {"MAE": ratio_of_sums(weights, errors, np.ones(len(errors)))},
        )
        return by_groups([measured], groups)


class Task(BaseTask):
    @dataclass(frozen=True, kw_only=True)
    class Config:
        """`image_size`: images are resized to a square of this side, in pixels."""

        image_size: int = 32

        def __post_init__(self) -> None:
            check_ranges(self, image_size=Range(16))

    spec_class = ClassifierSpec
    requires = ("num_labels",)
    eval_requires = ("num_labels",)
    metric = "MAE"
    metric_mode = "min"
    config: Config

    def spec(self) -> ClassifierSpec:
        return ClassifierSpec(num_classes=len(self.data.classes))

    def encode(self, record: Record, seed: int | None) -> Example:
        augment = Augment(AugmentConfig(horizontal_flip=0.5), size=self.config.image_size)
        image = augment(record.image, (record.height, record.width), seed=seed).image
        return {"image": image, **({"count": int(record.labels[0])} if record.labels else {})}

    def collate(self, examples: Sequence[Example]) -> Batch:
        batch: Batch = {"images": stack_images([example["image"] for example in examples])}
        if all("count" in example for example in examples):
            batch["true"] = torch.tensor([example["count"] for example in examples])
        return batch

    def losses(self, model: nn.Module, batch: Batch) -> dict[str, Mean]:
        logits: Tensor = model(batch["images"]).float()
        return {"cross_entropy": Mean(F.cross_entropy(logits, batch["true"], reduction="sum"), len(logits))}

    def predict(self, model: nn.Module, batch: Batch) -> list[Prediction]:
        probs = torch.softmax(model(batch["images"]).float(), dim=1)
        means = probs @ torch.arange(probs.shape[1], dtype=probs.dtype, device=probs.device)
        return [{"count": mean} for mean in means.tolist()]

    def truths(self, record: Record) -> list[Truth]:
        return [{"count": int(record.labels[0])}]

    def metrics(self, *, thorough: bool = False) -> list[ItemMetric]:
        return [CountError()]

    def answer(self, prediction: Prediction) -> dict[str, Any]:
        return {"count": round(prediction["count"], 3)}
