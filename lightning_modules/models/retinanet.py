"""RetinaNet (1708.02002): a feature pyramid, two towers of convolutions that all its maps share, and the focal loss.
See `blocks/dense.py` for inputs and outputs.

The paper: levels c3, c4, c5 with P6 and P7, 256 channels, 9 anchors a place, 201,600 of them at 800 x 1,344 px. Anchors
match from an IoU of 0.5 on and are background below 0.4, weights of the deltas are 1. An object that no anchor reaches
0.5 with takes its best ones, as in torchvision; Detectron takes those below 0.4 for background all the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor, nn
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.retinanet import RetinaNetHead
from torchvision.ops.feature_pyramid_network import LastLevelP6P7

from contracts.errors import ConfigError
from contracts.ranges import AMOUNT, COUNT, POSITIVE, Range, check_ranges
from lightning_modules.base.families import DetectorSpec
from lightning_modules.blocks.backbones import LEVELS, build_backbone
from lightning_modules.blocks.dense import DenseConfig
from lightning_modules.blocks.dense_kinds import FocalDetector
from lightning_modules.blocks.fpn import Pyramid, check_levels
from lightning_modules.blocks.norms import group_norm
from lightning_modules.ops.box_coding import UNIT

OCTAVES = tuple(2 ** (i / 3) for i in range(3))
ANCHOR_STRIDES = 4  # the paper's smallest anchor of a level, in strides of it: 32 px on c3


@dataclass(frozen=True, kw_only=True)
class Config(DenseConfig):
    """Defaults suit images of 96 to 160 px; COCO at 800 px wants `p6_p7`, 256 channels and `tower_norm: none`.

    Attributes:
        levels: maps with anchors, finest first, without a gap.
        p6_p7: two more maps behind c5, of strides 64 and 128.
        channels: of each map, and of the towers.
        num_convs: 3x3 convolutions of each tower, 1 to 4 (the paper: 4).
        tower_norm: behind each of them: none (the paper), or group norm (1803.08494). Weights start at 0.01, so that
            without it the first logits of these defaults differ by 0.0003 between places, with it by 0.15: a few
            hundred steps are too few for the paper's.
        anchors: sides of the anchors as fractions of the image size, finest level first; each level takes an equal
            share of them. None: the paper's 4, 5.04 and 6.35 strides of each level.
        aspect_ratios: height / width of the anchors of each size.
        focal_alpha: weight of the true class, 0 to 1, 1 - alpha being that of all others; -1: both 1.
        focal_gamma: how much less an anchor counts that is judged well, 0 or more; 0 is cross-entropy.
        box_beta: smooth L1 of the deltas is quadratic below it (Detectron: 0.11); 0: L1, as torchvision has it.
    """

    levels: tuple[str, ...] = ("c3", "c4", "c5")
    p6_p7: bool = False
    channels: int = 64
    num_convs: int = 4
    tower_norm: Literal["none", "group"] = "group"
    anchors: tuple[float, ...] | None = None
    aspect_ratios: tuple[float, ...] = (0.5, 1.0, 2.0)
    focal_alpha: float = 0.25
    focal_gamma: float = 2.0
    box_beta: float = 0.11

    def __post_init__(self) -> None:
        super().__post_init__()
        check_ranges(
            self,
            channels=COUNT,
            num_convs=Range(1, 4),
            anchors=POSITIVE,
            aspect_ratios=POSITIVE,
            focal_alpha=Range(-1, 1),
            focal_gamma=AMOUNT,
            box_beta=AMOUNT,
        )
        if -1 < self.focal_alpha < 0:
            raise ConfigError(
                "no weight", value=self.focal_alpha, where="model.focal_alpha", allowed="0 to 1, or -1 for none"
            )
        check_levels(self.levels)
        if self.p6_p7 and self.levels[-1] != "c5":
            raise ConfigError(
                "P6 and P7 follow c5", value=self.levels, where="model.levels", fix="add c5, or set p6_p7: false"
            )
        if not self.aspect_ratios:
            raise ConfigError("aspect_ratios is empty", where="model.aspect_ratios", allowed="one or more")
        num_maps = len(self.strides)
        if self.anchors is not None and (not self.anchors or len(self.anchors) % num_maps):
            raise ConfigError(
                "the anchors cannot be shared out among the levels",
                value=self.anchors,
                where="model.anchors",
                allowed=f"a number of sizes that {num_maps} levels divide",
            )

    @property
    def strides(self) -> tuple[int, ...]:
        """Pixels between two places of each map with anchors."""
        first = LEVELS.index(self.levels[0]) + 2
        return tuple(2 ** (first + i) for i in range(len(self.levels) + 2 * self.p6_p7))

    def sides(self, image_size: int) -> list[tuple[float, ...]]:
        """The anchors' sides on each map in pixels."""
        if self.anchors is None:
            return [tuple(ANCHOR_STRIDES * stride * octave for octave in OCTAVES) for stride in self.strides]
        share = len(self.anchors) // len(self.strides)
        sides = [fraction * image_size for fraction in self.anchors]
        return [tuple(sides[i : i + share]) for i in range(0, len(sides), share)]


class Neck(nn.Module):
    """A backbone's maps -> those with anchors, finest first, all of one width."""

    def __init__(self, config: Config, in_channels: Mapping[str, int]):
        super().__init__()
        self.pyramid = Pyramid(in_channels, config.levels, config.channels)
        self.extra: nn.Module | None = None
        if config.p6_p7:
            self.extra = LastLevelP6P7(in_channels["c5"], config.channels)
            self.extra.use_P5 = False  # the paper's P6 is made of c5, whatever its width

    def forward(self, maps: Mapping[str, Tensor]) -> list[Tensor]:
        out = list(self.pyramid(maps).values())
        return out if self.extra is None else self.extra(out, [maps["c5"]], [])[0]


def build_head(config: Config, num_anchors: int, num_classes: int) -> RetinaNetHead:
    """torchvision's, whose towers always have four convolutions, cut. Its last layer starts with a bias of -4.595, a
    probability of 0.01 of every class at every anchor: all must start so, or background alone is the first loss."""
    norm = group_norm if config.tower_norm == "group" else None
    head = RetinaNetHead(config.channels, num_anchors, num_classes, norm_layer=norm)
    for part in (head.classification_head, head.regression_head):
        part.conv = part.conv[: config.num_convs]
    return head


class Model(FocalDetector):
    """Boxes with class and score."""

    spec_class: ClassVar[type] = DetectorSpec
    config: Config

    def __init__(self, config: Config, spec: DetectorSpec):
        sides = config.sides(spec.image_size)
        backbone = build_backbone(config.backbone, pretrained=config.pretrained, norm=config.norm)
        super().__init__(
            config,
            backbone=backbone,
            neck=Neck(config, backbone.channels),
            head=build_head(config, len(sides[0]) * len(config.aspect_ratios), spec.num_foreground_classes),
            box_weights=UNIT,
            box_beta=config.box_beta,
        )
        self.anchor_generator = AnchorGenerator(tuple(sides), (config.aspect_ratios,) * len(sides))

    @property
    def focal(self) -> tuple[float, float]:
        return self.config.focal_alpha, self.config.focal_gamma

    def anchors(self, images: Tensor, maps: list[Tensor]) -> list[Tensor]:
        """torchvision's own call divides the image by the map, which is not the stride where a map was rounded up."""
        self.anchor_generator.set_cell_anchors(maps[0].dtype, maps[0].device)
        strides = [[maps[0].new_tensor(stride)] * 2 for stride in self.config.strides]
        return self.anchor_generator.grid_anchors([list(one.shape[-2:]) for one in maps], strides)
