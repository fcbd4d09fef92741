"""What the one-stage detectors on a grid share: the network, the assignment of objects to cells, and what is kept.

Shapes: B images (B, 3, H, W) uint8; S x S cells numbered row by row, K boxes and C scores a cell; targets of image i:
`boxes` (N, 4) float32, `labels` (N,) int64 in 1..F of F foreground classes, `ignored` (R, 4) float32. D detections.

As in YOLOv1 (1506.02640), fully connected layers say all cells' boxes and scores from the whole map, so an image has
one grid: over the square that it is letterboxed into. They need a map of one size, so the map is averaged to S x S
places as torchvision's VGG does before its own; where it has them already (112 px, c4, S = 7) that changes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from contracts.ranges import COUNT, SHARE, Range, check_ranges
from lightning_modules.base.families import DetectorSpec
from lightning_modules.blocks.backbones import LEVELS, BackboneName, build_backbone, check_backbone
from lightning_modules.blocks.fpn import check_levels
from lightning_modules.blocks.norms import NormName, own_norm
from lightning_modules.blocks.pixels import PixelNorm
from lightning_modules.ops.grid import CellObjects, assign_cells, cell_boxes
from lightning_modules.ops.suppression import suppress

Target = dict[str, Tensor]
Detection = dict[str, Tensor]
Losses = dict[str, Tensor]
Sizes = list[tuple[int, int]]

_SLOPE = 0.1  # of leaky ReLU below zero, 1506.02640, 2.2


@dataclass(frozen=True, kw_only=True)
class GridConfig:
    """Settings of a detector on a grid. Sizes of layers suit images of 96 to 160 px on a CPU.

    Attributes:
        backbone: one of `blocks/backbones.py`.
        pretrained: whether it starts from torchvision's ImageNet weights.
        norm: which statistics the norms use (`blocks/norms.py`).
        level: the backbone's map that is read, c2 to c5, of stride 4 to 32 px; deeper stages do not run.
        grid: cells in a row and rows, S; 1 or more (the paper: 7).
        conv_channels: of each 3x3 convolution between the map and the fully connected layers, each 1 or more.
        hidden: width of the fully connected layer before the last, 1 or more (the paper: 4,096).
        dropout: share of its outputs that are dropped in training, 0 or more and less than 1 (the paper: 0.5).
        score_threshold: detections at or below it are dropped, 0 to 1; low, because AP counts the whole curve.
        nms_threshold: of two boxes of one class that overlap by more (IoU, 0 to 1), the lower score is dropped.
        max_detections: kept of an image, the highest scores; 1 or more.
    """

    backbone: BackboneName = "small"
    pretrained: bool = False
    norm: NormName = "batch"
    level: Literal["c2", "c3", "c4", "c5"] = "c4"
    grid: int = 7
    conv_channels: tuple[int, ...] = (256, 256)
    hidden: int = 512
    dropout: float = 0.5
    score_threshold: float = 0.01
    nms_threshold: float = 0.5
    max_detections: int = 100

    def __post_init__(self) -> None:
        counts = ("grid", "conv_channels", "hidden", "max_detections")
        thresholds = ("score_threshold", "nms_threshold")
        check_ranges(
            self,
            dropout=Range(0, 1, open_high=True),
            **dict.fromkeys(counts, COUNT),
            **dict.fromkeys(thresholds, SHARE),
        )
        check_levels((self.level,), where="model.level")
        check_backbone(self.backbone, pretrained=self.pretrained, norm=self.norm)


class GridOutput(NamedTuple):
    """What the network says, float32: `boxes` (B, S * S, K, 4) in a coding of the head's, `confidence` (B, S * S, K),
    `scores` (B, S * S, C)."""

    boxes: Tensor
    confidence: Tensor
    scores: Tensor


class GridDetector(nn.Module):
    """A backbone, convolutions and two fully connected layers. Heads say what the numbers mean: `cell_losses` and
    `candidates`.

    Args:
        num_boxes: K. num_scores: C, as the head counts classes.
    """

    def __init__(self, config: GridConfig, spec: DetectorSpec, *, num_boxes: int, num_scores: int):
        super().__init__()
        self.config, self.image_size, self.num_boxes = config, spec.image_size, num_boxes
        self.pixel_norm = PixelNorm()
        self.backbone = build_backbone(config.backbone, pretrained=config.pretrained, norm=config.norm)
        channels = (self.backbone.channels[config.level], *config.conv_channels)
        layers: list[nn.Module] = []
        for before, after in pairwise(channels):
            layers += [nn.Conv2d(before, after, 3, padding=1, bias=False), own_norm(config.norm, after)]
            layers += [nn.LeakyReLU(_SLOPE, inplace=True)]
        self.convs = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(config.grid))
        hidden = nn.Linear(channels[-1] * config.grid**2, config.hidden)
        self.hidden = nn.Sequential(nn.Flatten(), hidden, nn.LeakyReLU(_SLOPE), nn.Dropout(config.dropout))
        self.out = nn.Linear(config.hidden, config.grid**2 * (5 * num_boxes + num_scores))

    @property
    def num_outputs(self) -> int:
        """Numbers said of an image, S * S * (5 K + C)."""
        return self.out.out_features

    @property
    def cells(self) -> Tensor:
        """The grid as boxes (S, S, 4), rows before columns, in pixels of an image of the trained size, to be drawn."""
        return cell_boxes(self.config.grid, self._side(self.image_size)).unflatten(0, (self.config.grid, -1))

    def cell_losses(self, output: GridOutput, objects: CellObjects, side: int) -> Losses:
        """Each part of the loss, a sum over images and cells, of images of `side` px."""
        raise NotImplementedError

    def candidates(self, output: GridOutput, side: int) -> tuple[Tensor, Tensor]:
        """All boxes (B, A, 4) of images of `side` px, and their scores (B, A, F) in 0..1 for the foreground classes."""
        raise NotImplementedError

    def forward(
        self,
        images: Tensor | Sequence[Tensor],
        targets: list[Target] | None = None,
        *,
        sizes: Sizes | None = None,
        detect: bool = False,
    ) -> tuple[Losses, list[Detection]]:
        """Losses if there are targets, detections if asked for; the network runs once.

        Args:
            images: (B, 3, H, W) uint8, or B tensors (3, H, W) uint8 of any sizes. All are padded below and right to one
                square, of the spec's `image_size` or, where an image is larger, of its longer side.
            targets: one dict per image, see the module's legend.
            sizes: (height, width) of each image's content, from its upper left corner; the whole image by default.
            detect: whether to return detections.

        Returns:
            losses: float32 scalars, each a sum over images of the sum over that image's cells; empty without targets.
            detections: per image `boxes` (D, 4) float32 in input pixels, clipped to the content, `labels` (D,) int64,
                `scores` (D,) falling; empty if not asked for.
        """
        if sizes is None:
            sizes = [(image.shape[-2], image.shape[-1]) for image in images]
        x = self._square(images)
        output, side = self._run(x), x.shape[-1]
        losses: Losses = {}
        detections: list[Detection] = []
        with torch.autocast(x.device.type, enabled=False):
            if targets is not None:
                losses = self.cell_losses(output, assign_cells(targets, self.config.grid, side), side)
            if detect:
                found = self.candidates(GridOutput(*(part.detach() for part in output)), side)
                detections = [self._kept(*one) for one in zip(*found, sizes, strict=True)]
        return losses, detections

    def _side(self, length: int) -> int:
        """Whole places of the map alone: backbones differ in how they round."""
        stride = 4 << LEVELS.index(self.config.level)
        return -(-length // stride) * stride

    def _square(self, images: Tensor | Sequence[Tensor]) -> Tensor:
        """Normalised, and padded below and right with zeros, ImageNet's mean colour."""
        side = self._side(max(self.image_size, *(max(image.shape[-2:]) for image in images)))
        if isinstance(images, Tensor):
            return _padded(self.pixel_norm(images), side)
        x = torch.cat([_padded(self.pixel_norm(image[None]), side) for image in images])
        return x.contiguous(memory_format=torch.channels_last)

    def _run(self, x: Tensor) -> GridOutput:
        for stage in self.backbone.stages[: LEVELS.index(self.config.level) + 1]:
            x = stage(x)
        hidden = self.hidden(self.convs(x))
        with torch.autocast(x.device.type, enabled=False):  # bf16 has 8 bits: a box of a large image would jump
            out = self.out(hidden.float()).unflatten(1, (self.config.grid**2, -1))
        boxes, scores = out[..., : 5 * self.num_boxes], out[..., 5 * self.num_boxes :]
        boxes = boxes.unflatten(2, (self.num_boxes, 5))
        return GridOutput(boxes[..., :4], boxes[..., 4], scores)

    def _kept(self, boxes: Tensor, scores: Tensor, size: tuple[int, int]) -> Detection:
        """The detections among an image's boxes (A, 4) with scores (A, F): above the threshold, of a side, suppressed
        class by class."""
        config = self.config
        box, label = torch.where(scores > config.score_threshold)
        return suppress(
            boxes[box], label + 1, scores[box, label], size, iou=config.nms_threshold, most=config.max_detections
        )


def _padded(x: Tensor, side: int) -> Tensor:
    height, width = x.shape[-2:]
    return x if height == width == side else F.pad(x, (0, side - width, 0, side - height))
