"""torchvision's detectors and ours of the same names, with weights that tell places and classes apart."""

from __future__ import annotations

from collections.abc import Iterable
from typing import get_args

import torch
import torchvision
from torch import Tensor, nn

from lightning_modules.base.families import DetectorSpec, InstanceSegmenterSpec
from lightning_modules.blocks.torchvision_detectors import DetectorName, InstanceSegmenterName, TorchvisionConfig
from lightning_modules.models import torchvision_detector, torchvision_instances

NAMES = (*get_args(DetectorName), *get_args(InstanceSegmenterName))
MOBILE = "fasterrcnn_mobilenet_v3_large_320_fpn"
NUM_CLASSES = 3


def config_of(name: str, **settings) -> TorchvisionConfig:
    return (torchvision_instances if "mask" in name else torchvision_detector).Config(architecture=name, **settings)


def build(name: str, num_classes: int = NUM_CLASSES, image_size: int = 0, **settings) -> nn.Module:
    torch.manual_seed(0)
    module, spec = torchvision_detector, DetectorSpec
    if "mask" in name:
        module, spec = torchvision_instances, InstanceSegmenterSpec
    sizes = {"num_foreground_classes": num_classes, "image_size": image_size or size_of(name)}
    return module.Model(config_of(name, **settings), spec(**sizes))


def size_of(name: str) -> int:
    return 300 if "ssd" in name else 128


def torchvisions(name: str, num_outputs: int, **settings) -> nn.Module:
    """torchvision's own, random, its norms neither new nor those of a network that blows up."""
    torch.manual_seed(1)
    model = torchvision.models.get_model(name, weights=None, weights_backbone=None, num_classes=num_outputs, **settings)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.2, 0.6)
            nn.init.normal_(module.bias, std=0.1)
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
            module.num_batches_tracked.fill_(7)
    for part in filter(None, (getattr(model, key, None) for key in ("head", "rpn", "roi_heads"))):
        louder(part.parameters())
    if "ssd" in name:  # its pixels are not divided by a deviation
        model.backbone.features[0].weight.data *= 0.02
    return model.eval()


def louder(parameters: Iterable[Tensor]) -> None:
    """torchvision starts them so small that every place and class has the same score."""
    for parameter in parameters:
        if parameter.ndim > 1:
            nn.init.normal_(parameter, std=parameter[0].numel() ** -0.5)
        elif parameter.mean() < -1:  # RetinaNet's prior
            nn.init.constant_(parameter, -1.0)


def sample(size: int) -> tuple[Tensor, list[dict[str, Tensor]]]:
    squares = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(5))  # of noise little is left in c5
    images = (255 * nn.functional.interpolate(squares, (size, size))).byte()
    # The last one is so thin that no anchor reaches an IoU of 0.5 with it.
    boxes = torch.tensor([[0.1, 0.05, 0.6, 0.5], [0.35, 0.4, 0.95, 0.9], [0.62, 0.07, 0.99, 0.12]]) * size
    masks = torch.zeros(3, size, size, dtype=torch.uint8)
    for mask, (x1, y1, x2, y2) in zip(masks, boxes.int().tolist(), strict=True):
        mask[y1:y2, x1:x2] = 1
    return images, [{"boxes": boxes, "labels": torch.tensor([1, 3, 2]), "ignored": torch.zeros(0, 4), "masks": masks}]


def all_but_heads(model: nn.Module, name: str) -> dict[str, Tensor]:
    heads = config_of(name).family.heads
    return {key: value for key, value in model.state_dict().items() if not key.startswith(heads)}


def unfilled(name: str, num_classes: int, **settings) -> nn.Module:
    with torch.device("meta"):
        return build(name, num_classes, **settings)
