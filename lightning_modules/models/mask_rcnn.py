"""Mask R-CNN (1703.06870), torchvision's parts on a backbone of ours. See `blocks/rcnn.py` for inputs and outputs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torchvision.models.detection.mask_rcnn import MaskRCNN, MaskRCNNHeads, MaskRCNNPredictor

from contracts.errors import ConfigError
from contracts.ranges import COUNT, check_ranges
from lightning_modules.base.families import InstanceSegmenterSpec
from lightning_modules.blocks.detectors import RCNNConfig, detector_arguments, rcnn_backbone, roi_pool
from lightning_modules.blocks.rcnn import RCNN


@dataclass(frozen=True, kw_only=True)
class Config(RCNNConfig):
    """`mask_channels` are those of each convolution of the mask head (the paper: four of 256); masks are predicted
    at twice `mask_roi_size`."""

    mask_channels: tuple[int, ...] = (64, 64)
    mask_roi_size: int = 14

    def __post_init__(self) -> None:
        super().__post_init__()
        check_ranges(self, mask_channels=COUNT, mask_roi_size=COUNT)
        if not self.mask_channels:
            raise ConfigError("mask_channels is empty", allowed="one number for each convolution")


class Model(RCNN):
    """Boxes with class, score and mask."""

    spec_class: ClassVar[type] = InstanceSegmenterSpec

    def __init__(self, config: Config, spec: InstanceSegmenterSpec):
        backbone, last = rcnn_backbone(config), config.mask_channels[-1]
        detector = MaskRCNN(
            **detector_arguments(config, backbone.channels, spec),
            mask_roi_pool=roi_pool(config, config.mask_roi_size, spec.image_size),
            mask_head=MaskRCNNHeads(config.channels, list(config.mask_channels), dilation=1),
            mask_predictor=MaskRCNNPredictor(last, last, spec.num_foreground_classes + 1),
        )
        super().__init__(config, backbone, detector)
