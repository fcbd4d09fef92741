"""Pure functions on boxes. Shapes: N boxes (N, 4), M boxes (M, 4), `(x1, y1, x2, y2)` in pixels, half-open."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def covered_fraction(boxes: Tensor, regions: Tensor) -> Tensor:
    """The largest part of each box's own area that one region covers: (N, 4), (M, 4) -> (N,) in 0..1."""
    if not len(regions):
        return boxes.new_zeros(len(boxes))
    corner_min = torch.maximum(boxes[:, None, :2], regions[None, :, :2])
    corner_max = torch.minimum(boxes[:, None, 2:], regions[None, :, 2:])
    intersections = (corner_max - corner_min).clamp(min=0).prod(dim=2)
    areas = (boxes[:, 2:] - boxes[:, :2]).clamp(min=1e-6).prod(dim=1)
    return intersections.amax(dim=1) / areas


def to_original(boxes: np.ndarray, content_size: tuple[int, int], original_size: tuple[int, int]) -> np.ndarray:
    """Boxes in a resized image -> float32 boxes in the original, clipped to it.

    Args:
        boxes: (N, 4), in pixels of the resized image, whose content starts at its upper left corner.
        content_size: (height, width) of the content in the resized image.
        original_size: (height, width) of the original.
    """
    scale_y, scale_x = original_size[0] / content_size[0], original_size[1] / content_size[1]
    out = boxes.astype(np.float64) * np.array([scale_x, scale_y] * 2)
    out[:, 0::2] = out[:, 0::2].clip(0, original_size[1])
    out[:, 1::2] = out[:, 1::2].clip(0, original_size[0])
    return out.astype(np.float32)


def to_xywh(box: np.ndarray) -> list[float]:
    """One box (4,) -> COCO's `[x, y, width, height]` as Python floats."""
    x1, y1, x2, y2 = (float(v) for v in box)
    return [x1, y1, x2 - x1, y2 - y1]


def pairwise_ious(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """IoU of every box with every other: numpy (D, 4), (N, 4) -> (D, N)."""
    low = np.maximum(first[:, None, :2], second[None, :, :2])
    high = np.minimum(first[:, None, 2:], second[None, :, 2:])
    intersections = (high - low).clip(min=0).prod(axis=2)
    areas = [(b[:, 2:] - b[:, :2]).prod(axis=1) for b in (first, second)]
    return intersections / np.maximum(areas[0][:, None] + areas[1][None, :] - intersections, 1e-12)


def box_areas(boxes: np.ndarray) -> np.ndarray:
    """(N, 4) -> (N,) in square pixels."""
    return (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)


def clip_boxes(boxes: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """What of the boxes (N, 4) lies in an image of `size` (height, width); no area where nothing does."""
    return boxes.clip(0, [size[1], size[0]] * 2).astype(np.float32)


def mask_boxes(masks: np.ndarray) -> np.ndarray:
    """Tight boxes of masks: (N, H, W) -> (N, 4) float32; zeros where a mask is empty."""
    boxes = np.zeros((len(masks), 4), np.float32)
    for box, mask in zip(boxes, masks, strict=True):
        columns, rows = np.flatnonzero(mask.any(0)), np.flatnonzero(mask.any(1))
        if len(columns):
            box[:] = columns[0], rows[0], columns[-1] + 1, rows[-1] + 1
    return boxes


def quad_boxes(quads: np.ndarray) -> np.ndarray:
    """The least boxes around quads: (Q, 4, 2), x before y -> (Q, 4) float32."""
    return np.concatenate([quads.min(axis=1), quads.max(axis=1)], axis=1).astype(np.float32)


def quad_areas(quads: np.ndarray, size: tuple[int, int] | None = None) -> np.ndarray:
    """(Q, 4, 2) -> (Q,) float32 in square pixels.

    Args:
        size: only what lies in an image of this (height, width) counts.
    """
    areas = np.zeros(len(quads), np.float32)
    for i, quad in enumerate(quads.astype(np.float64)):
        polygon = quad if size is None else _clip_polygon(quad, size)
        x, y = polygon[:, 0], polygon[:, 1]
        areas[i] = abs((x * np.roll(y, -1) - y * np.roll(x, -1)).sum()) / 2
    return areas


def _clip_polygon(points: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Sutherland's and Hodgman's: (K, 2) -> (K', 2), cut at the image's four sides, one after the other."""
    for axis, limit, sign in ((0, 0, 1), (0, size[1], -1), (1, 0, 1), (1, size[0], -1)):
        inside = sign * (points[:, axis] - limit)  # 0 or more: within
        kept = []
        for i, (point, depth) in enumerate(zip(points, inside, strict=True)):
            before, depth_before = points[i - 1], inside[i - 1]
            if (depth >= 0) != (depth_before >= 0):
                kept.append(before + (point - before) * (depth_before / (depth_before - depth)))
            if depth >= 0:
                kept.append(point)
        points = np.array(kept).reshape(-1, 2)
    return points
