"""Faster R-CNN (1506.01497), torchvision's parts on a backbone of ours. See `blocks/rcnn.py` for inputs and outputs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torchvision.models.detection.faster_rcnn import FasterRCNN

from lightning_modules.base.families import DetectorSpec
from lightning_modules.blocks.detectors import RCNNConfig, detector_arguments, rcnn_backbone
from lightning_modules.blocks.rcnn import RCNN


@dataclass(frozen=True, kw_only=True)
class Config(RCNNConfig):
    """Nothing beside the shared settings."""


class Model(RCNN):
    """Boxes with class and score."""

    spec_class: ClassVar[type] = DetectorSpec

    def __init__(self, config: Config, spec: DetectorSpec):
        backbone = rcnn_backbone(config)
        super().__init__(config, backbone, FasterRCNN(**detector_arguments(config, backbone.channels, spec)))
