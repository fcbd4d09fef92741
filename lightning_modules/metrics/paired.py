"""The difference of two systems that were measured on the same resamples of the same split (Koehn, 2004): what makes
all systems good or bad on a resample goes out of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from lightning_modules.metrics.bootstrap import LEVEL, percentile_intervals

Verdict = Literal["better", "worse", "cannot tell"]


@dataclass(frozen=True, kw_only=True)
class Difference:
    """First system less second, with the interval of the paired bootstrap; None where the metric has none."""

    value: float
    low: float | None
    high: float | None
    verdict: Verdict


def difference(
    values: tuple[float, float],
    drawn: tuple[np.ndarray, np.ndarray] | None,
    mode: Literal["max", "min"] = "max",
    *,
    level: float = LEVEL,
) -> Difference:
    """
    Args:
        values: the metric of both systems on the split.
        drawn: (B,) each, of both on the same resamples; None: not known.
        mode: whether more or less is better.
        level: of the interval.
    """
    value = values[0] - values[1]
    interval = percentile_intervals({"": np.subtract(*drawn)}, level).get("") if drawn is not None else None
    if interval is None:
        return Difference(value=value, low=None, high=None, verdict="cannot tell")
    low, high = interval
    better, worse = (low > 0, high < 0) if mode == "max" else (high < 0, low > 0)
    verdict: Verdict = "better" if better else "worse" if worse else "cannot tell"
    return Difference(value=value, low=low, high=high, verdict=verdict)
