"""Histograms of several splits side by side, as what a template draws in SVG."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

WIDTH, HEIGHT = 340, 130  # of the drawing, in its own units
_MOST_BINS = 24
Numbers = Mapping[float, int]  # value -> how often


class Bar(NamedTuple):
    """A rectangle of the drawing; `told` is what a pointer over it reads."""

    x: float
    y: float
    width: float
    height: float
    split: str
    told: str


class Histogram(NamedTuple):
    """`bars` are shares of their own split, so that a small one is seen beside a large one. `ticks` are (x, text)."""

    title: str
    unit: str
    bars: list[Bar]
    ticks: list[tuple[float, str]]
    top: str  # what the highest bar is
    medians: list[tuple[str, str]]  # (split, text)


def histogram(
    title: str, unit: str, values: Mapping[str, Numbers], edges: Sequence[float] | None = None, *, whole: bool = True
) -> Histogram:
    """Of values by split, of which at least one has some.

    Args:
        edges: where bins begin, ascending; the first is open below, the last above. None: of one width, round numbers.
        whole: the values are whole numbers.
    """
    values = {split: numbers for split, numbers in values.items() if numbers}
    edges = edges or _edges(min(map(min, values.values())), max(map(max, values.values())))
    counts = {split: Counter[int]() for split in values}
    for split, numbers in values.items():
        for value, count in numbers.items():
            counts[split][max(0, bisect_right(edges, value) - 1)] += count
    names = [_name(edges, i, whole) for i in range(len(edges))]
    shares = {split: {i: n / counted.total() for i, n in counted.items()} for split, counted in counts.items()}
    top = max(max(of_one.values()) for of_one in shares.values())
    slot = WIDTH / len(edges)
    thick = slot * 0.9 / len(values)
    bars = [
        Bar(
            round(i * slot + s * thick, 1), round(HEIGHT * (1 - share / top), 1), round(max(thick, 0.8), 1),
            round(HEIGHT * share / top, 1), split,
            " ".join(filter(None, (f"{split}, {names[i]}", unit))) + f": {counts[split][i]:,} ({share:.1%})",
        )
        for s, (split, of_one) in enumerate(shares.items())
        for i, share in sorted(of_one.items())
    ]  # fmt: skip
    every = -(-len(edges) // 6)
    ticks = [(round((i + 0.5) * slot, 1), names[i]) for i in range(0, len(edges), every)]
    return Histogram(
        title, unit, bars, ticks, f"{top:.0%}", [(split, f"{_median(of_one):g}") for split, of_one in values.items()]
    )


def _edges(low: float, high: float) -> list[float]:
    """Where at most `_MOST_BINS` bins begin, at multiples of a round width of at least 1."""
    width = (high - low + 1) / _MOST_BINS
    power = 10 ** math.floor(math.log10(width)) if width > 1 else 1
    step = next(step for step in (power, 2 * power, 5 * power, 10 * power) if step >= width)
    first = math.floor(low / step) * step
    return [first + i * step for i in range(math.floor((high - first) / step) + 1)]


def _name(edges: Sequence[float], i: int, whole: bool) -> str:
    last, step = i == len(edges) - 1, edges[1] - edges[0] if len(edges) > 1 else 1
    if whole and step == 1:
        return f"{edges[i]:g}"
    if last:
        return f"{edges[i]:g}+"
    return f"{edges[i]:g}-{edges[i + 1] - whole:g}"


def _median(numbers: Numbers) -> float:
    """The lower one of two in the middle."""
    half, passed = (sum(numbers.values()) + 1) // 2, 0
    for value in sorted(numbers):
        passed += numbers[value]
        if passed >= half:
            return round(value, 2)
    raise AssertionError("nothing to take the median of")
