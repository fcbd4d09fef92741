"""Proposals of a picture as it is stored: decoded, searched at a fixed width, and given in the record's pixels."""

from __future__ import annotations

import cv2
import numpy as np

from contracts.searching import Search
from lightning_modules.augment.images import decode_image
from lightning_modules.ops.boxes import to_original
from lightning_modules.ops.selective_search import selective_search


def search_regions(image: bytes, size: tuple[int, int], search: Search) -> tuple[np.ndarray, np.ndarray]:
    """Selective Search on an encoded picture: equal bytes give equal boxes.

    Args:
        image: JPEG or PNG, perhaps of fewer pixels than the record has.
        size: (height, width) of the record, whose pixels the boxes count in.

    Returns:
        boxes (P, 4) float32, best first, whole numbers rounded outwards; scores (P,) float32, falling, in 0..1. None
        of a picture without anything that is large enough.

    Raises:
        DataError: the bytes are no image.
    """
    pixels = decode_image(image)
    height, width = pixels.shape[:2]
    if width > search.width:
        height, width = max(1, round(height * search.width / width)), search.width
        pixels = cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA)
    boxes, scores = selective_search(
        pixels, mode=search.mode, seed=search.seed, scales=search.scales, min_side=search.min_side
    )
    boxes, scores = boxes[: search.max_boxes], scores[: search.max_boxes]
    boxes = to_original(boxes, (height, width), size)
    limits = np.array([size[1], size[0]] * 2, np.float32)
    return np.concatenate([np.floor(boxes[:, :2]), np.ceil(boxes[:, 2:])], axis=1).clip(0, limits), scores
