"""`make bench`: how fast things are, beside what people would use otherwise, in the same run on the same machine.

A file `benchmarks/<name>.py` has one function `measure() -> list[Figure]`. Timings decide no test.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One thing measured.

    Attributes:
        what: with its size, so that the figure means something alone.
        beside: what it is compared with, and `other`, that one's value in the same `unit`; None if nothing is.
        goal: in words, of `value` or of the ratio.
    """

    what: str
    value: float
    unit: str = "s"
    beside: str = ""
    other: float | None = None
    goal: str = ""

    @property
    def ratio(self) -> float | None:
        """How many times longer (or more) the other takes."""
        return None if self.other is None else self.other / self.value


def timed(function: Callable[[], Any], *, repeats: int = 1) -> tuple[float, Any]:
    """Best of `repeats` wall-clock times in seconds, and the last result."""
    best = float("inf")
    result = None
    for _ in range(repeats):
        gc.collect()
        start = time.perf_counter()
        result = function()
        best = min(best, time.perf_counter() - start)
    return best, result
