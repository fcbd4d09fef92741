"""Instance masks as COCO compressed run lengths, and pasted from box-sized probabilities.

Shapes: N masks (N, H, W) uint8 0/1, of which pixel i covers [i, i + 1); run lengths are the `counts` strings of
`{"size": [H, W], "counts": str}`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from hotcoco import mask as coco_mask
from torch import Tensor
from torch.nn import functional as F
from torchvision.ops import roi_align


def encode_masks(masks: np.ndarray) -> list[str]:
    """(N, H, W) 0/1 -> N counts strings."""
    return [
        coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))["counts"].decode("ascii")  # RLE is column by column
        for mask in masks
    ]


def decode_masks(counts: Sequence[str], size: tuple[int, int]) -> np.ndarray:
    """N counts strings of images of `size` (height, width) -> (N, H, W) uint8. The strings must be valid."""
    masks = np.zeros((len(counts), *size), np.uint8)
    for mask, text in zip(masks, counts, strict=True):
        mask[:] = coco_mask.decode({"size": list(size), "counts": text.encode("ascii")})
    return masks


def fill_boxes(boxes: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The masks whose every pixel centre inside the box is set: (N, 4) -> (N, H, W) uint8."""
    xs, ys = np.arange(size[1]) + 0.5, np.arange(size[0]) + 0.5
    columns = (xs >= boxes[:, 0:1]) & (xs < boxes[:, 2:3])
    rows = (ys >= boxes[:, 1:2]) & (ys < boxes[:, 3:4])
    return (rows[:, :, None] & columns[:, None, :]).astype(np.uint8)


def mask_targets(masks: Tensor, boxes: Tensor, objects: Tensor, side: int) -> Tensor:
    """What is to be learnt of the masks (N, H, W) uint8 on boxes (P, 4): (P, R, R) float32 in 0..1, R = `side`.

    RoIAlign (1703.06870) with a pixel's value at its centre. torchvision's targets have it at the upper left corner:
    half a pixel of the input, which is of no fixed size in the original that a mask is pasted into.

    Args:
        objects: (P,) int64, which mask belongs to each box.
    """
    rois = torch.cat([objects[:, None].to(boxes), boxes], dim=1)
    return roi_align(masks[:, None].to(boxes), rois, (side, side), 1.0, aligned=True)[:, 0]


def paste_masks(probs: Tensor, boxes: Tensor, size: tuple[int, int], threshold: float = 0.5) -> np.ndarray:
    """Probabilities (N, 1, R, R) float on boxes (N, 4) -> masks (N, H, W) uint8 of an image of `size`.

    The inverse of `mask_targets`: each pixel takes the value at its centre, so that boxes may be scaled to another
    image before. torchvision's own pasting rounds boxes outwards and adds a pixel to their sides.
    """
    masks = np.zeros((len(probs), *size), np.uint8)
    for mask, prob, box in zip(masks, probs, boxes.tolist(), strict=True):
        x1, y1 = (max(0, math.floor(v)) for v in box[:2])
        x2, y2 = min(size[1], math.ceil(box[2])), min(size[0], math.ceil(box[3]))
        if x2 <= x1 or y2 <= y1:
            continue
        xs = (torch.arange(x1, x2) + 0.5 - box[0]) / (box[2] - box[0]) * 2 - 1
        ys = (torch.arange(y1, y2) + 0.5 - box[1]) / (box[3] - box[1]) * 2 - 1
        grid = torch.stack(torch.meshgrid(xs, ys, indexing="xy"), dim=-1)[None]
        # At the borders the outermost probability goes on: zeros there would eat half a cell of every mask.
        values = F.grid_sample(prob[None].float().cpu(), grid, padding_mode="border", align_corners=False)
        mask[y1:y2, x1:x2] = (values[0, 0] > threshold).numpy()
    return masks
