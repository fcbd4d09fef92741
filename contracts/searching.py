"""How Selective Search is asked for proposals: settings that a data set's shards and a task on new pictures share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from contracts.ranges import COUNT, SEED, Range, check_ranges

Mode = Literal["single", "fast", "quality"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Search:
    """Selective Search (Uijlings et al., IJCV 2013) as R-CNN (1311.2524) uses it; docs/proposals.md has figures.

    The published settings are for photographs of 500 pixels' width: small pictures want finer ones.

    Attributes:
        mode: hierarchies of segments, 1, 8 or 80; more find more boxes and take longer.
        width: wider pictures are searched at this width, in pixels; narrower ones as they are.
        scales: of the first segments, in place of the mode's own: threshold and least area; smaller: finer segments.
        min_side: boxes with a smaller side are left out, in pixels of what is searched.
        max_boxes: how many of the best are kept.
        seed: of their order alone.
    """

    mode: Mode = "fast"
    width: int = 500
    scales: tuple[float, ...] | None = None
    min_side: int = 20
    max_boxes: int = 2000
    seed: int = 0

    def __post_init__(self) -> None:
        check_ranges(self, width=Range(16), scales=Range(1), min_side=COUNT, max_boxes=COUNT, seed=SEED)
