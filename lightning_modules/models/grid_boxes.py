"""The lecture's one-stage detector: base boxes in every cell of a grid, moved and judged, and one class a cell.

Shapes: S x S cells, A base boxes a cell at its centre, K classes with background as class 0. A cell's numbers are
A x (dx, dy, dh, dw, confidence), in this order, then K class logits: 7 x 7 x (5 A + K). See `blocks/grid.py` for inputs
and outputs.

The lecture names it after YOLO, but YOLOv1 (1506.02640, `models/yolo.py`) has neither base boxes nor a background
class; it is like an RPN (1506.01497) that knows classes, and coding and losses here are an RPN's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from contracts.errors import ConfigError
from contracts.ranges import POSITIVE, check_ranges
from lightning_modules.base.families import DetectorSpec
from lightning_modules.blocks.grid import GridConfig, GridDetector, GridOutput, Losses
from lightning_modules.ops.box_coding import encode_boxes
from lightning_modules.ops.grid import CellObjects, base_boxes, decode_on_base_boxes, shape_iou, swap_sides

_BETA = 1 / 9  # where smooth L1 turns from quadratic to linear, an RPN's


@dataclass(frozen=True, kw_only=True)
class Config(GridConfig):
    """`base_boxes` are the square roots of the base boxes' areas, as fractions of the image size, and `aspect_ratios`
    (height / width) the shapes that there are of each; all more than 0, at least one."""

    base_boxes: tuple[float, ...] = (0.28, 0.45, 0.57)
    aspect_ratios: tuple[float, ...] = (1.0,)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_ranges(self, base_boxes=POSITIVE, aspect_ratios=POSITIVE)
        for name in ("base_boxes", "aspect_ratios"):
            if not getattr(self, name):
                raise ConfigError(
                    "a cell has no base box",
                    value=(),
                    where=f"model.{name}",
                    allowed="one or more numbers above 0",
                    fix="leave the line out for the default",
                )


class Model(GridDetector):
    """Boxes with class and score."""

    spec_class: ClassVar[type] = DetectorSpec
    config: Config

    def __init__(self, config: Config, spec: DetectorSpec):
        num_boxes = len(config.base_boxes) * len(config.aspect_ratios)
        super().__init__(config, spec, num_boxes=num_boxes, num_scores=spec.num_foreground_classes + 1)

    @property
    def base_boxes(self) -> Tensor:
        """All base boxes (S, S, A, 4), rows before columns, in pixels of an image of the trained size, to be drawn."""
        return self._base(self._side(self.image_size), None).unflatten(0, (self.config.grid, -1))

    def _base(self, side: int, device: torch.device | None) -> Tensor:
        return base_boxes(self.config.grid, side, self.config.base_boxes, self.config.aspect_ratios, device)

    def cell_losses(self, output: GridOutput, objects: CellObjects, side: int) -> Losses:
        return grid_box_losses(output, objects, self._base(side, output.boxes.device))

    def candidates(self, output: GridOutput, side: int) -> tuple[Tensor, Tensor]:
        """Score is confidence times the probability of the class."""
        boxes = decode_on_base_boxes(output.boxes, self._base(side, output.boxes.device))
        class_probs = output.scores.softmax(dim=2)[:, :, None, 1:]
        scores = output.confidence.sigmoid()[..., None] * class_probs
        return boxes.flatten(1, 2), scores.flatten(1, 2)


def matched_base_boxes(objects: CellObjects, base: Tensor) -> Tensor:
    """Which base box (M,) of its cell each object takes: of the best IoU of shapes, wherever the centres; the first
    of equal ones.

    Args:
        base: (S * S, A, 4).
    """
    return shape_iou(base[objects.cell], objects.boxes[:, None].expand(-1, base.shape[1], -1)).argmax(dim=1)


def grid_box_losses(output: GridOutput, objects: CellObjects, base: Tensor) -> Losses:
    """The parts of the loss, each a sum over images and cells.

    Args:
        base: (S * S, A, 4).

    Returns:
        coordinates: smooth L1 of the four deltas of each object's base box.
        confidence: binary cross-entropy of all base boxes: 1 for an object's own, 0 for the others.
        class: cross-entropy of all cells: the object's class, background where there is none.
    """
    at, matched = (objects.image, objects.cell), matched_base_boxes(objects, base)
    wanted = swap_sides(encode_boxes(objects.boxes, base[objects.cell, matched]))
    is_object = torch.zeros_like(output.confidence)
    is_object[(*at, matched)] = 1
    labels = torch.zeros_like(objects.counts, dtype=torch.int64)
    labels[at] = objects.labels
    counts = objects.counts
    return {
        "coordinates": F.smooth_l1_loss(output.boxes[(*at, matched)], wanted, beta=_BETA, reduction="sum"),
        "confidence": F.binary_cross_entropy_with_logits(output.confidence[counts], is_object[counts], reduction="sum"),
        "class": F.cross_entropy(output.scores[counts], labels[counts], reduction="sum"),
    }
