"""Segmentation without any downsampling: 3x3 convolutions at the image's own resolution, then classes.

No paper: the first idea that courses present and drop, because every layer costs as much as the first and the field of
view grows by two pixels a layer. Dilated convolutions (1511.07122) widen that view at the same cost.

Shapes: images (B, 3, H, W) uint8 of any sides -> logits (B, K, H, W) float32, K classes with background. A layer of
C_in to C_out channels costs 2 * 9 * C_in * C_out * H * W FLOPs (2 a multiply-add).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from contracts.errors import ConfigError
from contracts.ranges import COUNT, check_ranges
from lightning_modules.base.families import SegmenterSpec
from lightning_modules.blocks.norms import NormName, own_norm
from lightning_modules.blocks.pixels import PixelNorm


@dataclass(frozen=True, kw_only=True)
class Config:
    """
    Attributes:
        widths: channels of each 3x3 convolution, the first layer's first.
        dilations: pixels between the taps of each 3x3 convolution, as many as `widths`; empty: 1 everywhere.
            [1, 2, 4, 8, 16, 1] sees 65 pixels where six plain layers see 13, at the same cost.
        norm: which statistics the norms use (`blocks/norms.py`), "batch", "sync" or "group".

    Raises:
        ConfigError: numbers out of range, no layer, as many dilations as there are not layers, or norm "frozen".
    """

    widths: tuple[int, ...] = (32, 32, 32, 32, 32, 32)
    dilations: tuple[int, ...] = ()
    norm: NormName = "batch"

    def __post_init__(self) -> None:
        check_ranges(self, widths=COUNT, dilations=COUNT)
        if not self.widths:
            raise ConfigError("a network without layers", value=self.widths, where="widths", allowed="one or more")
        if self.dilations and len(self.dilations) != len(self.widths):
            raise ConfigError(
                "every layer needs its dilation",
                value={"widths": list(self.widths), "dilations": list(self.dilations)},
                where="dilations",
                allowed=f"{len(self.widths)} numbers, one for each of widths",
                fix="leave dilations out for 1 everywhere",
            )
        if self.norm == "frozen":
            raise ConfigError(
                "nothing here is pretrained, so that there are no statistics to freeze",
                value=self.norm,
                where="norm",
                allowed="batch, sync, group",
            )

    @property
    def layer_dilations(self) -> tuple[int, ...]:
        """One number for each of `widths`."""
        return self.dilations or (1,) * len(self.widths)

    @property
    def receptive_field(self) -> int:
        """Side in pixels of the square that the logits of its middle pixel depend on: 1 + 2 * (sum of dilations)."""
        return 1 + 2 * sum(self.layer_dilations)


class Model(nn.Module):
    """A `Segmenter` (`base/families.py`)."""

    spec_class: ClassVar[type] = SegmenterSpec

    def __init__(self, config: Config, spec: SegmenterSpec):
        super().__init__()
        self.pixel_norm = PixelNorm()
        layers: list[nn.Module] = []
        before = 3
        for width, dilation in zip(config.widths, config.layer_dilations, strict=True):
            convolution = nn.Conv2d(before, width, 3, padding=dilation, dilation=dilation, bias=False)
            nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
            layers += [convolution, own_norm(config.norm, width), nn.ReLU(inplace=True)]
            before = width
        self.backbone = nn.Sequential(*layers)
        self.scores = nn.Conv2d(before, spec.num_classes, 1)

    def forward(self, images: Tensor) -> Tensor:
        features = self.backbone(self.pixel_norm(images))
        # Float32 from here: bf16 logits make ties of neighbouring classes.
        with torch.autocast(images.device.type, enabled=False):
            return self.scores(features.float())  # type: ignore[no-any-return]
