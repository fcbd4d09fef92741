"""Feature pyramid (1612.03144) on top of a backbone, in the form that torchvision's detectors read.

Shapes: maps (B, C_level, H/s, W/s) -> one map (B, channels, H/s, W/s) for each chosen level, s = 4, 8, 16, 32.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence

from torch import Tensor, nn
from torchvision.ops import FeaturePyramidNetwork

from contracts.errors import ConfigError
from lightning_modules.blocks.backbones import LEVELS


def check_levels(levels: Sequence[str], where: str = "model.levels") -> None:
    """Raise ConfigError for a level that does not exist, twice, not in order, or after a gap."""
    if tuple(levels) not in [LEVELS[i:j] for i in range(len(LEVELS)) for j in range(i + 1, len(LEVELS) + 1)]:
        raise ConfigError(
            "wrong pyramid levels",
            value=tuple(levels),
            where=where,
            allowed=f"one or more of {', '.join(LEVELS)} that follow each other",
        )


class Pyramid(nn.Module):
    """A backbone's maps c2..c5 -> the maps of `levels`. With one level, that map alone carries what the deeper ones add
    from above.

    Args:
        in_channels: of the backbone's maps, by level.
        levels: the maps that come out, finest first; the pyramid is built from the finest of them up to c5.
        channels: of every map that comes out; torchvision reads it as `out_channels`.

    Raises:
        ConfigError: a level that does not exist, twice, not in order, or after a gap.
    """

    def __init__(self, in_channels: Mapping[str, int], levels: Sequence[str], channels: int):
        super().__init__()
        check_levels(levels)
        self.levels = tuple(levels)
        self.inputs = LEVELS[LEVELS.index(self.levels[0]) :]
        self.pyramid = FeaturePyramidNetwork([in_channels[level] for level in self.inputs], channels)
        self.out_channels = channels

    def forward(self, maps: Mapping[str, Tensor]) -> OrderedDict[str, Tensor]:
        pyramid = self.pyramid(OrderedDict((level, maps[level]) for level in self.inputs))
        return OrderedDict((level, pyramid[level]) for level in self.levels)
