"""What segmentation of whole pictures and of crops have in common: classes of pixels, and how they are measured.

Batch, as far as both have it: `images` (N, 3, S, S) uint8 channels_last; `labels` (N, S, S) uint8, 0 background, 255
ignored, absent in prediction; `counts`, the pixels not ignored. Model: images -> logits (N, K, S, S) float, K classes
with background. Prediction: `label_map`, a PNG of labels (H, W) as bytes, small enough to be gathered. Truth: the same,
of the truth.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, field
from typing import Any, ClassVar

import cv2
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from contracts.errors import ConfigError
from contracts.ranges import Range, check_ranges
from contracts.records import IGNORE_INDEX, DataSpec, Record
from lightning_modules.augment.augment import AugmentConfig
from lightning_modules.augment.images import decode_semantic
from lightning_modules.base.families import SegmenterSpec
from lightning_modules.base.task import BaseTask, Batch, Mean, Prediction, Truth
from lightning_modules.metrics.item_metric import ItemMetric
from lightning_modules.metrics.segmentation_scores import SegmentationScores


@dataclass(frozen=True, kw_only=True)
class PixelConfig:
    """`image_size` is the side in pixels of the square that a picture, or a crop of one, is brought into."""

    image_size: int = 128
    augment: AugmentConfig = field(default=AugmentConfig(horizontal_flip=0.5))

    def __post_init__(self) -> None:
        check_ranges(self, image_size=Range(32))


class PixelTask(BaseTask):
    """Scores: `mean_iou` (as VOC counts it, background a class), `pixel_accuracy`, `mean_class_accuracy`,
    `frequency_weighted_iou`; all from one confusion matrix at the labels' own size."""

    requires: ClassVar[tuple[str, ...]] = ("has_semantic",)
    eval_requires = ("has_semantic",)
    spec_class = SegmenterSpec
    metric = "mean_iou"

    def __init__(self, config: PixelConfig, data: DataSpec):
        super().__init__(config, data)
        if len(data.classes) >= IGNORE_INDEX:
            raise ConfigError(
                "too many classes for an 8-bit label map", value=len(data.classes), allowed=f"< {IGNORE_INDEX}"
            )
        self.class_names = ("background", *data.classes)

    def spec(self) -> SegmenterSpec:
        return SegmenterSpec(num_classes=len(self.class_names))

    def truths(self, record: Record) -> list[Truth]:
        return [{"label_map": record.semantic_mask}]

    # tensors to losses and predictions

    def losses(self, model: nn.Module, batch: Batch) -> dict[str, Mean]:
        return {"cross_entropy": self._loss(model(batch["images"]), batch)}

    def predict(self, model: nn.Module, batch: Batch) -> list[Prediction]:
        return self._predictions(model(batch["images"]), batch)

    def evaluate_batch(self, model: nn.Module, batch: Batch) -> tuple[dict[str, Mean], list[Prediction]]:
        logits = model(batch["images"])
        return {"cross_entropy": self._loss(logits, batch)}, self._predictions(logits, batch)

    @staticmethod
    def _loss(logits: Tensor, batch: Batch) -> Mean:
        """Over the pixels that are not ignored."""
        with torch.autocast(logits.device.type, enabled=False):
            total = F.cross_entropy(logits.float(), batch["labels"].long(), ignore_index=IGNORE_INDEX, reduction="sum")
        return Mean(total, batch["counts"]["cross_entropy"])

    @abstractmethod
    def _predictions(self, logits: Tensor, batch: Batch) -> list[Prediction]:
        """One a record, at its own size."""

    # what a user sees

    def metrics(self, *, thorough: bool = False) -> list[ItemMetric]:
        return [SegmentationScores(len(self.class_names))]

    def measurable(self, prediction: Prediction, truth: Truth) -> tuple[Prediction, Truth]:
        return {"label_map": decode_semantic(prediction["label_map"])}, {
            "label_map": decode_semantic(truth["label_map"])
        }

    def answer(self, prediction: Prediction) -> dict[str, Any]:
        """Each class's share of the pixels; the map itself is in the picture."""
        label_map = decode_semantic(prediction["label_map"])
        counts = np.bincount(label_map.ravel(), minlength=len(self.class_names))
        return {
            "size": list(label_map.shape),
            "classes": {
                name: round(float(count / label_map.size), 6)
                for name, count in zip(self.class_names, counts, strict=True)
                if count
            },
        }


def encode_label_map(label_map: np.ndarray) -> bytes:
    """(H, W) uint8 labels -> PNG, the inverse of `decode_semantic`."""
    return cv2.imencode(".png", label_map)[1].tobytes()
