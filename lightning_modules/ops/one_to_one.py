"""Which object each default box of SSD stands for (1512.02325, 2.2; `MatchBBox` in the authors' `bbox_util.cpp`).

Shapes: A boxes (A, 4), N objects (N, 4), K regions to ignore (K, 4); matches (A,) int64 as of `ops/matching.py`.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torchvision.ops import box_iou

from lightning_modules.ops.boxes import covered_fraction
from lightning_modules.ops.matching import BACKGROUND, NEITHER, MatchRule, match

_USED = -1.0  # below every IoU


def match_one_to_one(ious: Tensor, threshold: float) -> Tensor:
    """The match of each box by its IoU with every object, (N, A) -> (A,), each an object's index or `BACKGROUND`.

    The largest IoU of all joins its object and its box, then the largest among the other objects and boxes, and so on:
    no object loses its box to another, as in torchvision's `SSDMatcher`, where the later one takes it. An object that
    touches none of the boxes left gets none. Then each other box matches the object that it overlaps most, from an IoU
    of `threshold` on.
    """
    matches = match(ious, MatchRule(high=threshold, low=threshold))
    left = ious.clone()
    boxes = torch.arange(ious.shape[1], device=ious.device)
    for _ in range(min(ious.shape)):
        best, place = left.flatten().max(dim=0)  # nothing here waits for a GPU
        box, one = place % ious.shape[1], place // ious.shape[1]
        matches = torch.where((boxes == box) & (best > 0), one, matches)
        left.index_fill_(0, one, _USED).index_fill_(1, box, _USED)
    return matches


def assign_one_to_one(
    boxes: Tensor, objects: Tensor, ignored: Tensor, threshold: float, ignored_cover: float = 0.5
) -> Tensor:
    """The match (A,) of each box among the objects; background of which one ignored region covers `ignored_cover` of
    its own area is `NEITHER`."""
    matches = match_one_to_one(box_iou(objects, boxes), threshold)
    is_ignored = covered_fraction(boxes, ignored) >= ignored_cover
    return matches.where((matches != BACKGROUND) | ~is_ignored, NEITHER)
