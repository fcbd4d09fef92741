"""LRCN: a CNN looks at each frame, an LSTM reads what it saw in order, and says at each frame what the clip shows
(1411.4389).

The paper: CaffeNet's fc6 (4096, dropout 0.9), one LSTM of 256, dropout 0.5, a linear layer at every step, the loss
averaged over all 16 steps, softmaxes averaged over steps, crops and clips; averaging is the task's matter here. Its
code flips and crops together or not at all, swaps two means in `classify_video.py`, and has one bias a gate where torch
has two.

`mode` has the controls beside it, with the same CNN and as many hidden units: "frame" sees nothing but the frame,
"pool" the mean of all frames so far, whatever their order. What an LSTM or "pool" says at a frame depends on no later
one, unless `bidirectional`.

Shapes: B clips, F frames of all of them, T of the longest, D features, H hidden units, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from contracts.errors import ConfigError
from contracts.ranges import COUNT, Range, check_ranges
from lightning_modules.base.families import FrameClassifierSpec
from lightning_modules.blocks.frames import FrameBackbone, FrameHead, build_frame_backbone, check_frame_backbone
from lightning_modules.blocks.language import RecurrentEncoder
from lightning_modules.blocks.norms import NormName
from lightning_modules.blocks.pixels import PixelNorm


@dataclass(frozen=True, kw_only=True)
class Config:
    """
    Attributes:
        backbone: "tiny" is for frames of 32 to 64 pixels.
        features: D, of a frame. pool_size: the CNN's last map is averaged in so many fields a side.
        mode: what reads the frames.
        hidden: H, of the LSTM in each direction, or of a layer in its place.
        layers: of the LSTM, one upon the other (five of 512 in 1503.08909).
        bidirectional: an LSTM that reads the whole clip, from its end too: not for predicting while something happens.
        feature_dropout: of a frame's features; dropout: before the classes.
    """

    backbone: FrameBackbone = "small"
    pretrained: bool = False
    norm: NormName = "batch"
    features: int = 256
    pool_size: int = 2
    mode: Literal["lstm", "pool", "frame"] = "lstm"
    hidden: int = 256
    layers: int = 1
    bidirectional: bool = False
    feature_dropout: float = 0.2
    dropout: float = 0.5

    def __post_init__(self) -> None:
        counts = dict.fromkeys(("features", "pool_size", "hidden", "layers"), COUNT)
        below_one = Range(0, 1, open_high=True)
        check_ranges(self, feature_dropout=below_one, dropout=below_one, **counts)
        check_frame_backbone(self.backbone, pretrained=self.pretrained, norm=self.norm)
        if self.mode != "lstm" and (self.bidirectional or self.layers > 1):
            raise ConfigError(
                "only an LSTM has directions and layers",
                value={"mode": self.mode, "bidirectional": self.bidirectional, "layers": self.layers},
                allowed="bidirectional: false and layers: 1, or mode: lstm",
            )


class Model(nn.Module):
    """A `FrameClassifier` (`base/families.py`)."""

    spec_class: ClassVar[type] = FrameClassifierSpec

    def __init__(self, config: Config, spec: FrameClassifierSpec):
        super().__init__()
        self.mode = config.mode
        self.normalise = PixelNorm()
        self.backbone = build_frame_backbone(config.backbone, pretrained=config.pretrained, norm=config.norm)
        self.frames = FrameHead(
            self.backbone.channels["c5"], config.features, pool_size=config.pool_size, dropout=config.feature_dropout
        )
        if config.mode == "lstm":
            self.reader: nn.Module = RecurrentEncoder(
                config.features, config.hidden, layers=config.layers, bidirectional=config.bidirectional,
                dropout=config.dropout,
            )  # fmt: skip
        else:
            self.reader = nn.Sequential(nn.Linear(config.features, config.hidden), nn.ReLU())
        self.dropout = nn.Dropout(config.dropout)
        self.classes = nn.Linear(config.hidden * (2 if config.bidirectional else 1), spec.num_classes)

    def encode(self, frames: Tensor) -> Tensor:
        """(F, 3, H, W) uint8 -> (F, D)."""
        return self.frames(self.backbone(self.normalise(frames))["c5"]).float()

    def classify(self, features: Tensor, lengths: Sequence[int]) -> Tensor:
        """(B, T, D) and B lengths -> logits (B, T, C) float32 at each frame."""
        if self.mode == "lstm":
            read, _ = self.reader(features, lengths)
        else:
            read = self.reader(_means_so_far(features) if self.mode == "pool" else features)
        return self.classes(self.dropout(read)).float()


def _means_so_far(features: Tensor) -> Tensor:
    """(B, T, D) -> of each frame and all before it."""
    counts = torch.arange(1, features.shape[1] + 1, device=features.device, dtype=features.dtype)
    return features.cumsum(dim=1) / counts.view(1, -1, 1)
