"""Which frames of a clip a task looks at, and in which order."""

from __future__ import annotations

import zlib

import numpy as np

# A stream of its own: tasks have [seed, 1] and [seed, 2], the augmentation [seed, 3] and [seed, 4].
_FRAMES, _ORDER = 5, 6


def choose_frames(count: int, most: int, seed: int | None) -> np.ndarray:
    """Places of at most `most` frames of a clip of `count`, ascending, (n,) int64.

    The clip is cut into `most` equal stretches and a frame is taken of each: the middle one, or with a seed any of them
    (1608.00859).
    """
    if count <= most:
        return np.arange(count)
    edges = np.arange(most + 1) * count / most
    if seed is None:
        return ((edges[:-1] + edges[1:]) / 2).astype(np.int64)
    shares = np.random.default_rng([seed, _FRAMES]).random(most)
    return np.minimum((edges[:-1] + shares * count / most).astype(np.int64), count - 1)


def shuffled(places: np.ndarray, key: str, seed: int | None) -> np.ndarray:
    """The same places in an order that says nothing: drawn from the seed, or without one from the record's key."""
    drawn = [zlib.crc32(key.encode()), _ORDER] if seed is None else [seed, _ORDER]
    return np.random.default_rng(drawn).permutation(places)


def window(count: int, most: int, seed: int) -> slice:
    """At most `most` consecutive frames of a clip of `count`, from any place."""
    start = int(np.random.default_rng([seed, _FRAMES]).integers(max(0, count - most) + 1))
    return slice(start, min(count, start + most))
