"""A small classifier that averages what it finds over all places, so that two things make twice as much as one.

Shapes: images (B, 3, H, W) uint8 -> logits (B, C) float32.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

from torch import Tensor, nn

from contracts.ranges import COUNT, check_ranges
from lightning_modules.base.families import ClassifierSpec
from lightning_modules.blocks.norms import NormName, own_norm
from lightning_modules.blocks.pixels import PixelNorm


@dataclass(frozen=True, kw_only=True)
class Config:
    """`width`: channels of the first map."""

    width: int = 16
    norm: NormName = "batch"

    def __post_init__(self) -> None:
        check_ranges(self, width=COUNT)


class Model(nn.Module):
    spec_class: ClassVar[type] = ClassifierSpec

    def __init__(self, config: Config, spec: ClassifierSpec):
        super().__init__()
        channels = [3, config.width, 2 * config.width]
        layers = [
            layer
            for before, after in pairwise(channels)
            for layer in (
                nn.Conv2d(before, after, 3, stride=2, padding=1),
                own_norm(config.norm, after),
                nn.ReLU(),
            )
        ]
        self.pixel_norm = PixelNorm()
        self.backbone = nn.Sequential(*layers)
        self.classify = nn.Sequential(nn.Linear(channels[-1], 32), nn.ReLU(), nn.Linear(32, spec.num_classes))

    def forward(self, images: Tensor) -> Tensor:
        features = self.backbone(self.pixel_norm(images)).float()
        return self.classify(features.mean(dim=(2, 3)))
