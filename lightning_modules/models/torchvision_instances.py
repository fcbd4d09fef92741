"""torchvision's whole Mask R-CNN by name (1703.06870, v2 2111.11429), from the weights that it publishes for COCO.

See `blocks/rcnn.py` for inputs and outputs, `blocks/torchvision_detectors.py` for what is loaded.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from lightning_modules.base.families import InstanceSegmenterSpec
from lightning_modules.blocks.torchvision_detectors import InstanceSegmenterName, TorchvisionConfig, TorchvisionRCNN


@dataclass(frozen=True, kw_only=True)
class Config(TorchvisionConfig):
    """
    Attributes:
        architecture: by torchvision's name. Its COCO AP of boxes and masks: maskrcnn_resnet50_fpn 37.9 and 34.6, _v2
            47.4 and 41.8.
    """

    architecture: InstanceSegmenterName = "maskrcnn_resnet50_fpn"


class Model(TorchvisionRCNN):
    """Boxes with class, score and mask.

    Raises:
        ConfigError: published weights that cannot be had.
        DataError: a file that does not hold this architecture's weights.
    """

    spec_class: ClassVar[type] = InstanceSegmenterSpec

    def __init__(self, config: Config, spec: InstanceSegmenterSpec):
        super().__init__(config, spec.num_foreground_classes)
