"""What every metric returns: its values, what exactly they are, and how they change when images are drawn again.

Shapes: I images (clusters) of the split, B resamples. `weights` (B, I) says in whole numbers (float64, for BLAS) how
often each resample holds each image; a row of ones is the split itself and must give `values`, to rounding.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np

from contracts import __version__

SOURCE = f"sightline {__version__}"  # of what is computed by our own code
Resample = Callable[[np.ndarray], Mapping[str, np.ndarray]]


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """Metrics that are computed together, once over a whole split, in float64 on one process.

    Attributes:
        values: by official name; NaN where there is nothing to measure (a class without objects).
        variant: what the names leave open: thresholds, tokenizer, normalisation, scale.
        source: what computed them: a package with its version, or a signature.
        num_items: of `unit`, such as images, questions or captions.
        num_clusters: I, what is drawn again as a whole (images with all their questions); None: the items themselves.
        resample: weights (B, I) -> name -> (B,) float64, for some or all of `values`; None where no interval is known.
        not_computed: why a number of this family is absent, by name.
    """

    values: Mapping[str, float]
    variant: str
    source: str
    num_items: int
    unit: str = "images"
    num_clusters: int | None = None
    resample: Resample | None = None
    not_computed: Mapping[str, str] = field(default_factory=dict)


def values_of(measurements: Iterable[Measurement]) -> dict[str, float]:
    """All values by name; what has nothing to measure (NaN) is left out."""
    return {name: value for m in measurements for name, value in m.values.items() if not math.isnan(value)}


def ratio_of_sums(weights: np.ndarray, parts: np.ndarray, totals: np.ndarray) -> np.ndarray:
    """Sum of `parts` over sum of `totals` in each resample: (B, I), (I,), (I,) -> (B,); NaN over an empty total."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return (weights @ parts.astype(np.float64)) / (weights @ totals.astype(np.float64))
