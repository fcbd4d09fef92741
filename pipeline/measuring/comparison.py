"""The difference of two runs and how sure it is: better, worse, or cannot tell. What is read of each: `keeping.py`.

Both were measured on the same resamples of the same split (Koehn, 2004): what makes all systems good or bad on a
resample goes out of the difference. This file needs neither torch nor the data.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from lightning_modules.metrics.bootstrap import percentile_intervals

MEASURED, RUN, RESAMPLES, TABLES, PICTURES = "measured.json", "run.json", "resamples.npz", "tables", "pictures"
SAME = ("task", "dataset", "split", "metric", "metric_mode", "split_digest", "items_sha256")
# of measured.json: runs that agree in these were asked the same
Verdict = Literal["better", "worse", "cannot tell"]


@dataclass(frozen=True, kw_only=True)
class Difference:
    """First run less second, with the 95 % interval of the paired bootstrap; None where the metric has none."""

    value: float
    low: float | None
    high: float | None
    verdict: Verdict


def difference(
    values: tuple[float, float], drawn: tuple[np.ndarray, np.ndarray] | None, mode: Literal["max", "min"] = "max"
) -> Difference:
    """
    Args:
        values: the metric of both runs on the split.
        drawn: (B,) each, of both on the same resamples; None: not known.
        mode: whether more or less is better.
    """
    value = values[0] - values[1]
    interval = percentile_intervals({"": np.subtract(*drawn)}).get("") if drawn is not None else None
    if interval is None:
        return Difference(value=value, low=None, high=None, verdict="cannot tell")
    low, high = interval
    better, worse = (low > 0, high < 0) if mode == "max" else (high < 0, low > 0)
    verdict: Verdict = "better" if better else "worse" if worse else "cannot tell"
    return Difference(value=value, low=low, high=high, verdict=verdict)
