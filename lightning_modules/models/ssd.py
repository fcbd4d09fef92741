"""SSD (1512.02325): default boxes of several shapes on maps of falling size, each map judged by a convolution of its
own. See `blocks/dense.py` for inputs and outputs.

`variant` ssd300 and ssd512 are the authors' (github.com/weiliu89/caffe, branch ssd): VGG-16 with fc6 and fc7 as
dilated convolutions, conv4_3 divided by its norm, 8,732 and 24,564 default boxes. `small` has c3, c4, c5 of any
backbone and two more maps: 1,524 boxes at 128 px. Default boxes are shares of the input, which is always square.

Not as the authors': fc6 and fc7 start at random, not from every fourth weight of VGG's; biases learn as fast as
weights; difficult objects are ignored regions, not positives; each image is divided by its own number of matched boxes
(`blocks/dense_losses.py`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.detection.anchor_utils import DefaultBoxGenerator
from torchvision.models.detection.ssd import SSDHead

from contracts.errors import ConfigError
from contracts.ranges import AMOUNT, POSITIVE, check_ranges
from lightning_modules.base.families import DetectorSpec
from lightning_modules.blocks.backbones import Backbone, build_backbone
from lightning_modules.blocks.dense import DenseConfig
from lightning_modules.blocks.dense_kinds import MultiboxDetector
from lightning_modules.blocks.detectors import BOX_WEIGHTS
from lightning_modules.blocks.pixels import STRIDE

CONV4_3_SCALE = 20.0  # a norm of 1 over 512 channels would be far below what the other maps have
ExtraLayer = tuple[int, int, int, int, int]


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Maps and default boxes of a variant.

    Attributes:
        levels: maps of the backbone. extras: of each further map the channels of its 1x1 convolution and those, kernel,
            stride and padding of the one behind.
        ratios: of each map, width / height of default boxes beside the two squares; each upright, too.
        scales: sides of the first square as shares of the input, one a map and one behind the last.
        steps: pixels between two places of each map; None: the input shared out evenly among them.
        image_size: the only one that it takes; None: any.
    """

    levels: tuple[str, ...]
    extras: tuple[ExtraLayer, ...]
    ratios: tuple[tuple[int, ...], ...]
    scales: tuple[float, ...]
    steps: tuple[int, ...] | None = None
    image_size: int | None = None


_HALVE = (128, 256, 3, 2, 1)
# In pixels, as `ssd_pascal.py` and `prior_box_layer.cpp` have them, which cut fractions of a pixel off. The paper's
# formula gives others.
_SIDES_300 = (30, 60, 111, 162, 213, 264, 315)
_SIDES_512 = (35, 76, 153, 230, 307, 384, 460, 537)
LAYOUTS = {
    "small": Layout(
        levels=("c3", "c4", "c5"),
        extras=((64, 128, 3, 2, 1), (64, 128, 3, 2, 1)),
        ratios=((2,), (2, 3), (2, 3), (2,), (2,)),
        scales=(0.25, 0.38, 0.52, 0.66, 0.85, 1.0),
    ),
    "ssd300": Layout(
        levels=("c4", "c5"),
        extras=((256, 512, 3, 2, 1), _HALVE, (128, 256, 3, 1, 0), (128, 256, 3, 1, 0)),
        ratios=((2,), (2, 3), (2, 3), (2, 3), (2,), (2,)),
        scales=tuple(side / 300 for side in _SIDES_300),
        steps=(8, 16, 32, 64, 100, 300),
        image_size=300,
    ),
    "ssd512": Layout(
        levels=("c4", "c5"),
        extras=((256, 512, 3, 2, 1), _HALVE, _HALVE, _HALVE, (128, 256, 4, 1, 1)),
        ratios=((2,), (2, 3), (2, 3), (2, 3), (2, 3), (2,), (2,)),
        scales=tuple(side / 512 for side in _SIDES_512),
        steps=(8, 16, 32, 64, 128, 256, 512),
        image_size=512,
    ),
}


@dataclass(frozen=True, kw_only=True)
class Config(DenseConfig):
    """
    Attributes:
        variant: small (any backbone, any image size), ssd300 or ssd512 (backbone vgg16, task.image_size 300 or 512).
        scales: sides of the default squares as shares of the image size, one a map from the finest on and one more
            behind the last, each larger than the one before: 6 of small, 7 of ssd300, 8 of ssd512. None: the variant's
            own, which are the authors' for VOC; theirs for COCO are smaller.
        negative_ratio: background boxes that count, the hardest of each image, per matched box; 0 or more.
    """

    score_threshold: float = 0.01
    candidates: int = 400
    nms_threshold: float = 0.45
    max_detections: int = 200
    variant: Literal["small", "ssd300", "ssd512"] = "small"
    scales: tuple[float, ...] | None = None
    negative_ratio: float = 3.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_ranges(self, scales=POSITIVE, negative_ratio=AMOUNT)
        if self.variant != "small" and self.backbone != "vgg16":
            raise ConfigError(
                f"{self.variant} is built on VGG-16",
                value=self.backbone,
                where="model.backbone",
                allowed="vgg16",
                fix="set model.backbone: vgg16, or model.variant: small, which takes any backbone",
            )
        wanted = len(self.layout.scales)
        if self.scales is not None and (len(self.scales) != wanted or list(self.scales) != sorted(set(self.scales))):
            raise ConfigError(
                "the scales do not fit the maps",
                value=self.scales,
                where="model.scales",
                allowed=f"{wanted} numbers, each larger than the one before",
            )

    @property
    def layout(self) -> Layout:
        return LAYOUTS[self.variant]


def dilated_vgg16(pretrained: bool) -> Backbone:
    """VGG-16 in four stages: c2 and c3 behind pool2 and pool3, c4 being conv4_3 (512 channels, stride 8) and c5 fc7
    (1,024, stride 16). pool3 rounds up, as Caffe does: 300 px have 38 places at conv4_3. pool5 is 3x3 without stride,
    which the dilation of fc6 makes up for."""
    layers = [layer for stage in build_backbone("vgg16", pretrained=pretrained).stages for layer in stage]  # type: ignore[attr-defined]
    layers[16].ceil_mode = True
    fully_connected = [
        nn.Conv2d(512, 1024, 3, padding=6, dilation=6),
        nn.ReLU(inplace=True),
        nn.Conv2d(1024, 1024, 1),
        nn.ReLU(inplace=True),
    ]
    _initialise(fully_connected)
    layers[30:] = [nn.MaxPool2d(3, 1, 1), *fully_connected]
    ends = (0, 10, 17, 23, len(layers))
    stages: list[nn.Module] = [nn.Sequential(*layers[a:b]) for a, b in pairwise(ends)]
    return Backbone(stages, (128, 256, 512, 1024))


def _initialise(layers: Sequence[nn.Module]) -> None:
    for layer in layers:
        if isinstance(layer, nn.Conv2d):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]


class Neck(nn.Module):
    """A backbone's maps -> those with default boxes, finest first. Their widths are `out_channels`.

    Args:
        is_scaled: divide the first map by its norm over channels at each place (1506.04579), times a learnt factor of
            each channel.
    """

    def __init__(self, layout: Layout, in_channels: Mapping[str, int], is_scaled: bool):
        super().__init__()
        self.levels = layout.levels
        self.out_channels = [in_channels[level] for level in layout.levels]
        self.scale = nn.Parameter(torch.full((self.out_channels[0],), CONV4_3_SCALE)) if is_scaled else None
        self.extras = nn.ModuleList()
        for narrow, wide, kernel, stride, padding in layout.extras:
            layers: list[nn.Module] = [
                nn.Conv2d(self.out_channels[-1], narrow, 1),
                nn.ReLU(inplace=True),
                nn.Conv2d(narrow, wide, kernel, stride, padding),
                nn.ReLU(inplace=True),
            ]
            _initialise(layers)
            self.extras.append(nn.Sequential(*layers))
            self.out_channels.append(wide)

    def forward(self, maps: Mapping[str, Tensor]) -> list[Tensor]:
        out = [maps[level] for level in self.levels]
        for extra in self.extras:
            out.append(extra(out[-1]))
        if self.scale is not None:
            out[0] = self.scale[:, None, None] * F.normalize(out[0], dim=1)
        return out


class Model(MultiboxDetector):
    """Boxes with class and score.

    Raises:
        ConfigError: an image size that the variant cannot take.
    """

    spec_class: ClassVar[type] = DetectorSpec
    config: Config

    def __init__(self, config: Config, spec: DetectorSpec):
        layout = config.layout
        if layout.image_size not in (None, spec.image_size):
            raise ConfigError(
                f"{config.variant} takes images of {layout.image_size} px",
                value=spec.image_size,
                where="task.image_size",
                allowed=str(layout.image_size),
                fix=f"set task.image_size: {layout.image_size}, or model.variant: small, which takes any size",
            )
        is_vgg = config.variant != "small"
        if is_vgg:
            backbone = dilated_vgg16(config.pretrained)
        else:
            backbone = build_backbone(config.backbone, pretrained=config.pretrained, norm=config.norm)
        neck = Neck(layout, backbone.channels, is_scaled=is_vgg)
        boxes = DefaultBoxGenerator(
            [list(ratios) for ratios in layout.ratios],
            scales=list(config.scales or layout.scales),
            steps=None if layout.steps is None else list(layout.steps),
            clip=False,  # it would make boxes of more than the image narrower, not cut them
        )
        super().__init__(
            config,
            backbone=backbone,
            neck=neck,
            head=SSDHead(neck.out_channels, boxes.num_anchors_per_location(), spec.num_foreground_classes + 1),
            box_weights=BOX_WEIGHTS,  # 1 / variances of 0.1 and 0.2
            box_beta=1.0,
            side=layout.image_size or -(-spec.image_size // STRIDE) * STRIDE,
        )
        self.default_boxes = boxes

    @property
    def negative_ratio(self) -> float:
        return self.config.negative_ratio
