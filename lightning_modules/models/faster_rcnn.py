"""Faster R-CNN (1506.01497), torchvision's parts on a backbone of ours. See `blocks/rcnn.py` for inputs and outputs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torchvision.models.detection.faster_rcnn import FasterRCNN

from lightning_modules.base.families import Family
from lightning_modules.blocks.detectors import RCNNConfig, detector_arguments
from lightning_modules.blocks.rcnn import RCNN


@dataclass(frozen=True, kw_only=True)
class Config(RCNNConfig):
    """Nothing beside the shared settings."""


class Model(RCNN):
    """Boxes of `num_classes` classes (background not counted) in images of about `image_size` px."""

    family: ClassVar[Family] = "detector"

    def __init__(self, config: Config, *, num_classes: int, image_size: int):
        super().__init__(FasterRCNN(**detector_arguments(config, num_classes=num_classes, image_size=image_size)))
