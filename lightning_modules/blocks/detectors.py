"""Settings that Faster and Mask R-CNN share, and torchvision's arguments made from them.

Defaults suit images of 96 to 160 px on a CPU; COCO at 800 px wants the paper's: levels c2..c5 with anchors of
32 to 512 px, 256 channels, heads of 1,024, 256 anchors and 512 proposals an image.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.ops import MultiScaleRoIAlign
from torchvision.ops.poolers import initLevelMapper

from contracts.errors import ConfigError
from contracts.ranges import COUNT, POSITIVE, SHARE, check_ranges
from lightning_modules.base.families import DetectorSpec, InstanceSegmenterSpec
from lightning_modules.blocks.backbones import LEVELS, Backbone, BackboneName, build_backbone, check_backbone
from lightning_modules.blocks.fpn import Pyramid, check_levels
from lightning_modules.blocks.norms import NormName
from lightning_modules.blocks.single_map import ChosenMap, Trunk
from lightning_modules.ops.box_coding import Weights

# Boxes from this side on, as a fraction of the image size, are read from c4: the paper's 224 px at its 800 px. The
# anchors scale with the image, so this must, too, or every box of a small image is read from the finest level.
CANONICAL_SIDE = 224 / 800
BOX_WEIGHTS: Weights = (10.0, 10.0, 5.0, 5.0)  # of the box head's deltas, so that they are about 1


@dataclass(frozen=True, kw_only=True)
class RCNNConfig:
    """Faster R-CNN (1506.01497) on a feature pyramid (1612.03144), or as in its paper on one map of the backbone:
    `pyramid: false`, `levels: [c4]`, `pooling: max`, with nine anchors, `aspect_ratios: [0.5, 1, 2]` of three sizes.

    Attributes:
        norm: which statistics the backbone's norms use (`blocks/norms.py`).
        levels: maps with anchors, finest first, without a gap: one for a single scale.
        pyramid: whether a feature pyramid makes them; without it the one level is read as the backbone gives it (of
            vgg16's stage c4 conv5_3, the last map of that stride).
        channels: of each level of the pyramid; unused without it.
        pooling: how a box is read: "align" (RoIAlign, 1703.06870), or "max" (RoIPool, 1504.08083, which rounds to the
            cells of the map) from one level.
        anchors: sides of the anchors as fractions of the image size, finest level first; each level takes an equal
            share of them.
        head_levels: those of `levels` that the heads read boxes from, the larger the box the coarser (None: all).
        aspect_ratios: height / width of the anchors of each size.
        rpn_batch, roi_batch: anchors and proposals sampled for the losses, per image.
        rpn_pre_nms_train, rpn_pre_nms_eval: best proposals kept per level before suppression.
        rpn_post_nms_train, rpn_post_nms_eval: proposals per image after it.
        box_head: width of the two fully connected layers.
        score_threshold: detections below it are dropped; low, because AP counts the whole curve.
    """

    backbone: BackboneName = "small"
    pretrained: bool = False
    norm: NormName = "batch"
    levels: tuple[str, ...] = ("c3", "c4")
    pyramid: bool = True
    channels: int = 64
    anchors: tuple[float, ...] = (0.15, 0.24, 0.38, 0.54)
    head_levels: tuple[str, ...] | None = None
    aspect_ratios: tuple[float, ...] = (1.0,)
    rpn_batch: int = 64
    rpn_pre_nms_train: int = 200
    rpn_pre_nms_eval: int = 200
    rpn_post_nms_train: int = 100
    rpn_post_nms_eval: int = 50
    rpn_nms_threshold: float = 0.7
    roi_batch: int = 32
    roi_size: int = 7
    pooling: Literal["align", "max"] = "align"
    box_head: int = 256
    score_threshold: float = 0.05
    nms_threshold: float = 0.5
    max_detections: int = 100

    def __post_init__(self) -> None:
        counts = ("channels", "rpn_batch", "roi_batch", "roi_size", "box_head", "max_detections")
        proposals = [f"rpn_{when}_nms_{phase}" for when in ("pre", "post") for phase in ("train", "eval")]
        thresholds = ("rpn_nms_threshold", "score_threshold", "nms_threshold")
        check_ranges(
            self,
            anchors=POSITIVE,
            aspect_ratios=POSITIVE,
            **dict.fromkeys([*counts, *proposals], COUNT),
            **dict.fromkeys(thresholds, SHARE),
        )
        if not self.anchors or len(self.anchors) % max(1, len(self.levels)):
            raise ConfigError(
                "the anchors cannot be shared out among the levels",
                value=self.anchors,
                where="model.anchors",
                allowed=f"a number of sizes that {len(self.levels)} levels divide",
            )
        if not self.aspect_ratios:
            raise ConfigError("aspect_ratios is empty", allowed="one or more, such as [0.5, 1, 2]")
        check_levels(self.levels)
        if self.head_levels is not None:
            check_levels(self.head_levels, where="model.head_levels")
            if not set(self.head_levels) <= set(self.levels):
                raise ConfigError(
                    "the heads cannot read a level that is not there",
                    value=self.head_levels,
                    where="model.head_levels",
                    allowed=f"levels of model.levels: {', '.join(self.levels)}",
                )
        if not self.pyramid and len(self.levels) > 1:
            raise ConfigError(
                "without a pyramid there is one level",
                value=self.levels,
                where="model.levels",
                allowed="one of c2, c3, c4, c5, such as [c4]",
                fix="or set pyramid: true",
            )
        if self.pooling == "max" and len(self.head_levels or self.levels) > 1:
            raise ConfigError(
                "pooling: max reads one level",
                value=self.head_levels or self.levels,
                where="model.pooling",
                allowed="pooling: align, or one head level, such as head_levels: [c4]",
            )
        check_backbone(self.backbone, pretrained=self.pretrained, norm=self.norm)


def rcnn_backbone(config: RCNNConfig) -> Backbone | Trunk:
    """The backbone, `channels` by level with it; of one without a pyramid no more than it needs."""
    backbone = build_backbone(config.backbone, pretrained=config.pretrained, norm=config.norm)
    return backbone if config.pyramid else Trunk(backbone, config.levels[0], pools_last=config.backbone == "vgg16")


def detector_arguments(
    config: RCNNConfig, in_channels: Mapping[str, int], spec: DetectorSpec | InstanceSegmenterSpec
) -> dict[str, Any]:
    """Keyword arguments of torchvision's `FasterRCNN` and `MaskRCNN` on a backbone with `in_channels` by level.

    What is a backbone to torchvision is the pyramid alone here: `RCNN` has the one before it.
    """
    pyramid: Pyramid | ChosenMap
    if config.pyramid:
        pyramid = Pyramid(in_channels, config.levels, config.channels)
    else:
        pyramid = ChosenMap(config.levels[0], in_channels[config.levels[0]])
    image_size = spec.image_size
    share = len(config.anchors) // len(config.levels)
    sizes = [fraction * image_size for fraction in config.anchors]
    level_sizes = tuple(tuple(sizes[i : i + share]) for i in range(0, len(sizes), share))
    return {
        "backbone": pyramid,
        "rpn_anchor_generator": AnchorGenerator(level_sizes, (config.aspect_ratios,) * len(config.levels)),
        "rpn_pre_nms_top_n_train": config.rpn_pre_nms_train,
        "rpn_pre_nms_top_n_test": config.rpn_pre_nms_eval,
        "rpn_post_nms_top_n_train": config.rpn_post_nms_train,
        "rpn_post_nms_top_n_test": config.rpn_post_nms_eval,
        "rpn_nms_thresh": config.rpn_nms_threshold,
        "box_roi_pool": roi_pool(config, config.roi_size, image_size),
        "box_head": TwoMLPHead(pyramid.out_channels * config.roi_size**2, config.box_head),
        "box_predictor": FastRCNNPredictor(config.box_head, spec.num_foreground_classes + 1),
        "bbox_reg_weights": BOX_WEIGHTS,
        "box_score_thresh": config.score_threshold,
        "box_nms_thresh": config.nms_threshold,
        "box_detections_per_img": config.max_detections,
    }


def roi_pool(config: RCNNConfig, size: int, image_size: int) -> MultiScaleRoIAlign:
    """RoIAlign (1703.06870) to `size` x `size` from the level that suits each box (1612.03144, eq. 1).

    torchvision infers the levels' strides from the image sizes of the first batch, which are those of the content: one
    wide image in its letterbox, and it reads the wrong places from then on. Here they are known.
    """
    levels, canonical = config.head_levels or config.levels, CANONICAL_SIDE * image_size
    pool = MultiScaleRoIAlign(list(levels), size, sampling_ratio=2, canonical_scale=canonical)  # type: ignore[arg-type]
    first = LEVELS.index(levels[0]) + 2  # c2 has stride 2 ** 2
    exponents = range(first, first + len(levels))
    pool.scales = [2.0**-exponent for exponent in exponents]
    pool.map_levels = initLevelMapper(exponents[0], exponents[-1], canonical_scale=canonical)  # type: ignore[arg-type]
    return pool
