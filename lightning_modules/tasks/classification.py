"""Image classification: one class of the whole image.

Batch: `images` (B, 3, S, S) uint8 channels_last; `labels` (B,) int64, 0..C-1, absent in prediction. Model: images ->
logits (B, C) float. B images, C classes, without background.
Prediction: `probs` (C,) float32. Truth: `label`, 0..C-1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from contracts.errors import ConfigError, DataError
from contracts.ranges import Range, check_ranges
from contracts.records import DataSpec, Record
from lightning_modules.augment.augment import Augment, AugmentConfig
from lightning_modules.base.families import ClassifierSpec
from lightning_modules.base.task import BaseTask, Batch, Example, Mean, Prediction, Truth
from lightning_modules.blocks.pixels import stack_images
from lightning_modules.metrics.item_metric import ItemMetric
from lightning_modules.metrics.top_accuracy import TopAccuracy

_NUM_TOP = 5


class Task(BaseTask):
    """Scores: `top1` and `top5`, the share of images whose class is the best, or among the five best."""

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """
        Attributes:
            image_size: images are resized to a square of this side, in pixels.
            resize: "stretch" the whole image, or "cover" the square with its middle: where no `random_crop` draws, with
                `center` of the short side (0.875 is 224 of 256).
            label_smoothing: share of the target that is spread over all classes (1512.00567).
        """

        image_size: int = 128
        resize: Literal["stretch", "cover"] = "stretch"
        center: float = 0.875
        label_smoothing: float = 0.0
        augment: AugmentConfig = field(default=AugmentConfig(horizontal_flip=0.5, scale=0.15, shift=0.06))

        def __post_init__(self) -> None:
            share = Range(0, 1, open_low=True)
            check_ranges(self, image_size=Range(32), center=share, label_smoothing=Range(0, 1, open_high=True))

    spec_class = ClassifierSpec
    requires = ("num_labels",)
    eval_requires = ("num_labels",)
    metric = "top1"
    config: Config

    def __init__(self, config: Config, data: DataSpec):
        super().__init__(config, data)
        if len(data.classes) < 2:
            raise ConfigError(
                "there is nothing to tell apart", value=list(data.classes), where=f"classes of {data.dataset}",
                allowed="two classes or more", fix="choose a data set with a source of labels, such as `image_folder`",
            )  # fmt: skip
        self._positions = {name: i for i, name in enumerate(data.classes)}
        self._augment = Augment(config.augment, size=config.image_size, mode=config.resize, center=config.center)

    def spec(self) -> ClassifierSpec:
        return ClassifierSpec(num_classes=len(self.data.classes))

    # records to tensors

    def encode(self, record: Record, seed: int | None) -> Example:
        image = self._augment(record.image, (record.height, record.width), seed=seed).image
        return {"image": image, **({"label": self._label(record)} if record.labels else {})}

    def _label(self, record: Record) -> int:
        if len(record.labels) != 1:
            raise DataError(
                "an image of this task has one label", value=list(record.labels),
                where=f"record {record.key} of {self.data.dataset}",
                fix="give each image one class; tasks of several labels are not here",
            )  # fmt: skip
        return self._positions[record.labels[0]]

    def collate(self, examples: Sequence[Example]) -> Batch:
        batch: Batch = {"images": stack_images([example["image"] for example in examples])}
        if all("label" in example for example in examples):
            batch["labels"] = torch.tensor([example["label"] for example in examples], dtype=torch.int64)
        return batch

    def truths(self, record: Record) -> list[Truth]:
        return [{"label": self._label(record)}]

    # tensors to losses and predictions

    def losses(self, model: nn.Module, batch: Batch) -> dict[str, Mean]:
        return {"cross_entropy": self._loss(model(batch["images"]), batch)}

    def predict(self, model: nn.Module, batch: Batch) -> list[Prediction]:
        return self._predictions(model(batch["images"]))

    def evaluate_batch(self, model: nn.Module, batch: Batch) -> tuple[dict[str, Mean], list[Prediction]]:
        logits = model(batch["images"])
        return {"cross_entropy": self._loss(logits, batch)}, self._predictions(logits)

    def _loss(self, logits: Tensor, batch: Batch) -> Mean:
        with torch.autocast(logits.device.type, enabled=False):
            total = F.cross_entropy(
                logits.float(), batch["labels"], label_smoothing=self.config.label_smoothing, reduction="sum"
            )
        return Mean(total, len(logits))

    @staticmethod
    def _predictions(logits: Tensor) -> list[Prediction]:
        return [{"probs": probs} for probs in torch.softmax(logits.float(), dim=1).cpu().numpy()]

    # what a user sees

    def metrics(self, *, thorough: bool = False) -> list[ItemMetric]:
        return [TopAccuracy()]

    def measurable(self, prediction: Prediction, truth: Truth) -> tuple[Prediction, Truth]:
        return {"scores": prediction["probs"]}, truth

    def top(self, prediction: Prediction) -> list[tuple[str, float]]:
        """Names and probabilities of the best classes, the best first; of equal ones the first in the class list."""
        best = np.argsort(-prediction["probs"], kind="stable")[:_NUM_TOP]
        return [(self.data.classes[i], float(prediction["probs"][i])) for i in best]

    def answer(self, prediction: Prediction) -> dict[str, Any]:
        top = self.top(prediction)
        return {"class": top[0][0], "top": [{"class": name, "probability": round(p, 6)} for name, p in top]}
