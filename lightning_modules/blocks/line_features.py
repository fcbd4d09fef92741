"""CNNs that turn a picture of a line of text into a sequence of columns: the height is pooled away, the width less.

Shapes: B pictures (B, 1, H, W), H 32 -> (B, D, 1, T).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

from torch import Tensor, nn

LineFeatures = Literal["small", "vgg", "resnet"]
_Size = int | tuple[int, int]


def line_features(name: LineFeatures) -> tuple[nn.Module, int]:
    """The network and D.

    `small`: five layers, for a CPU; of a picture 96 wide T is 24. `vgg`: CRNN's (1507.05717). `resnet`: FAN's
    (1709.02054) as 1904.01906 has it. Of both T is 24 and 26 at a width of 100, D 512.
    """
    if name == "small":
        return _small(), 128
    return (_vgg() if name == "vgg" else _resnet()), 512


def _layer(before: int, after: int, size: _Size = 3, stride: _Size = 1, padding: _Size = 1) -> list[nn.Module]:
    convolution = nn.Conv2d(before, after, size, stride, padding, bias=False)
    return [convolution, nn.BatchNorm2d(after), nn.ReLU(inplace=True)]


def _small() -> nn.Module:
    channels = (1, 32, 64, 96, 128, 128)  # with strides in place of pooling, a third of the time
    layers: list[nn.Module] = []
    for i, (before, after) in enumerate(pairwise(channels)):
        # What tells letters of Arabic apart are dots of two pixels: the first layer sees more than one of them.
        size, padding = (5, 2) if i == 0 else (3, 1)
        layers += _layer(before, after, size, 2 if i < 2 else (2, 1), padding)
    return nn.Sequential(*layers)


def _vgg() -> nn.Module:
    def plain(before: int, after: int, size: int = 3, padding: int = 1) -> list[nn.Module]:
        return [nn.Conv2d(before, after, size, 1, padding), nn.ReLU(inplace=True)]

    narrow = nn.MaxPool2d((2, 1))
    return nn.Sequential(
        *plain(1, 64), nn.MaxPool2d(2), *plain(64, 128), nn.MaxPool2d(2),
        *plain(128, 256), *plain(256, 256), narrow,
        *_layer(256, 512), *_layer(512, 512), narrow, *plain(512, 512, 2, 0),
    )  # fmt: skip


class _Block(nn.Module):
    """Two convolutions and a shortcut (1512.03385, basic block), of stride 1."""

    def __init__(self, before: int, after: int):
        super().__init__()
        self.body = nn.Sequential(*_layer(before, after), *_layer(after, after)[:2])
        self.shortcut: nn.Module = nn.Identity()
        if before != after:
            self.shortcut = nn.Sequential(nn.Conv2d(before, after, 1, bias=False), nn.BatchNorm2d(after))
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(self.body(x) + self.shortcut(x))  # type: ignore[no-any-return]


def _stage(before: int, after: int, number: int) -> Sequence[nn.Module]:
    return [_Block(before if i == 0 else after, after) for i in range(number)]


def _resnet() -> nn.Module:
    return nn.Sequential(
        *_layer(1, 32), *_layer(32, 64), nn.MaxPool2d(2),
        *_stage(64, 128, 1), *_layer(128, 128), nn.MaxPool2d(2),
        *_stage(128, 256, 2), *_layer(256, 256), nn.MaxPool2d(2, (2, 1), (0, 1)),
        *_stage(256, 512, 5), *_layer(512, 512),
        *_stage(512, 512, 3), *_layer(512, 512, 2, (2, 1), (0, 1)), *_layer(512, 512, 2, 1, 0),
    )  # fmt: skip
