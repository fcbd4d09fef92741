"""Semantic segmentation: one class per pixel.

Batch: `images` (B, 3, S, S) uint8 channels_last, letterboxed; `labels` (B, S, S) uint8, 0 background, 255 ignored (also
padding), absent in prediction; `counts`, the pixels not ignored; `sizes` B x (height, width) of the content from the
upper left corner; `original_sizes` B x (H, W). Model: images -> logits (B, K, S, S) float, K classes with background.
Prediction: `label_map`, a PNG of labels (H, W) as bytes, small enough to be gathered. Truth: the same, of the truth.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from contracts.errors import ConfigError
from contracts.ranges import Range, check_ranges
from contracts.records import IGNORE_INDEX, DataSpec, Record
from lightning_modules.augment.augment import Augment, AugmentConfig
from lightning_modules.augment.images import decode_semantic
from lightning_modules.base.families import SegmenterSpec
from lightning_modules.base.task import BaseTask, Batch, Example, Mean, Prediction, Truth
from lightning_modules.blocks.pixels import stack, stack_images
from lightning_modules.metrics.item_metric import ItemMetric
from lightning_modules.metrics.segmentation_scores import SegmentationScores


class Task(BaseTask):
    """Scores: `mean_iou` (as VOC counts it, background a class), `pixel_accuracy`, `mean_class_accuracy`,
    `frequency_weighted_iou`; all from one confusion matrix at the labels' own size."""

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """`image_size` is the side in pixels of the square that images are letterboxed into."""

        image_size: int = 128
        augment: AugmentConfig = field(default=AugmentConfig(horizontal_flip=0.5))

        def __post_init__(self) -> None:
            check_ranges(self, image_size=Range(32))

    requires = ("has_semantic",)
    eval_requires = ("has_semantic",)
    spec_class = SegmenterSpec
    metric = "mean_iou"
    config: Config

    def __init__(self, config: Config, data: DataSpec):
        super().__init__(config, data)
        if len(data.classes) >= IGNORE_INDEX:
            raise ConfigError(
                "too many classes for an 8-bit label map", value=len(data.classes), allowed=f"< {IGNORE_INDEX}"
            )
        self.class_names = ("background", *data.classes)
        self._augment = Augment(config.augment, size=config.image_size, mode="letterbox")

    def spec(self) -> SegmenterSpec:
        return SegmenterSpec(num_classes=len(self.class_names))

    # records to tensors

    def encode(self, record: Record, seed: int | None) -> Example:
        semantic = decode_semantic(record.semantic_mask) if record.semantic_mask else None
        changed = self._augment(record.image, (record.height, record.width), seed=seed, semantic=semantic)
        example: Example = {
            "image": changed.image,
            "size": changed.content_size,
            "original_size": (record.height, record.width),
        }
        if changed.semantic is not None:
            example["labels"] = changed.semantic
        return example

    def collate(self, examples: Sequence[Example]) -> Batch:
        batch: Batch = {
            "images": stack_images([e["image"] for e in examples]),
            "sizes": [e["size"] for e in examples],
            "original_sizes": [e["original_size"] for e in examples],
        }
        if all("labels" in e for e in examples):
            batch["labels"] = stack([e["labels"] for e in examples])
            batch["counts"] = {"cross_entropy": sum(np.count_nonzero(e["labels"] != IGNORE_INDEX) for e in examples)}
        return batch

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

    @staticmethod
    def _predictions(logits: Tensor, batch: Batch) -> list[Prediction]:
        out: list[Prediction] = []
        for scores, size, original in zip(logits.float(), batch["sizes"], batch["original_sizes"], strict=True):
            content = scores[None, :, : int(size[0]), : int(size[1])]
            resized = F.interpolate(content, size=tuple(original), mode="bilinear", align_corners=False)
            label_map = resized[0].argmax(dim=0).to(torch.uint8).cpu().numpy()
            out.append({"label_map": encode_label_map(label_map)})
        return out

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
