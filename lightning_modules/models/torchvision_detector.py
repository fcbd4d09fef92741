"""torchvision's whole detectors by name, from the weights that it publishes for COCO: Faster R-CNN (1506.01497,
1612.03144, v2 2111.11429), RetinaNet (1708.02002, v2 1912.02424) and SSD300 (1512.02325).

See `blocks/rcnn.py` and `blocks/dense.py` for inputs and outputs, `blocks/torchvision_detectors.py` for what is loaded.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from lightning_modules.base.families import DetectorSpec
from lightning_modules.blocks.rcnn import Detection, Losses, Sizes, Target
from lightning_modules.blocks.torchvision_dense import TorchvisionRetinaNet, TorchvisionSSD
from lightning_modules.blocks.torchvision_detectors import DetectorName, TorchvisionConfig, TorchvisionRCNN


@dataclass(frozen=True, kw_only=True)
class Config(TorchvisionConfig):
    """
    Attributes:
        architecture: by torchvision's name. Its COCO AP: fasterrcnn_resnet50_fpn 37.0, _v2 46.7, the one on MobileNet
            for images of 320 px 22.8, retinanet_resnet50_fpn 36.4, _v2 41.5, ssd300_vgg16 25.1.
    """

    architecture: DetectorName = "fasterrcnn_resnet50_fpn"


class Model(nn.Module):
    """Boxes with class and score. `Model(config, spec)` is one of the classes below, as `pathlib.Path` is: so every
    architecture has its backbone as the part `backbone`.

    Raises:
        ConfigError: published weights that cannot be had; an image size that the architecture cannot take.
        DataError: a file that does not hold this architecture's weights.
    """

    spec_class: ClassVar[type] = DetectorSpec

    def __new__(cls, config: Config | None = None, spec: DetectorSpec | None = None) -> Model:
        if cls is Model and config is not None:  # a copy is made of the class itself, and of no settings
            cls = next(kind for family, kind in _KINDS.items() if config.name.startswith(family))
        return super().__new__(cls)

    def forward(
        self,
        images: Tensor | Sequence[Tensor],
        targets: list[Target] | None = None,
        *,
        sizes: Sizes | None = None,
        detect: bool = False,
    ) -> tuple[Losses, list[Detection]]:
        """Of the class below that it is."""
        raise NotImplementedError


class _FasterRCNN(TorchvisionRCNN, Model):
    def __init__(self, config: Config, spec: DetectorSpec):
        super().__init__(config, spec.num_foreground_classes)


class _RetinaNet(TorchvisionRetinaNet, Model):
    def __init__(self, config: Config, spec: DetectorSpec):
        super().__init__(config, spec.num_foreground_classes, spec.image_size)


class _SSD(TorchvisionSSD, Model):
    def __init__(self, config: Config, spec: DetectorSpec):
        super().__init__(config, spec.num_foreground_classes, spec.image_size)


_KINDS: dict[str, type[Model]] = {"fasterrcnn": _FasterRCNN, "retinanet": _RetinaNet, "ssd300": _SSD}
