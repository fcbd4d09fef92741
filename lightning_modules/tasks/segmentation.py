"""Semantic segmentation: one class per pixel.

Batch: `images` (B, 3, S, S) uint8 channels_last, letterboxed; `labels` (B, S, S) uint8, 0 background, 255 ignored (also
padding), absent in prediction; `counts`, the pixels not ignored; `sizes` B x (height, width) of the content from the
upper left corner; `original_sizes` B x (H, W). Losses, predictions and truths: `lightning_modules/base/pixel_task.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from contracts.records import IGNORE_INDEX, DataSpec, Record
from lightning_modules.augment.augment import Augment
from lightning_modules.augment.images import decode_semantic
from lightning_modules.base.pixel_task import PixelConfig, PixelTask, encode_label_map
from lightning_modules.base.task import Batch, Example, Prediction
from lightning_modules.blocks.pixels import stack, stack_images


class Task(PixelTask):
    """Scores as of `PixelTask`: `mean_iou` and three more."""

    @dataclass(frozen=True, kw_only=True)
    class Config(PixelConfig):
        """Pictures are letterboxed into the square."""

    config: Config

    def __init__(self, config: Config, data: DataSpec):
        super().__init__(config, data)
        self._augment = Augment(config.augment, size=config.image_size, mode="letterbox")

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

    # tensors to predictions

    def _predictions(self, logits: Tensor, batch: Batch) -> list[Prediction]:
        out: list[Prediction] = []
        for scores, size, original in zip(logits.float(), batch["sizes"], batch["original_sizes"], strict=True):
            content = scores[None, :, : int(size[0]), : int(size[1])]
            resized = F.interpolate(content, size=tuple(original), mode="bilinear", align_corners=False)
            label_map = resized[0].argmax(dim=0).to(torch.uint8).cpu().numpy()
            out.append({"label_map": encode_label_map(label_map)})
        return out
