"""Fully convolutional network (1411.4038): class scores from c5, refined with c4 and c3, up-convolved to full size.

Shapes: images (B, 3, H, W) uint8 -> logits (B, K, H, W) float32, K classes with background. Images whose sides 32 does
not divide are padded below and right on the way, and the logits cropped. (The authors pad all images by 100 px, since
their fc6 does not pad; here it does.)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from contracts.ranges import COUNT, Range, check_ranges
from lightning_modules.base.families import SegmenterSpec
from lightning_modules.blocks.backbones import BackboneName, build_backbone, check_backbone
from lightning_modules.blocks.norms import NormName
from lightning_modules.blocks.pixels import PixelNorm, pad_to_stride


@dataclass(frozen=True, kw_only=True)
class Config:
    """`variant` is the stride of the finest map that is used: 32s (c5), 16s (and c4) or 8s (and c3).
    `head_channels` is the width of the two convolutions that stand for fc6 and fc7 (the paper: 4096)."""

    backbone: BackboneName = "small"
    pretrained: bool = False
    norm: NormName = "batch"
    variant: Literal["32s", "16s", "8s"] = "8s"
    head_channels: int = 256
    dropout: float = 0.1

    def __post_init__(self) -> None:
        check_ranges(self, head_channels=COUNT, dropout=Range(0, 1, open_high=True))
        check_backbone(self.backbone, pretrained=self.pretrained, norm=self.norm)


def bilinear_upsampling(channels: int, stride: int) -> nn.ConvTranspose2d:
    """A learnable transposed convolution that starts as bilinear interpolation by `stride`, each channel on its own.

    The kernel of 2 x stride and padding of stride / 2 keep pixel centres in place (`align_corners=False`).
    """
    layer = nn.ConvTranspose2d(channels, channels, 2 * stride, stride, stride // 2, groups=channels, bias=False)
    line = 1 - (torch.arange(2 * stride) - (stride - 0.5)).abs() / stride
    with torch.no_grad():
        layer.weight.copy_((line[:, None] * line[None, :]).expand_as(layer.weight))
    return layer


def _zero_scores(in_channels: int, num_classes: int) -> nn.Conv2d:
    layer = nn.Conv2d(in_channels, num_classes, 1)
    nn.init.zeros_(layer.weight)
    assert layer.bias is not None
    nn.init.zeros_(layer.bias)
    return layer


class Model(nn.Module):
    """FCN on a backbone of ours. The skips' scores start at zero, as in the paper, so an 8s starts as a 32s."""

    spec_class: ClassVar[type] = SegmenterSpec

    def __init__(self, config: Config, spec: SegmenterSpec):
        super().__init__()
        self.pixel_norm = PixelNorm()
        self.backbone = build_backbone(config.backbone, pretrained=config.pretrained, norm=config.norm)
        channels, width, num_classes = self.backbone.channels, config.head_channels, spec.num_classes
        self.head = nn.Sequential(
            nn.Conv2d(channels["c5"], width, 3, 1, 1),
            nn.ReLU(inplace=True),
            nn.Dropout(config.dropout),
            nn.Conv2d(width, width, 1),
            nn.ReLU(inplace=True),
            nn.Dropout(config.dropout),
            nn.Conv2d(width, num_classes, 1),
        )
        skips = {"32s": (), "16s": ("c4",), "8s": ("c4", "c3")}[config.variant]
        self.skip_scores = nn.ModuleDict({level: _zero_scores(channels[level], num_classes) for level in skips})
        self.skip_upsamplings = nn.ModuleDict({level: bilinear_upsampling(num_classes, 2) for level in skips})
        self.upsampling = bilinear_upsampling(num_classes, int(config.variant[:-1]))

    def forward(self, images: Tensor) -> Tensor:
        maps = self.backbone(pad_to_stride(self.pixel_norm(images)))
        scores = self.head(maps["c5"])
        for level, score in self.skip_scores.items():
            scores = self.skip_upsamplings[level](scores) + score(maps[level])
        # Float32 from here: the last layer sums few terms, and bf16 logits make ties of neighbouring classes.
        with torch.autocast(images.device.type, enabled=False):
            logits = self.upsampling(scores.float())
        return logits[:, :, : images.shape[-2], : images.shape[-1]]
