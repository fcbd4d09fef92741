"""A detector on one map of its backbone, without a pyramid: Faster R-CNN as its paper has it (1506.01497).

Shapes: images (B, 3, H, W) float, normalised; a map (B, C, H/s, W/s), s = 4, 8, 16, 32 for "c2" .. "c5".
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torchvision.ops import roi_pool

from lightning_modules.blocks.backbones import LEVELS, Backbone


class Trunk(nn.Module):
    """The stages of a backbone up to the map of one level, and nothing behind it.

    Args:
        pools_last: whether each stage ends with its pooling, as VGG-16's: then the convolutions of the next stage still
            see this level's stride, and the map is the last of them (of c4 conv5_3 after its ReLU).

    Attributes:
        channels: of the map, by its level.
    """

    def __init__(self, backbone: Backbone, level: str, *, pools_last: bool = False):
        super().__init__()
        end = LEVELS.index(level) + 1
        self.level, stages = level, list(backbone.stages[:end])
        self.channels = {level: backbone.channels[level]}
        if pools_last and end < len(LEVELS):
            following = backbone.stages[end]
            assert isinstance(following, nn.Sequential)
            stages.append(following[:-1])
            self.channels = {level: backbone.channels[LEVELS[end]]}
        self.stages = nn.Sequential(*stages)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        return {self.level: self.stages(images)}


class ChosenMap(nn.Module):
    """Stands where torchvision's detectors want a pyramid: hands one map on. `out_channels` as they read it."""

    def __init__(self, level: str, channels: int):
        super().__init__()
        self.level, self.out_channels = level, channels

    def forward(self, maps: Mapping[str, Tensor]) -> OrderedDict[str, Tensor]:
        return OrderedDict({self.level: maps[self.level]})


class RoIMaxPool(nn.Module):
    """RoIPool (1504.08083): the largest value in each of `size` x `size` bins, whose edges are rounded to cells."""

    def __init__(self, level: str, size: int):
        super().__init__()
        self.level, self.size, self.scale = level, size, 2.0 ** -(LEVELS.index(level) + 2)

    def forward(
        self, features: Mapping[str, Tensor], boxes: Sequence[Tensor], sizes: Sequence[tuple[int, int]]
    ) -> Tensor:
        """Maps, B x (P_i, 4) boxes in pixels -> (sum P, C, size, size); `sizes` are not needed."""
        # The operation's boxes end with their last pixel, ours with its edge.
        ends = torch.tensor([0.0, 0.0, 1.0, 1.0], device=boxes[0].device)
        return roi_pool(features[self.level], [box - ends for box in boxes], self.size, self.scale)
