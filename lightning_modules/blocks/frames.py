"""Clips for networks that read images: frames of all clips in a row for the CNN, then padded by clip for what reads
them in order. So no frame of padding is ever convolved, and none moves a norm's statistics.

Shapes: B clips, F frames of all of them, T of the longest; frames (F, 3, H, W), features (F, D) or (B, T, D).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from contracts.errors import ConfigError
from lightning_modules.blocks.backbones import Backbone, BackboneName, build_backbone, check_backbone
from lightning_modules.blocks.norms import NormName, group_norm
from lightning_modules.blocks.pixels import stack, stack_images

FrameBackbone = Literal["tiny", BackboneName]
_TINY = ((24, 2), (32, 2), (48, 2), (64, 1))  # channels, stride


class TinyBackbone(nn.Module):
    """Four convolutions for frames of 32 to 64 pixels: (F, 3, H, W) float -> {"c5": (F, 64, H/8, W/8)}.

    Its norms look at each frame by itself: the frames of a clip are too much alike to be a batch norm's sample.
    """

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = 3
        for out, stride in _TINY:
            layers += [nn.Conv2d(channels, out, 3, stride, 1, bias=False), group_norm(out), nn.ReLU(inplace=True)]
            channels = out
        self.layers = nn.Sequential(*layers)
        self.channels = {"c5": channels}
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        return {"c5": self.layers(images)}


def check_frame_backbone(name: str, *, pretrained: bool, norm: NormName) -> None:
    """As `check_backbone`, which knows no "tiny"."""
    if name != "tiny":
        check_backbone(name, pretrained=pretrained, norm=norm)
    elif pretrained or norm != "batch":
        raise ConfigError(
            "backbone 'tiny' is trained from scratch and has its own norms",
            value={"pretrained": pretrained, "norm": norm},
            where="backbone", allowed="pretrained: false, and no `norm`", fix="choose a backbone such as resnet18",
        )  # fmt: skip


class FrameHead(nn.Module):
    """The CNN's last map (F, C, h, w) -> D features of each frame: averaged in `pool_size` x `pool_size` fields, so
    that it stays known where something is, one linear layer and a ReLU."""

    def __init__(self, channels: int, features: int, *, pool_size: int, dropout: float):
        super().__init__()
        self.pool_size = pool_size
        self.project = nn.Linear(channels * pool_size**2, features)
        self.dropout = nn.Dropout(dropout)

    def forward(self, maps: Tensor) -> Tensor:
        fields = F.adaptive_avg_pool2d(maps, self.pool_size)
        return self.dropout(torch.relu(self.project(fields.flatten(1))))


def build_frame_backbone(name: FrameBackbone, *, pretrained: bool, norm: NormName) -> TinyBackbone | Backbone:
    """A CNN whose last map is `c5`, of `channels["c5"]` channels."""
    return TinyBackbone() if name == "tiny" else build_backbone(name, pretrained=pretrained, norm=norm)


def stack_clips(clips: Sequence[np.ndarray]) -> Tensor:
    """B arrays (T, H, W, 3) uint8 of one frame size, of any T -> (F, 3, H, W) uint8 with channels_last strides."""
    if len({clip.shape for clip in clips}) == 1:
        return stack(clips).flatten(0, 1).permute(0, 3, 1, 2)  # copies nothing where they were written to one block
    return stack_images([frame for clip in clips for frame in clip])


def by_clip(features: Tensor, lengths: Sequence[int]) -> Tensor:
    """(F, D), the frames of one clip after those of another -> (B, T, D), 0 behind a clip's end."""
    return pad_sequence(features.split(list(lengths)), batch_first=True)


def is_frame(lengths: Sequence[int], device: torch.device) -> Tensor:
    """(B, T) bool: False behind a clip's end."""
    counts = torch.tensor(lengths)
    return (torch.arange(int(counts.max())) < counts.unsqueeze(1)).to(device)
