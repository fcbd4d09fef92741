"""A grid over a square image, each of whose cells finds the object that is centred in it (YOLO, 1506.02640, section 2).

Shapes: a square of `side` px, S x S cells numbered row by row, A base boxes a cell; B images, N objects of one of them,
M objects of all that a cell stands for. Boxes `(x1, y1, x2, y2)` float32 in pixels, half-open.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_modules.ops.box_coding import decode_boxes


def cell_boxes(grid: int, side: float, device: torch.device | None = None) -> Tensor:
    """The cells as boxes, (S * S, 4)."""
    low = cell_corners(torch.arange(grid**2, device=device), grid)
    return torch.cat([low, low + 1], dim=1) * (side / grid)


def cell_corners(cells: Tensor, grid: int) -> Tensor:
    """Column and row of each cell: (..) int64 -> (.., 2) float32, its upper left corner with a cell's side as unit."""
    return torch.stack([cells % grid, cells // grid], dim=-1).float()


def base_boxes(
    grid: int,
    side: float,
    sizes: Sequence[float],
    aspect_ratios: Sequence[float] = (1.0,),
    device: torch.device | None = None,
) -> Tensor:
    """The boxes that stand at every cell's centre, (S * S, A, 4), size by size; they may reach over the border.

    Args:
        sizes: square roots of their areas, as fractions of `side`.
        aspect_ratios: height / width, of each size.
    """
    shapes = torch.tensor([[size * r**-0.5, size * r**0.5] for size in sizes for r in aspect_ratios], device=device)
    cells = cell_boxes(grid, side, device)
    centers, half = ((cells[:, :2] + cells[:, 2:]) / 2)[:, None], shapes * (side / 2)
    return torch.cat([centers - half, centers + half], dim=2)


def cells_of(boxes: Tensor, grid: int, side: float) -> Tensor:
    """The cell (N,) int64 in which each box (N, 4) is centred."""
    places = ((boxes[:, :2] + boxes[:, 2:]) * (grid / (2 * side))).long().clamp(0, grid - 1)
    return places[:, 1] * grid + places[:, 0]


@dataclass(frozen=True, kw_only=True)
class CellObjects:
    """What the cells of B images are to find.

    Attributes:
        image, cell: (M,) int64, in which image and cell each object is looked for, no pair twice.
        boxes: (M, 4). labels: (M,) int64 in 1..C.
        counts: (B, S * S) bool, the cells that losses count: False for those without an object that are ignored.
    """

    image: Tensor
    cell: Tensor
    boxes: Tensor
    labels: Tensor
    counts: Tensor


def assign_cells(targets: Sequence[Mapping[str, Tensor]], grid: int, side: float) -> CellObjects:
    """Each object to the cell of its centre. Where several share a cell it stands for the largest, of equal areas for
    the first; the others are not learnt. (darknet keeps the first after shuffling: a validation loss would be random.)

    A cell without an object is ignored if its centre lies in an ignored region, or a region's centre in it: the cell of
    a crowd or a difficult object is no background, however small that is.

    Args:
        targets: of each image `boxes` (N, 4), `labels` (N,) int64 and `ignored` (K, 4).
    """
    owners = torch.stack([_owners(target["boxes"], grid, side) for target in targets])
    ignored = torch.stack([_ignored(target["ignored"], grid, side) for target in targets])
    image, cell = torch.where(owners >= 0)
    starts = torch.tensor([0, *(len(target["boxes"]) for target in targets[:-1])], device=owners.device).cumsum(0)
    objects = owners[image, cell] + starts[image]
    return CellObjects(
        image=image,
        cell=cell,
        boxes=torch.cat([target["boxes"] for target in targets])[objects],
        labels=torch.cat([target["labels"] for target in targets])[objects],
        counts=(owners >= 0) | ~ignored,
    )


def _owners(boxes: Tensor, grid: int, side: float) -> Tensor:
    """The object (S * S,) int64 that each cell stands for, -1 for none."""
    cells = torch.arange(grid**2, device=boxes.device)
    if not len(boxes):
        return torch.full_like(cells, -1)
    is_inside = cells_of(boxes, grid, side)[:, None] == cells
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(dim=1)[:, None].where(is_inside, -1.0)
    return areas.argmax(dim=0).where(is_inside.any(dim=0), -1)


def _ignored(regions: Tensor, grid: int, side: float) -> Tensor:
    """Which cells (S * S,) bool regions (K, 4) make ignored."""
    cells = cell_boxes(grid, side, regions.device)
    centers = ((cells[:, :2] + cells[:, 2:]) / 2)[:, None]
    is_covered = ((centers >= regions[:, :2]) & (centers < regions[:, 2:])).all(dim=2).any(dim=1)
    is_covered[cells_of(regions, grid, side)] = True
    return is_covered


def paired_iou(boxes: Tensor, others: Tensor) -> Tensor:
    """IoU of boxes (.., 4) with those at the same place of `others` (.., 4): (..) in 0..1; 0 of two without area."""
    low = torch.maximum(boxes[..., :2], others[..., :2])
    high = torch.minimum(boxes[..., 2:], others[..., 2:])
    intersections = (high - low).clamp(min=0).prod(dim=-1)
    areas = [(b[..., 2:] - b[..., :2]).prod(dim=-1) for b in (boxes, others)]
    return intersections / (areas[0] + areas[1] - intersections).clamp(min=1e-6)


def shape_iou(boxes: Tensor, others: Tensor) -> Tensor:
    """`paired_iou` with both boxes moved to one centre: of width and height alone."""
    moved, other_moved = (b - b[..., [0, 1, 0, 1]] for b in (boxes, others))  # a common corner does as well
    return paired_iou(moved, other_moved)


def encode_in_cells(boxes: Tensor, cells: Tensor, grid: int, side: float) -> Tensor:
    """YOLO's coding (M, 4) of boxes (M, 4): the centre's offset in its cell (M,), 0..1 of the cell's side, and the
    square roots of width and height as fractions of the image: an error of a pixel weighs less on a large box."""
    low, high = boxes.chunk(2, dim=1)
    offsets = (low + high) * (grid / (2 * side)) - cell_corners(cells, grid)
    return torch.cat([offsets, ((high - low) / side).sqrt()], dim=1)


def decode_in_cells(coded: Tensor, cells: Tensor, grid: int, side: float) -> Tensor:
    """The inverse, for any leading shape that `cells` (..) goes with: (.., 4) -> (.., 4)."""
    centers = (cell_corners(cells, grid) + coded[..., :2]) * (side / grid)
    half = coded[..., 2:].square() * (side / 2)
    return torch.cat([centers - half, centers + half], dim=-1)


def swap_sides(deltas: Tensor) -> Tensor:
    """(dx, dy, dh, dw) to `ops/box_coding.py`'s (dx, dy, dw, dh), and back: (.., 4) -> (.., 4)."""
    return deltas[..., [0, 1, 3, 2]]


def decode_on_base_boxes(deltas: Tensor, base: Tensor) -> Tensor:
    """The boxes (B, S * S, A, 4) of deltas (B, S * S, A, 4), (dx, dy, dh, dw), from base boxes (S * S, A, 4)."""
    flat = decode_boxes(swap_sides(deltas).flatten(0, 2), base.expand_as(deltas).flatten(0, 2))
    return flat[:, 0].view_as(deltas)
