"""YOLOv1 (1506.02640): each cell of a grid says B boxes with a confidence, and C class scores, all by squared errors.

Shapes: S x S cells, K = `boxes` a cell, C classes; YOLOv1 has neither base boxes nor a background class (the lecture's
head, `models/grid_boxes.py`, has both). A cell's numbers are K x (x, y, sqrt w, sqrt h, confidence), then C scores: the
centre's offset in the cell and the size as a fraction of the image. See `blocks/grid.py` for inputs and outputs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from contracts.ranges import AMOUNT, COUNT, check_ranges
from lightning_modules.base.families import DetectorSpec
from lightning_modules.blocks.grid import GridConfig, GridDetector, GridOutput, Losses
from lightning_modules.ops.grid import CellObjects, decode_in_cells, encode_in_cells, paired_iou


@dataclass(frozen=True, kw_only=True)
class Config(GridConfig):
    """`boxes` is how many each cell says, 1 or more. `lambda_coord` weighs the coordinates' errors, `lambda_noobj` the
    confidence of boxes that are responsible for no object; both 0 or more, the paper's values."""

    boxes: int = 2
    lambda_coord: float = 5.0
    lambda_noobj: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        check_ranges(self, boxes=COUNT, lambda_coord=AMOUNT, lambda_noobj=AMOUNT)


class Model(GridDetector):
    """Boxes with class and score."""

    spec_class: ClassVar[type] = DetectorSpec
    config: Config

    def __init__(self, config: Config, spec: DetectorSpec):
        super().__init__(config, spec, num_boxes=config.boxes, num_scores=spec.num_foreground_classes)

    def cell_losses(self, output: GridOutput, objects: CellObjects, side: int) -> Losses:
        config = self.config
        losses = yolo_losses(output, objects, config.grid, side)
        losses["coordinates"] = config.lambda_coord * losses["coordinates"]
        losses["no_object"] = config.lambda_noobj * losses["no_object"]
        return losses

    def candidates(self, output: GridOutput, side: int) -> tuple[Tensor, Tensor]:
        """Score is confidence times class score. Both are linear outputs: they are cut to 0..1 first, or two negative
        ones would make a detection."""
        cells = torch.arange(self.config.grid**2, device=output.boxes.device)
        boxes = decode_in_cells(output.boxes, cells[:, None], self.config.grid, side)
        scores = output.confidence.clamp(0, 1)[..., None] * output.scores.clamp(0, 1)[:, :, None]
        return boxes.flatten(1, 2), scores.flatten(1, 2)


def yolo_losses(output: GridOutput, objects: CellObjects, grid: int, side: float) -> Losses:
    """The sums of squared errors of equation 3, without its two weights; each over images and cells.

    Returns:
        coordinates: of the responsible box of each object. The outputs for sizes are square roots themselves, as in
            darknet, so that none is taken of a prediction.
        confidence: of the responsible box, which shall be its IoU with the object as it is now, without a gradient.
        no_object: of all other boxes, those in the objects' cells too; it shall be 0.
        class: over the objects' cells alone.
    """
    at, rows = (objects.image, objects.cell), torch.arange(len(objects.cell), device=objects.cell.device)
    coded, wanted = output.boxes[at], encode_in_cells(objects.boxes, objects.cell, grid, side)
    with torch.no_grad():
        boxes = decode_in_cells(coded, objects.cell[:, None], grid, side)
        ious = paired_iou(boxes, objects.boxes[:, None])
        responsible = _responsible(ious, coded, wanted, grid)
    is_free = objects.counts[:, :, None].expand_as(output.confidence).clone()
    is_free[(*at, responsible)] = False
    one_hot = F.one_hot(objects.labels - 1, output.scores.shape[-1])
    return {
        "coordinates": (coded[rows, responsible] - wanted).square().sum(),
        "confidence": (output.confidence[(*at, responsible)] - ious[rows, responsible]).square().sum(),
        "no_object": output.confidence[is_free].square().sum(),
        "class": (output.scores[at] - one_hot).square().sum(),
    }


def _responsible(ious: Tensor, coded: Tensor, wanted: Tensor, grid: int) -> Tensor:
    """The box (M,) of each object's cell that learns it: of the highest IoU (M, K); where none overlaps, of the least
    distance in centre and size as fractions of the image (darknet's rule; the paper leaves it open). The first of equal
    ones."""
    shifts = (coded[..., :2] - wanted[:, None, :2]) / grid
    growth = coded[..., 2:].square() - wanted[:, None, 2:].square()
    distances = torch.cat([shifts, growth], dim=-1).square().sum(dim=-1)
    return ious.argmax(dim=1).where((ious > 0).any(dim=1), distances.argmin(dim=1))
