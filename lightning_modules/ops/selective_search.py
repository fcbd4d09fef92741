"""Selective Search: class-agnostic object proposals from hierarchies of segments.

Uijlings, van de Sande, Gevers, Smeulders: Selective Search for Object Recognition, IJCV 104(2), 2013, restated; modes,
order and least sides as in the authors' published code and in R-CNN's (1311.2524) use of it.

Shapes: image (H, W, 3), P proposals (P, 4) of `(x1, y1, x2, y2)` in pixels, half-open.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from contracts.errors import ConfigError, DataError
from lightning_modules.ops.regions import describe, merge_all, pixel_bins, segment, touching_pairs

_ALL = ("color", "texture", "size", "fill")
_NO_COLOR = ("texture", "size", "fill")


@dataclass(frozen=True, kw_only=True)
class Mode:
    """What is varied: a hierarchy for each color space, scale of segments and set of similarities."""

    colors: tuple[str, ...]
    scales: tuple[float, ...]
    similarities: tuple[tuple[str, ...], ...]

    @property
    def num_hierarchies(self) -> int:
        return len(self.colors) * len(self.scales) * len(self.similarities)


MODES = {
    "single": Mode(colors=("hsv",), scales=(100,), similarities=(_ALL,)),
    "fast": Mode(colors=("hsv", "lab"), scales=(50, 100), similarities=(_ALL, _NO_COLOR)),
    "quality": Mode(
        colors=("hsv", "lab", "rgi", "hue", "intensity"),
        scales=(50, 100, 150, 300),
        similarities=(_ALL, _NO_COLOR, ("fill",), ("size",)),
    ),
}


def selective_search(
    image: np.ndarray, *, mode: str = "fast", seed: int = 0, scales: Sequence[float] | None = None, min_side: int = 20
) -> tuple[np.ndarray, np.ndarray]:
    """Boxes that may hold an object, best first: one image, mode and seed give the same bytes at every call.

    The published settings are for photographs of 500 pixels' width: scale larger ones down (`ops.boxes.to_original`
    takes the boxes back) and give smaller ones smaller `scales` and `min_side`. A flat image is one segment: its
    only proposal is the whole image.

    Args:
        image: (H, W, 3) uint8, RGB.
        mode: "single" (1 hierarchy), "fast" (8) or "quality" (80).
        seed: of the order and the scores alone; the set of boxes does not depend on it.
        scales: of the first segments, in place of the mode's: each is the threshold k for values 0..255 and the least
            area in px. Lower: more and smaller boxes.
        min_side: boxes with a side of fewer px are left out, which may leave none.

    Returns:
        boxes (P, 4) float32, each once; scores (P,) float32, falling, in 0..1: only their order has a meaning.

    Raises:
        DataError: the image is not of this shape and type, or has no pixels.
        ConfigError: another mode, a negative seed, no scale or one below 1, a side below 1.
    """
    _check(image, mode, seed, scales, min_side)
    chosen = MODES[mode]
    found = list(_hierarchies(image, chosen, chosen.scales if scales is None else scales))
    boxes, ranks = (np.concatenate(parts) for parts in zip(*found, strict=True))
    return order_boxes(boxes, ranks, np.random.default_rng(seed).random(len(ranks)), min_side=min_side)


def order_boxes(
    boxes: np.ndarray, ranks: np.ndarray, draws: np.ndarray, *, min_side: int
) -> tuple[np.ndarray, np.ndarray]:
    """Boxes of all hierarchies as one list, best first, without small and repeated ones.

    A box's place goes by its rank times a random number, so that large regions tend to come first, but no level of the
    hierarchies comes before all others; of a box found several times the best place counts.

    Args:
        boxes: (K, 4) whole numbers.
        ranks: (K,) 1 and more.
        draws: (K,) in 0..1.
        min_side: in px, of both sides.

    Returns:
        boxes (P, 4) float32 and scores (P,) float32, 1 / (1 + rank * draw).
    """
    places = ranks * draws
    kept = np.flatnonzero((boxes[:, 2:] - boxes[:, :2]).min(axis=1) >= min_side)
    order = kept[np.argsort(places[kept], kind="stable")]
    _, first = np.unique(boxes[order], axis=0, return_index=True)
    order = order[np.sort(first)]
    return boxes[order].astype(np.float32), (1 / (1 + places[order])).astype(np.float32)


def _hierarchies(image: np.ndarray, mode: Mode, scales: Sequence[float]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Boxes (K, 4) and ranks (K,) of each: the whole image's is 1, then later merges before earlier ones.

    The first segments, whose rank follows the first merge's, come once for all similarities. One segment alone is the
    whole image, and nothing is merged.
    """
    for color in mode.colors:
        converted = COLORS[color](image)
        bins = pixel_bins(converted)
        for scale in scales:
            segments = segment(converted, scale)
            regions, pairs = describe(segments, bins), touching_pairs(segments)
            num_first = len(regions.areas)
            yield regions.boxes, np.full(num_first, num_first)
            for names in mode.similarities:
                merged, _ = merge_all(regions, pairs, names)
                yield merged.boxes[num_first:], np.arange(num_first - 1, 0, -1)


def _normalized_rg_intensity(image: np.ndarray) -> np.ndarray:
    """Red and green as parts of the pixel's sum, and gray."""
    total = image.sum(axis=2, dtype=np.int64)[..., None]
    parts = 255 * image[..., :2].astype(np.int64) // np.maximum(total, 1)
    return np.concatenate([parts.astype(np.uint8), cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)[..., None]], axis=2)


# (H, W, 3) RGB -> (H, W, C), all uint8: OpenCV's integer conversions, the same on every CPU. Hue is taken for a line of
# 0..255, not a circle, as the authors do: both ends are red.
COLORS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "hsv": lambda image: cv2.cvtColor(image, cv2.COLOR_RGB2HSV_FULL),
    "lab": lambda image: cv2.cvtColor(image, cv2.COLOR_RGB2LAB),
    "rgi": _normalized_rg_intensity,
    "hue": lambda image: cv2.cvtColor(image, cv2.COLOR_RGB2HSV_FULL)[..., :1],
    "intensity": lambda image: cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)[..., None],
}


def _check(image: np.ndarray, mode: str, seed: int, scales: Sequence[float] | None, min_side: int) -> None:
    here = "selective_search"
    if mode not in MODES:
        raise ConfigError("no such mode", value=mode, where=f"{here}: mode", allowed=", ".join(MODES))
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or seed < 0:
        raise ConfigError("no seed", value=seed, where=f"{here}: seed", allowed="whole numbers of 0 and more")
    if scales is not None and not (len(scales) and all(math.isfinite(k) and k >= 1 for k in scales)):
        raise ConfigError("no scales", value=scales, where=f"{here}: scales", allowed="one or more of 1 and more")
    if not min_side >= 1:
        raise ConfigError("no least side", value=min_side, where=f"{here}: min_side", allowed="1 and more, in px")
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        value = (image.dtype.name, image.shape) if isinstance(image, np.ndarray) else type(image).__name__
        raise DataError(
            "not an image",
            value=value,
            where=f"{here}: image",
            allowed="numpy array (height, width, 3) of uint8, RGB",
            fix="decode it in color; scale values of 0..1 to 0..255 and convert",
        )
    if not image.size:
        raise DataError("an image without pixels", value=image.shape, where=f"{here}: image", allowed="1 px and more")
