"""Image classification: a backbone, and either its last map averaged over all places and one linear layer
(1512.03385), or the three fully connected layers of VGG (1409.1556).

Shapes: images (B, 3, H, W) uint8 -> logits (B, C) float32, C classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
import torchvision
from torch import Tensor, nn

from contracts.ranges import COUNT, Range, check_ranges
from lightning_modules.base.families import ClassifierSpec
from lightning_modules.blocks.backbones import BackboneName, _state_dict, build_backbone, check_backbone
from lightning_modules.blocks.norms import NormName
from lightning_modules.blocks.pixels import PixelNorm

_VGG_SIDE, _VGG_CHANNELS, _VGG_DROPOUT = 7, 4096, 0.5
_FC6, _FC7 = "classifier.0", "classifier.3"  # in torchvision's weights


@dataclass(frozen=True, kw_only=True)
class Config:
    """
    Attributes:
        backbone: see `blocks/backbones.py`.
        pretrained: ImageNet's weights of the backbone, and with backbone and head of VGG and `head_channels` 4096 of
            fc6 and fc7, too.
        norm: see `blocks/norms.py`.
        head: "pool": the last map's mean over all places, one linear layer. "vgg": that map averaged to 7 x 7 places
            (of 224 px it has these), fc6 and fc7 of `head_channels` with ReLU, and the linear layer; with the backbone
            vgg16 it is VGG-16.
        head_channels: of fc6 and fc7; "pool" has neither.
        dropout: before the last layer, and with "vgg" behind fc6, too; not set, 0 with "pool" and 0.5 with "vgg".
    """

    backbone: BackboneName = "small"
    pretrained: bool = False
    norm: NormName = "batch"
    head: Literal["pool", "vgg"] = "pool"
    head_channels: int = _VGG_CHANNELS
    dropout: float | None = None

    def __post_init__(self) -> None:
        check_ranges(self, dropout=Range(0, 1, open_high=True), head_channels=COUNT)
        check_backbone(self.backbone, pretrained=self.pretrained, norm=self.norm)


class Model(nn.Module):
    """Class scores of whole images. The linear layer of "pool" starts at zero, so that training starts from equal
    scores; those of "vgg" as in the paper, N(0, 0.01) and biases of 0."""

    spec_class: ClassVar[type] = ClassifierSpec

    def __init__(self, config: Config, spec: ClassifierSpec):
        super().__init__()
        self.pixel_norm = PixelNorm()
        self.backbone = build_backbone(config.backbone, pretrained=config.pretrained, norm=config.norm)
        channels = self.backbone.channels["c5"]
        is_vgg = config.head == "vgg"
        dropout = config.dropout if config.dropout is not None else _VGG_DROPOUT * is_vgg
        self.features = _vgg_features(channels, config.head_channels, dropout) if is_vgg else _Mean()
        self.dropout = nn.Dropout(dropout)
        self.classify = nn.Linear(config.head_channels if is_vgg else channels, spec.num_classes)
        nn.init.normal_(self.classify.weight, std=0.01) if is_vgg else nn.init.zeros_(self.classify.weight)
        nn.init.zeros_(self.classify.bias)
        if is_vgg and config.pretrained and config.backbone == "vgg16" and config.head_channels == _VGG_CHANNELS:
            self._load_vgg_features()

    def forward(self, images: Tensor) -> Tensor:
        features = self.features(self.backbone(self.pixel_norm(images))["c5"])
        with torch.autocast(images.device.type, enabled=False):  # bf16 scores make ties of near classes
            return self.classify(self.dropout(features.float()))

    def _load_vgg_features(self) -> None:
        weights = _state_dict("vgg16", torchvision.models.VGG16_Weights.DEFAULT)
        layers = [layer for layer in self.features.modules() if isinstance(layer, nn.Linear)]
        for name, layer in zip((_FC6, _FC7), layers, strict=True):
            layer.load_state_dict({part: weights[f"{name}.{part}"] for part in ("weight", "bias")})


class _Mean(nn.Module):
    def forward(self, maps: Tensor) -> Tensor:
        """(B, D, h, w) -> (B, D)."""
        return maps.mean(dim=(2, 3))


def _vgg_features(in_channels: int, channels: int, dropout: float) -> nn.Sequential:
    """(B, D, h, w) -> fc7 (B, `channels`), without its dropout."""
    layers = nn.Sequential(
        nn.AdaptiveAvgPool2d(_VGG_SIDE),
        nn.Flatten(),
        nn.Linear(in_channels * _VGG_SIDE**2, channels),
        nn.ReLU(inplace=True),
        nn.Dropout(dropout),
        nn.Linear(channels, channels),
        nn.ReLU(inplace=True),
    )
    for layer in layers:
        if isinstance(layer, nn.Linear):
            nn.init.normal_(layer.weight, std=0.01)
            nn.init.zeros_(layer.bias)
    return layers
