"""Segments of an image, what they look like, and the hierarchy that joining the most alike neighbors makes.

The features and the greedy grouping are those of Selective Search (Uijlings et al., IJCV 104(2), 2013, section 3); the
first segments those of Felzenszwalb and Huttenlocher (IJCV 59(2), 2004). Restated from the papers.

Shapes: image (H, W, C) uint8, segments (H, W) int64 in 0..N-1, pairs (E, 2) int64, N regions of which N-1 merges make
2N-1; boxes (N, 4) int64, `(x1, y1, x2, y2)` in pixels, half-open.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage
from skimage.segmentation import felzenszwalb

_SIGMA = 0.8  # of the smoothing before segmentation and of the derivatives, px
_COLOR_BINS = 25
_TEXTURE_BINS = 10
_MAX_DERIVATIVE = 0.43  # of values in 0..1; steeper ones share the last bin
_DITHER = 1e-9  # of values in 0..1: a hundred thousand times less than one level of eight bits may move an edge


@dataclass(frozen=True, eq=False)
class Regions:
    """Area in px (N,), box (N, 4), and color (N, 25 C) and texture (N, 80 C) histograms, each of sum 1."""

    areas: np.ndarray
    boxes: np.ndarray
    colors: np.ndarray
    textures: np.ndarray


def segment(image: np.ndarray, scale: float) -> np.ndarray:
    """First segments of an image: (H, W, C) -> (H, W), numbered from 0.

    Args:
        scale: k of the paper, for values in 0..255; also the least area of a segment, as Selective Search has it.
    """
    values = image / 255.0
    # scikit-image sorts edges with numpy's unstable sort, whose order of equal ones depends on the CPU's vector width;
    # flat drawings are full of equal edges. Unequal ones come in one order everywhere.
    values += _DITHER * np.random.default_rng(0).random(image.shape[:2])[..., None]
    if min(image.shape[:2]) < 2:  # it looks for diagonal edges, too
        return np.zeros(image.shape[:2], np.int64)
    return felzenszwalb(values, scale=scale, sigma=_SIGMA, min_size=round(scale)).astype(np.int64)


def touching_pairs(segments: np.ndarray) -> np.ndarray:
    """Segments that share a pixel's side: (H, W) -> (E, 2), each pair once, the lower number first, sorted."""
    sides = ((segments[:, :-1], segments[:, 1:]), (segments[:-1], segments[1:]))
    num = int(segments.max()) + 1
    both = [np.minimum(a, b)[a != b] * num + np.maximum(a, b)[a != b] for a, b in sides]
    return np.stack(np.divmod(np.unique(np.concatenate(both)), num), axis=1)


@dataclass(frozen=True, eq=False)
class PixelBins:
    """The histogram bins of each pixel: of its C colors (C, H, W) and its derivatives (8 C, H, W), uint8."""

    colors: np.ndarray
    textures: np.ndarray


def pixel_bins(image: np.ndarray) -> PixelBins:
    """Bins of values 0..1 in 25 steps, and of Gaussian derivatives in eight directions in 10 steps up to 0.43.

    A pixel's derivative counts in the direction of its rise and is 0 in the opposite one. The authors' published code
    takes the texture of the first channel three times; the paper, and this, takes each channel's.
    """
    values = np.moveaxis(image, 2, 0) / 255.0
    textures = []
    for channel in values:
        x, y = (ndimage.gaussian_filter(channel, _SIGMA, order, mode="nearest") for order in ((0, 1), (1, 0)))
        for derivative in (x, y, (x + y) * np.sqrt(0.5), (x - y) * np.sqrt(0.5)):
            steps = np.rint(derivative * ((_TEXTURE_BINS - 1) / _MAX_DERIVATIVE))
            textures += [side.clip(0, _TEXTURE_BINS - 1).astype(np.uint8) for side in (steps, -steps)]
    return PixelBins(colors=np.rint(values * (_COLOR_BINS - 1)).astype(np.uint8), textures=np.stack(textures))


def describe(segments: np.ndarray, bins: PixelBins) -> Regions:
    """Features of every segment; no number in 0..max may be missing."""
    areas = np.bincount(segments.ravel())
    slices = ndimage.find_objects(segments + 1)  # in which 0 is no object
    return Regions(
        areas=areas.astype(np.float64),
        boxes=np.array([(x.start, y.start, x.stop, y.stop) for y, x in slices], np.int64),
        colors=_histograms(segments, bins.colors, _COLOR_BINS, areas),
        textures=_histograms(segments, bins.textures, _TEXTURE_BINS, areas),
    )


def _histograms(segments: np.ndarray, bins: np.ndarray, num_bins: int, areas: np.ndarray) -> np.ndarray:
    """(H, W), (F, H, W) -> (N, F * num_bins), each row of sum 1."""
    first = segments * num_bins
    counts = [np.bincount((first + of_pixel).ravel(), minlength=len(areas) * num_bins) for of_pixel in bins]
    joined = np.stack(counts).reshape(len(bins), len(areas), num_bins).swapaxes(0, 1)
    return joined.reshape(len(areas), -1) / (areas[:, None] * len(bins))


def _color(regions: Regions, a: np.ndarray, b: np.ndarray, area: float) -> np.ndarray:
    return np.minimum(regions.colors[a], regions.colors[b]).sum(axis=1)


def _texture(regions: Regions, a: np.ndarray, b: np.ndarray, area: float) -> np.ndarray:
    return np.minimum(regions.textures[a], regions.textures[b]).sum(axis=1)


def _size(regions: Regions, a: np.ndarray, b: np.ndarray, area: float) -> np.ndarray:
    return 1 - (regions.areas[a] + regions.areas[b]) / area


def _fill(regions: Regions, a: np.ndarray, b: np.ndarray, area: float) -> np.ndarray:
    low = np.minimum(regions.boxes[a, :2], regions.boxes[b, :2])
    high = np.maximum(regions.boxes[a, 2:], regions.boxes[b, 2:])
    return 1 - ((high - low).prod(axis=1) - regions.areas[a] - regions.areas[b]) / area


SIMILARITIES: dict[str, Callable[[Regions, np.ndarray, np.ndarray, float], np.ndarray]] = {
    "color": _color,
    "texture": _texture,
    "size": _size,
    "fill": _fill,
}


def similarities(regions: Regions, a: np.ndarray, b: np.ndarray, names: Sequence[str], area: float) -> np.ndarray:
    """Likeness of regions `a` (E,) with `b` (E,): the mean of the named ones of `SIMILARITIES`, each in 0..1.

    `area` is the image's, px.

    color, texture: intersection of the histograms. size: the part of the image that both leave; small ones join first.
    fill: the part of the image that is not empty in the box around both; what lies inside another joins it first.
    """
    return np.mean([SIMILARITIES[name](regions, a, b, area) for name in names], axis=0)


def merge_all(regions: Regions, pairs: np.ndarray, names: Sequence[str]) -> tuple[Regions, np.ndarray]:
    """Joins the two neighbors that are most alike until one region is left.

    Of equally alike pairs the one of the lower numbers is joined first.

    Args:
        regions: N of them, which cover the image.
        pairs: (E, 2), which of them touch.
        names: of `SIMILARITIES`.

    Returns:
        All 2N-1 regions, merged ones from N on in the order of merging; and what was merged: (N-1, 2), lower first.
    """
    num_first, area = len(regions.areas), float(regions.areas.sum())
    grown = _with_room(regions, 2 * num_first - 1)
    neighbors: list[set[int]] = [set() for _ in range(2 * num_first - 1)]
    for a, b in pairs.tolist():
        neighbors[a].add(b)
        neighbors[b].add(a)
    alike = similarities(grown, pairs[:, 0], pairs[:, 1], names, area)
    heap = list(zip((-alike).tolist(), *pairs.T.tolist(), strict=True))
    heapq.heapify(heap)
    alive: set[int] = set(range(num_first))
    merges: list[tuple[int, int]] = []
    while heap:
        _, a, b = heapq.heappop(heap)
        if a not in alive or b not in alive:  # a pair of a region that has been merged: cheaper than taking it out
            continue
        new = num_first + len(merges)
        merges.append((a, b))
        _merge(grown, a, b, new)
        alive -= {a, b}
        alive.add(new)
        around = sorted((neighbors[a] | neighbors[b]) & alive)
        neighbors[new].update(around)
        for other in around:
            neighbors[other].add(new)
        if around:
            others = np.array(around)
            alike = similarities(grown, others, np.full_like(others, new), names, area)
            for other, value in zip(around, (-alike).tolist(), strict=True):
                heapq.heappush(heap, (value, other, new))
    return grown, np.array(merges, np.int64).reshape(-1, 2)


def _with_room(regions: Regions, count: int) -> Regions:
    """The same regions, followed by empty ones up to `count`."""

    def grow(values: np.ndarray) -> np.ndarray:
        out = np.zeros((count, *values.shape[1:]), values.dtype)
        out[: len(values)] = values
        return out

    return Regions(grow(regions.areas), grow(regions.boxes), grow(regions.colors), grow(regions.textures))


def _merge(regions: Regions, a: int, b: int, new: int) -> None:
    """Features of the union without a look at pixels: areas add up, histograms are means weighted by area."""
    areas = regions.areas
    areas[new] = areas[a] + areas[b]
    regions.boxes[new, :2] = np.minimum(regions.boxes[a, :2], regions.boxes[b, :2])
    regions.boxes[new, 2:] = np.maximum(regions.boxes[a, 2:], regions.boxes[b, 2:])
    for histograms in (regions.colors, regions.textures):
        histograms[new] = (areas[a] * histograms[a] + areas[b] * histograms[b]) / areas[new]
