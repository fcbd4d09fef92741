"""Boxes as offsets from other boxes (1311.2524, appendix C): shifts in shares of the side, and logarithms of ratios.

Shapes: N boxes (N, 4), `(x1, y1, x2, y2)`; their anchors (N, 4), of positive width and height; deltas (N, 4) or, one
for each of k classes, (N, 4k): dx, dy, dw, dh times `weights`.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

Weights = tuple[float, float, float, float]
UNIT: Weights = (1.0, 1.0, 1.0, 1.0)
MAX_LOG_RATIO = math.log(1000 / 16)  # no box grows by more: a large output in the first steps must not overflow


def encode_boxes(boxes: Tensor, anchors: Tensor, weights: Weights = UNIT) -> Tensor:
    """The deltas (N, 4) that make `boxes` of `anchors`. A box without width or height gives -inf."""
    scale_xy, scale_wh = boxes.new_tensor(weights).chunk(2)
    center, sides = _center_and_sides(boxes)
    anchor_center, anchor_sides = _center_and_sides(anchors)
    shifts = scale_xy * (center - anchor_center) / anchor_sides
    return torch.cat([shifts, scale_wh * torch.log(sides / anchor_sides)], dim=1)


def decode_boxes(deltas: Tensor, anchors: Tensor, weights: Weights = UNIT) -> Tensor:
    """The boxes (N, k, 4) of `deltas` (N, 4k); they may lie outside the image."""
    scale_xy, scale_wh = deltas.new_tensor(weights).chunk(2)
    center, sides = (part[:, None] for part in _center_and_sides(anchors))
    shifts, ratios = deltas.unflatten(1, (-1, 4)).chunk(2, dim=2)
    new_center = shifts / scale_xy * sides + center
    half = 0.5 * (torch.exp((ratios / scale_wh).clamp(max=MAX_LOG_RATIO)) * sides)
    return torch.cat([new_center - half, new_center + half], dim=2)


def _center_and_sides(boxes: Tensor) -> tuple[Tensor, Tensor]:
    low, high = boxes.chunk(2, dim=1)
    sides = high - low
    return low + 0.5 * sides, sides
