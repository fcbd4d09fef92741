"""Image backbones by name: four feature maps, each half the size of the one before.

Shapes: images (B, 3, H, W) float, normalised -> c2 (B, C2, H/4, W/4), c3 (.., H/8, W/8), c4 (.., H/16, W/16),
c5 (.., H/32, W/32). Where 32 does not divide them, sizes round up, but down with vgg16 and convnext_tiny, which do not
see the last rows and columns then: `pixels.pad_to_stride` makes all alike.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal, get_args

import torch
import torchvision
from torch import Tensor, nn

from contracts.errors import ConfigError
from lightning_modules.blocks.norms import NormName, set_norms

BackboneName = Literal[
    "small", "resnet18", "resnet34", "resnet50", "resnet101", "mobilenet_v3_large", "convnext_tiny", "vgg16"
]
LEVELS = ("c2", "c3", "c4", "c5")

# Where torchvision's `features` end each stage: the last layer of stride 4, 8, 16 and 32.
_FEATURE_ENDS = {
    "mobilenet_v3_large": (4, 7, 13, 17),
    "convnext_tiny": (2, 4, 6, 8),
    "vgg16": (10, 17, 24, 31),  # after pool2..pool5: the maps that FCN (1411.4038) reads
}
_WITHOUT_BATCH_NORM = ("convnext_tiny", "vgg16")


class Backbone(nn.Module):
    """Four stages in a row. `channels` maps "c2".."c5" to the number of channels of that map."""

    def __init__(self, stages: list[nn.Module], channels: tuple[int, int, int, int]):
        super().__init__()
        self.stages = nn.ModuleList(stages)
        self.channels: dict[str, int] = dict(zip(LEVELS, channels, strict=True))

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        maps: dict[str, Tensor] = {}
        x = images
        for level, stage in zip(LEVELS, self.stages, strict=True):
            x = maps[level] = stage(x)
        return maps


class _ResidualBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut (1512.03385, basic block)."""

    def __init__(self, in_channels: int, out_channels: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(out_channels)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or in_channels != out_channels:
            self.shortcut = nn.Sequential(
                nn.Conv2d(in_channels, out_channels, 1, stride, bias=False), nn.BatchNorm2d(out_channels)
            )

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.norm1(self.conv1(x)))
        return torch.relu(self.norm2(self.conv2(y)) + self.shortcut(x))


def _small() -> Backbone:
    """A ResNet-10 of 1.4 M parameters for images of 96-128 px on a CPU; trains from scratch in minutes."""
    channels = (48, 96, 160, 224)
    stem = nn.Sequential(
        nn.Conv2d(3, 32, 3, 2, 1, bias=False),
        nn.BatchNorm2d(32),
        nn.ReLU(inplace=True),
        _ResidualBlock(32, channels[0], 2),
    )
    stages: list[nn.Module] = [stem]
    stages += [_ResidualBlock(channels[i], channels[i + 1], 2) for i in range(3)]
    backbone = Backbone(stages, channels)
    for module in backbone.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return backbone


def _torchvision(name: str, pretrained: bool) -> Backbone:
    model = torchvision.models.get_model(name, weights=None)
    if pretrained:
        model.load_state_dict(_state_dict(name, torchvision.models.get_model_weights(name).DEFAULT))
    if name.startswith("resnet"):
        stem = nn.Sequential(model.conv1, model.bn1, model.relu, model.maxpool, model.layer1)
        stages: list[nn.Module] = [stem, model.layer2, model.layer3, model.layer4]
    else:
        ends = _FEATURE_ENDS[name]
        stages = [model.features[start:end] for start, end in zip((0, *ends), ends, strict=False)]
    return Backbone(stages, _count_channels(stages))


def _state_dict(name: str, weights: torchvision.models.WeightsEnum) -> dict[str, Tensor]:
    """Weights from the torch hub cache or the network.

    Raises:
        ConfigError: they are not cached and cannot be fetched, or the file is damaged.
    """
    folder = Path(torch.hub.get_dir()) / "checkpoints"
    try:
        return weights.get_state_dict(progress=False, check_hash=True)
    except (OSError, RuntimeError, EOFError) as error:  # URLError is an OSError; a wrong hash is a RuntimeError
        raise ConfigError(
            "pretrained weights are not available",
            value=name,
            where=f"{weights.url} ({type(error).__name__}: {error})",
            allowed=f"the file {folder / Path(weights.url).name}, or a network that reaches the address",
            fix="fetch the address on another machine and put the file there, or set pretrained: false",
        ) from error


def _count_channels(stages: list[nn.Module]) -> tuple[int, int, int, int]:
    x = torch.zeros(1, 3, 64, 64)
    counts = []
    with torch.no_grad():
        for stage in stages:
            training = stage.training
            x = stage.eval()(x)  # eval: the running averages of the norms must not see this image
            stage.train(training)
            counts.append(x.shape[1])
    return counts[0], counts[1], counts[2], counts[3]


def check_backbone(name: str, *, pretrained: bool, norm: NormName) -> None:
    """Raise ConfigError for an unknown backbone or settings that do not go together. Every model's Config calls it, so
    that `pipeline.settings.check` tells before anything is built."""
    names = get_args(BackboneName)
    if name not in names:
        raise ConfigError("unknown backbone", value=name, where="backbone", allowed=", ".join(names))
    if name == "small" and (pretrained or norm == "frozen"):
        raise ConfigError(
            "backbone 'small' is trained from scratch",
            value={"pretrained": pretrained, "norm": norm},
            where="backbone",
            allowed="pretrained: false and norm: batch, sync or group",
            fix="choose a torchvision backbone such as resnet18",
        )
    if pretrained and norm == "group":
        raise ConfigError(
            "pretrained weights belong to batch norms",
            value={"pretrained": pretrained, "norm": norm},
            where="norm",
            allowed="norm: batch, sync or frozen; or pretrained: false",
        )
    if norm != "batch" and name in _WITHOUT_BATCH_NORM:
        raise ConfigError("this backbone has no batch norms", value={"backbone": name, "norm": norm}, where="norm")


def build_backbone(name: str, *, pretrained: bool = False, norm: NormName = "batch") -> Backbone:
    """The backbone called `name`, its classifier removed.

    Args:
        name: one of `BackboneName`.
        pretrained: start from torchvision's ImageNet weights (not for "small", which is ours).
        norm: which statistics its norms use, see `blocks/norms.py`. "frozen" is for detectors with few images a
            device; of no use without pretrained weights, but allowed, because a checkpoint is loaded into a model
            built without them.

    Raises:
        ConfigError: unknown name, weights that cannot be had, or a combination that makes no sense.
    """
    check_backbone(name, pretrained=pretrained, norm=norm)
    backbone = _small() if name == "small" else _torchvision(name, pretrained)
    set_norms(backbone, norm)
    return backbone
