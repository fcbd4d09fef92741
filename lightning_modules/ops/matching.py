"""Which object a box stands for.

Shapes: A boxes (A, 4), N objects (N, 4), K regions to ignore (K, 4); matches (A,) int64: the index of an object, or
`BACKGROUND` or `NEITHER`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torchvision.ops import box_iou

from lightning_modules.ops.boxes import covered_fraction

BACKGROUND, NEITHER = -1, -2  # NEITHER is no positive and no negative


@dataclass(frozen=True, kw_only=True)
class MatchRule:
    """Boxes match from an IoU of `high` on and are background below `low`. With `keep_best` an object that nothing
    reaches `high` with takes the boxes that overlap it most (1506.01497, 3.1.2). Background of which one ignored region
    covers `ignored_cover` is neither."""

    high: float
    low: float
    keep_best: bool = False
    ignored_cover: float = 0.5


def match(ious: Tensor, rule: MatchRule) -> Tensor:
    """The match of each box by its IoU with every object, (N, A) -> (A,). Of equal IoUs the first object counts.

    With `keep_best`, all boxes that share an object's best IoU match, each the object that it overlaps most itself; an
    object that no box touches takes none (torchvision gives it every box that does not touch it).
    """
    if not len(ious):
        return torch.full((ious.shape[1],), BACKGROUND, device=ious.device)
    best, nearest = ious.max(dim=0)
    matches = nearest.where(best >= rule.high, NEITHER).where(best >= rule.low, BACKGROUND)
    if rule.keep_best:
        objects_best = ious.amax(dim=1, keepdim=True)
        is_best = ((ious == objects_best) & (objects_best > 0)).any(dim=0)
        matches = nearest.where(is_best, matches)
    return matches


def assign(boxes: Tensor, objects: Tensor, ignored: Tensor, rule: MatchRule) -> Tensor:
    """The match (A,) of each box among the objects, regions to ignore considered."""
    matches = match(box_iou(objects, boxes), rule)
    is_ignored = covered_fraction(boxes, ignored) >= rule.ignored_cover
    return matches.where((matches != BACKGROUND) | ~is_ignored, NEITHER)
