"""Image classification: a backbone, its last map averaged over all places, and one linear layer (1512.03385).

Shapes: images (B, 3, H, W) uint8 -> logits (B, C) float32, C classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from contracts.ranges import Range, check_ranges
from lightning_modules.base.families import ClassifierSpec
from lightning_modules.blocks.backbones import BackboneName, build_backbone, check_backbone
from lightning_modules.blocks.norms import NormName
from lightning_modules.blocks.pixels import PixelNorm


@dataclass(frozen=True, kw_only=True)
class Config:
    """`dropout` is that of the averaged features; `norm`: see `blocks/norms.py`."""

    backbone: BackboneName = "small"
    pretrained: bool = False
    norm: NormName = "batch"
    dropout: float = 0.0

    def __post_init__(self) -> None:
        check_ranges(self, dropout=Range(0, 1, open_high=True))
        check_backbone(self.backbone, pretrained=self.pretrained, norm=self.norm)


class Model(nn.Module):
    """Class scores of whole images; the linear layer starts at zero, so that training starts from equal scores."""

    spec_class: ClassVar[type] = ClassifierSpec

    def __init__(self, config: Config, spec: ClassifierSpec):
        super().__init__()
        self.pixel_norm = PixelNorm()
        self.backbone = build_backbone(config.backbone, pretrained=config.pretrained, norm=config.norm)
        self.dropout = nn.Dropout(config.dropout)
        self.classify = nn.Linear(self.backbone.channels["c5"], spec.num_classes)
        nn.init.zeros_(self.classify.weight)
        nn.init.zeros_(self.classify.bias)

    def forward(self, images: Tensor) -> Tensor:
        features = self.backbone(self.pixel_norm(images))["c5"].mean(dim=(2, 3))
        with torch.autocast(images.device.type, enabled=False):  # bf16 scores make ties of near classes
            return self.classify(self.dropout(features.float()))
