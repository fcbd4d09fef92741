"""Regions of images, each made a small picture of one size (1311.2524, appendix A, "warp").

Shapes: B images (3, H, W); regions B x (R_i, 4) float32 `(x1, y1, x2, y2)` in pixels, half-open; crops
(sum R, 3, s, s), all images' one after the other.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torchvision.ops import roi_align

from lightning_modules.blocks.pixels import PixelNorm


def grow(boxes: Tensor, size: int, padding: int) -> Tensor:
    """Boxes (R, 4) with what surrounds them: s / (s - 2p) times as wide and high, about their centers, so that of a
    crop of s px the box itself is all but p px at each side."""
    low, high = boxes.chunk(2, dim=1)
    center, half = (low + high) / 2, (high - low) / 2 * (size / (size - 2 * padding))
    return torch.cat([center - half, center + half], dim=1)


def warp(image: Tensor, boxes: Tensor, size: int) -> Tensor:
    """What is in each box, stretched to a square: (3, H, W), (R, 4) -> (R, 3, size, size).

    Bilinear and without smoothing before it, as the authors'. Outside the image all is 0; up to half a pixel beside it
    the last pixel counts.
    """
    return roi_align(image[None].float(), [boxes], size, spatial_scale=1.0, sampling_ratio=1, aligned=True)


def contents(norm: PixelNorm, images: Tensor | Sequence[Tensor], sizes: Sequence[tuple[int, int]]) -> list[Tensor]:
    """uint8 images -> B x (3, h, w) float32, normalised and without their letterbox: `sizes` says where an image's
    content ends, from its upper left corner."""
    pictures = norm(images) if isinstance(images, Tensor) else [norm(image[None])[0] for image in images]
    return [picture[:, :height, :width] for picture, (height, width) in zip(pictures, sizes, strict=True)]


def crop_regions(pictures: Sequence[Tensor], regions: Sequence[Tensor], *, size: int, padding: int) -> Tensor:
    """The crops of the regions of normalised pictures, channels_last; outside a picture is 0, the mean color."""
    parts = [
        warp(picture, grow(boxes, size, padding), size)
        for picture, boxes in zip(pictures, regions, strict=True)
        if len(boxes)
    ]
    if not parts:
        return pictures[0].new_zeros(0, 3, size, size)
    return torch.cat(parts).contiguous(memory_format=torch.channels_last)
