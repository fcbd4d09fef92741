"""Boxes that know nothing of the image: all of them, a sliding window's, and random ones.

Shapes: `size` (height, width) in px, P boxes (P, 4) float32 of `(x1, y1, x2, y2)` in pixels, half-open.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from contracts.errors import ConfigError


def count_all_boxes(size: tuple[int, int]) -> int:
    """How many boxes of whole pixels an image has: (1 + .. + W) * (1 + .. + H)."""
    height, width = size
    _check_size(size)
    return width * (width + 1) // 2 * (height * (height + 1) // 2)


def sliding_windows(
    size: tuple[int, int], *, scales: Sequence[float], ratios: Sequence[float] = (1.0,), stride: float
) -> np.ndarray:
    """Windows of every scale and shape at every stride, as far as they lie inside the image.

    By scale, then ratio, from above, from the left: no order of merit, so shuffle before taking the first k.

    Args:
        scales: square root of the area, px.
        ratios: height / width.
        stride: px, along both axes.

    Returns:
        (P, 4); none of a window that is larger than the image.

    Raises:
        ConfigError: an image without pixels, or a scale, ratio or stride that is not positive.
    """
    _check_size(size)
    for name, values in (("scales", scales), ("ratios", ratios), ("stride", (stride,))):
        if not len(values) or not all(math.isfinite(v) and v > 0 for v in values):
            raise ConfigError(f"no {name} of windows", value=values, where=f"windows: {name}", allowed="more than 0")
    boxes = [np.zeros((0, 4))]
    for scale in scales:
        for ratio in ratios:
            width, height = scale / math.sqrt(ratio), scale * math.sqrt(ratio)
            # A window larger than the image has a count of 0 or less here: none.
            x = np.arange(math.floor((size[1] - width) / stride) + 1) * stride
            y = np.arange(math.floor((size[0] - height) / stride) + 1) * stride
            corners = np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2)
            boxes.append(np.concatenate([corners, corners + np.array([width, height])], axis=1))
    return np.concatenate(boxes).astype(np.float32)


def random_boxes(size: tuple[int, int], count: int, *, seed: int, min_side: int = 1) -> np.ndarray:
    """Boxes of whole pixels, each of the image's as likely as any other: (count, 4), some perhaps twice.

    The first k of `count` are as random as k, but not the same as those of a call for k.

    Raises:
        ConfigError: a negative count or seed, or an image smaller than `min_side`.
    """
    _check_size(size)
    if count < 0 or seed < 0:
        raise ConfigError("no random boxes", value=(count, seed), where="windows: count, seed", allowed="0 and more")
    if not 1 <= min_side <= min(size):
        allowed = f"1 to {min(size)}, the image's shorter side"
        raise ConfigError("no least side", value=min_side, where="windows: min_side", allowed=allowed)
    rng = np.random.default_rng(seed)
    (x1, x2), (y1, y2) = (_random_intervals(rng, side, count, min_side) for side in (size[1], size[0]))
    return np.stack([x1, y1, x2, y2], axis=1).astype(np.float32)


def _random_intervals(rng: np.random.Generator, length: int, count: int, least: int) -> tuple[np.ndarray, np.ndarray]:
    """Starts and ends (count,) in 0..length, at least `least` apart; all of them equally likely."""
    num_starts = length - least + 1
    # Two different numbers of 0..num_starts, the lower and the upper: a start, and an end that is least - 1 too low.
    first, second = rng.integers(num_starts + 1, size=count), rng.integers(num_starts, size=count)
    second += second >= first
    return np.minimum(first, second), np.maximum(first, second) + least - 1


def _check_size(size: tuple[int, int]) -> None:
    if min(size) < 1:
        raise ConfigError("no image's size", value=size, where="windows: size", allowed="height and width from 1 on")
