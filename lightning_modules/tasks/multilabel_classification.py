"""Multi-label image classification: which of the classes an image shows, any number of them.

Batch: `images` (B, 3, S, S) uint8 channels_last; `labels` (B, C) int8, as of the truth. Model: images -> logits (B, C)
float, each class by itself. B images, C classes, without background.
Prediction: `probs` (C,) float32, which need not add up to 1. Truth: `labels` (C,) int8, the VOC devkit's: 1 where the
image shows the class, -1 where it does not, 0 where it shows only difficult objects of it, which counts neither in the
loss nor in a metric.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from contracts.errors import ConfigError
from contracts.ranges import SHARE, Range, check_ranges
from contracts.records import DataSpec, Record
from lightning_modules.augment.augment import Augment, AugmentConfig
from lightning_modules.base.families import ClassifierSpec
from lightning_modules.base.task import BaseTask, Batch, Example, Mean, Prediction, Truth
from lightning_modules.blocks.pixels import stack_images
from lightning_modules.metrics.item_metric import ItemMetric
from lightning_modules.metrics.multilabel import MultilabelMeanAP


class Task(BaseTask):
    """Scores: `mAP_2010` (all points, VOC2010 and later) and `mAP_2007` (11 points), means over classes of the average
    precision of all images ranked by that class; beside them `AP/<class>`."""

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """
        Attributes:
            image_size: images are resized to a square of this side, in pixels.
            resize: "stretch" the whole image, or "cover" the square with its middle: where no `random_crop` draws, with
                `center` of the short side (0.875 is 224 of 256). What is cut off still counts as shown.
            labels_from: "objects": the classes of an image's boxes, crowds too, and what labels it has beside them;
                "labels": those of the whole image alone, such as `webdataset` reads.
            empty_images: train on images without any object (or label), too, as such that show no class. Without it
                they are only measured, those of "labels" neither, as nobody may have looked at them.
            picture_score: the lowest probability of a class that is drawn or answered as shown; metrics use all.
        """

        image_size: int = 128
        resize: Literal["stretch", "cover"] = "stretch"
        center: float = 0.875
        labels_from: Literal["objects", "labels"] = "objects"
        empty_images: bool = False
        picture_score: float = 0.5
        augment: AugmentConfig = field(default=AugmentConfig(horizontal_flip=0.5, scale=0.15, shift=0.06))

        def __post_init__(self) -> None:
            check_ranges(self, image_size=Range(32), center=Range(0, 1, open_low=True), picture_score=SHARE)

    requires: ClassVar[tuple[str, ...]] = ("num_objects",)
    eval_requires: ClassVar[tuple[str, ...]] = ()
    spec_class = ClassifierSpec
    metric: ClassVar[str] = "mAP_2010"
    config: Config

    def __init__(self, config: Config, data: DataSpec):
        super().__init__(config, data)
        if not data.classes:
            raise ConfigError(
                "there is nothing to find", value=list(data.classes), where=f"classes of {data.dataset}",
                allowed="one class or more", fix="choose a data set with objects, such as `voc` or `coco` reads",
            )  # fmt: skip
        self._positions = {name: i for i, name in enumerate(data.classes)}
        self._augment = Augment(config.augment, size=config.image_size, mode=config.resize, center=config.center)
        # The class's own are what `init` asks of data; which samples are used is this run's matter.
        needed = ("num_labels",) if config.labels_from == "labels" else ("num_objects",)
        self.requires = () if config.empty_images else needed  # type: ignore[misc]
        self.eval_requires = needed if self.requires == ("num_labels",) else ()  # type: ignore[misc]

    def spec(self) -> ClassifierSpec:
        return ClassifierSpec(num_classes=len(self.data.classes))

    # records to tensors

    def labels(self, record: Record) -> np.ndarray:
        """(C,) int8 of 1, 0 and -1."""
        labels, objects = np.full(len(self.data.classes), -1, np.int8), record.objects
        if self.config.labels_from == "objects":
            labels[objects.labels[objects.is_difficult] - 1] = 0
            labels[objects.labels[~objects.is_difficult] - 1] = 1
        labels[[self._positions[name] for name in record.labels]] = 1
        return labels

    def encode(self, record: Record, seed: int | None) -> Example:
        image = self._augment(record.image, (record.height, record.width), seed=seed).image
        return {"image": image, "labels": self.labels(record)}

    def collate(self, examples: Sequence[Example]) -> Batch:
        return {
            "images": stack_images([example["image"] for example in examples]),
            "labels": torch.from_numpy(np.stack([example["labels"] for example in examples])),
        }

    # tensors to losses and predictions

    def losses(self, model: nn.Module, batch: Batch) -> dict[str, Mean]:
        return self._losses(model(batch["images"]), batch)

    def predict(self, model: nn.Module, batch: Batch) -> list[Prediction]:
        return self._predictions(model(batch["images"]))

    def evaluate_batch(self, model: nn.Module, batch: Batch) -> tuple[dict[str, Mean], list[Prediction]]:
        logits = model(batch["images"])
        return self._losses(logits, batch), self._predictions(logits)

    @staticmethod
    def _losses(logits: Tensor, batch: Batch) -> dict[str, Mean]:
        """`binary_cross_entropy`: the classes' sum, mean over images."""
        labels = batch["labels"]
        with torch.autocast(logits.device.type, enabled=False):
            each = F.binary_cross_entropy_with_logits(logits.float(), (labels > 0).float(), reduction="none")
            total = (each * (labels != 0)).sum()
        return {"binary_cross_entropy": Mean(total, len(logits))}

    @staticmethod
    def _predictions(logits: Tensor) -> list[Prediction]:
        return [{"probs": probs} for probs in torch.sigmoid(logits.float()).cpu().numpy()]

    # what a user sees

    def truths(self, record: Record) -> list[Truth]:
        return [{"labels": self.labels(record)}]

    def metrics(self, *, thorough: bool = False) -> list[ItemMetric]:
        return [MultilabelMeanAP(self.data.classes, each=thorough)]

    def ranked(self, prediction: Prediction) -> list[int]:
        """All classes, 0..C-1, the most probable first; of equal ones the first in the class list."""
        return [int(place) for place in np.argsort(-prediction["probs"], kind="stable")]

    def answer(self, prediction: Prediction) -> dict[str, Any]:
        """`classes` are those that the image is said to show; `probabilities` has all. The most probable come first."""
        probs, names = prediction["probs"], self.data.classes
        ranked = self.ranked(prediction)
        return {
            "classes": [names[i] for i in ranked if probs[i] >= self.config.picture_score],
            "probabilities": {names[i]: round(float(probs[i]), 6) for i in ranked},
        }
