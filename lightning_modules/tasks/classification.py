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
from torch import Tensor, nn

from contracts.ranges import Range, check_ranges
from contracts.records import DataSpec, Record
from lightning_modules.augment.augment import Augment, AugmentConfig
from lightning_modules.base.class_task import ClassTask
from lightning_modules.base.families import ClassifierSpec
from lightning_modules.base.task import Batch, Example, Prediction
from lightning_modules.blocks.pixels import stack_images
from lightning_modules.metrics.item_metric import ItemMetric
from lightning_modules.metrics.top_accuracy import TopAccuracy

_NUM_TOP = 5


class Task(ClassTask):
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
    a_record = "an image"
    sources = "a source of labels, such as `image_folder`"
    config: Config

    def __init__(self, config: Config, data: DataSpec):
        super().__init__(config, data)
        self.label_smoothing = config.label_smoothing
        self._augment = Augment(config.augment, size=config.image_size, mode=config.resize, center=config.center)

    def spec(self) -> ClassifierSpec:
        return ClassifierSpec(num_classes=len(self.data.classes))

    # records to tensors

    def encode(self, record: Record, seed: int | None) -> Example:
        image = self._augment(record.image, (record.height, record.width), seed=seed).image
        return {"image": image, **self.labeled(record)}

    def collate(self, examples: Sequence[Example]) -> Batch:
        return {"images": stack_images([example["image"] for example in examples]), **self.labels(examples)}

    # tensors to losses and predictions

    def logits(self, model: nn.Module, batch: Batch) -> Tensor:
        return model(batch["images"])  # type: ignore[no-any-return]

    # what a user sees

    def metrics(self, *, thorough: bool = False) -> list[ItemMetric]:
        return [TopAccuracy()]

    def top(self, prediction: Prediction) -> list[tuple[str, float]]:
        """Names and probabilities of the best classes, the best first; of equal ones the first in the class list."""
        best = np.argsort(-prediction["probs"], kind="stable")[:_NUM_TOP]
        return [(self.data.classes[i], float(prediction["probs"][i])) for i in best]

    def answer(self, prediction: Prediction) -> dict[str, Any]:
        top = self.top(prediction)
        return {"class": top[0][0], "top": [{"class": name, "probability": round(p, 6)} for name, p in top]}
