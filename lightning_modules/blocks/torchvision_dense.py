"""torchvision's RetinaNet (1708.02002) and SSD300 (1512.02325) on `blocks/dense_kinds.py`. See
`blocks/dense.py` for inputs and outputs.

They are the networks, anchors, losses and numbers that the published weights were trained with, which differ from
those of `models/retinanet.py` and `models/ssd.py`: anchors in pixels and by torchvision's rounding, L1 or GIoU
(1902.09630) on boxes, SSD's scales for COCO, which are smaller, and pixels without a deviation.

Shapes: B images of A anchors each, C classes without background; deltas (B, A, 4), matches (B, A) int64.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.detection.ssd import SSDFeatureExtractorVGG
from torchvision.ops import generalized_box_iou_loss

from contracts.errors import ConfigError
from lightning_modules.blocks.backbones import Backbone
from lightning_modules.blocks.dense import DenseConfig
from lightning_modules.blocks.dense_kinds import FocalDetector, MultiboxDetector
from lightning_modules.blocks.detectors import BOX_WEIGHTS
from lightning_modules.blocks.rcnn import Losses, Target
from lightning_modules.blocks.torchvision_detectors import (
    NamedPyramid,
    TorchvisionConfig,
    build_torchvision,
    resnet_backbone,
)
from lightning_modules.ops.box_coding import UNIT, decode_boxes

RETINANET_TOO_SMALL = 64
SSD_SIZE = 300
SSD_MEAN = (0.48235, 0.45882, 0.40784)  # of RGB in 0..1; there is no deviation, as in Caffe


def _dense_config(config: TorchvisionConfig, candidates: int) -> DenseConfig:
    return DenseConfig(
        score_threshold=config.own("score_threshold"),
        nms_threshold=config.own("nms_threshold"),
        max_detections=config.own("max_detections"),
        candidates=candidates,
    )


class PyramidList(NamedPyramid):
    """A pyramid's maps as a list, finest first."""

    def forward(self, maps: Mapping[str, Tensor]) -> list[Tensor]:  # type: ignore[override]
        return list(super().forward(maps).values())


class TorchvisionRetinaNet(FocalDetector):
    """torchvision's own has a column of logits for background, which nothing ever matches. Of v2 boxes cost their GIoU
    loss, and the towers have group norms.

    Raises:
        ConfigError: images of 64 px or less. Of those P6 has one place, for which torch 2.14 (oneDNN, with AMX) gives
            the weights of P7 a gradient of whatever lay in the memory, in bf16 on a CPU.
    """

    def __init__(self, config: TorchvisionConfig, num_foreground_classes: int, image_size: int):
        if image_size <= RETINANET_TOO_SMALL:
            raise ConfigError(
                f"{config.name} takes images of more than {RETINANET_TOO_SMALL} px",
                value=image_size,
                where="task.image_size",
                allowed=f"more than {RETINANET_TOO_SMALL}; its weights know images of 800",
            )
        model = build_torchvision(config, num_foreground_classes)
        super().__init__(
            _dense_config(config, candidates=1000),
            backbone=resnet_backbone(model.backbone.body),
            neck=PyramidList(model.backbone.fpn, ("c3", "c4", "c5")),
            head=model.head,
            box_weights=UNIT,
            box_beta=0.0,
        )
        self.anchor_generator = model.anchor_generator
        self.is_giou = config.name.endswith("_v2")

    def anchors(self, images: Tensor, maps: list[Tensor]) -> list[Tensor]:
        """The distance of two places is image // map, as torchvision has it; of P6 and P7 that is a little less than
        64 and 128 where those do not divide the image."""
        self.anchor_generator.set_cell_anchors(maps[0].dtype, maps[0].device)
        grids = [list(one.shape[-2:]) for one in maps]
        strides = [
            [maps[0].new_tensor(side // cells) for side, cells in zip(images.shape[-2:], grid, strict=True)]
            for grid in grids
        ]
        out: list[Tensor] = self.anchor_generator.grid_anchors(grids, strides)
        return out

    def _losses(self, logits: Tensor, deltas: Tensor, anchors: Tensor, targets: list[Target]) -> Losses:
        losses = super()._losses(logits, deltas, anchors, targets)
        if self.is_giou:
            each = [self._giou(one, anchors, target) for one, target in zip(deltas, targets, strict=True)]
            losses["loss_box_reg"] = torch.stack(each).sum()
        return losses

    def _giou(self, deltas: Tensor, anchors: Tensor, target: Target) -> Tensor:
        """Of one image, the mean over its matched anchors."""
        matches = self.assign(anchors, target)
        chosen = torch.where(matches >= 0)[0]
        boxes = decode_boxes(deltas[chosen], anchors[chosen], self.box_weights)[:, 0]
        return generalized_box_iou_loss(boxes, target["boxes"][matches[chosen]], reduction="sum") / max(1, len(chosen))


def ssd_backbone(extractor: SSDFeatureExtractorVGG) -> Backbone:
    """VGG-16 in four stages: c2 and c3 behind pool2 and pool3, c4 being conv4_3 (512 channels, stride 8) and c5 fc7
    (1,024, stride 16), under the names of `models/ssd.py`."""
    layers, (*conv5, fully_connected) = extractor.features, extractor.extra[0]
    stages = [layers[:10], layers[10:17], layers[17:], nn.Sequential(*conv5, *fully_connected)]
    return Backbone(stages, (128, 256, 512, 1024))


class SSDNeck(nn.Module):
    """c4 divided by its norm over channels, times a learnt factor of each; c5; and four further maps."""

    def __init__(self, extractor: SSDFeatureExtractorVGG):
        super().__init__()
        self.scale, self.extras = extractor.scale_weight, extractor.extra[1:]

    def forward(self, maps: Mapping[str, Tensor]) -> list[Tensor]:
        out = [self.scale[:, None, None] * F.normalize(maps["c4"], dim=1), maps["c5"]]
        for extra in self.extras:
            out.append(extra(out[-1]))
        return out


class TorchvisionSSD(MultiboxDetector):
    """SSD300 alone.

    Raises:
        ConfigError: images of another size than 300 px.
    """

    def __init__(self, config: TorchvisionConfig, num_foreground_classes: int, image_size: int):
        if image_size != SSD_SIZE:
            raise ConfigError(
                f"ssd300_vgg16 takes images of {SSD_SIZE} px",
                value=image_size,
                where="task.image_size",
                allowed=str(SSD_SIZE),
                fix=f"set task.image_size: {SSD_SIZE}",
            )
        model = build_torchvision(config, num_foreground_classes + 1)
        super().__init__(
            _dense_config(config, candidates=400),
            backbone=ssd_backbone(model.backbone),
            neck=SSDNeck(model.backbone),
            head=model.head,
            box_weights=BOX_WEIGHTS,  # 1 / variances of 0.1 and 0.2
            box_beta=1.0,
            side=SSD_SIZE,
        )
        self.default_boxes = model.anchor_generator
        mean = 255 * torch.tensor(SSD_MEAN)
        self.pixel_norm.scale, self.pixel_norm.offset = torch.ones_like(mean), -mean
