"""95 % intervals by drawing the images of a split again, with replacement (Efron, 1979; percentile intervals).

The draws depend on the number of images and the seed alone. Two systems measured on the same split so see the same
resamples, and the interval of their difference is a paired one (Koehn, 2004).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from lightning_modules.metrics.measurement import Measurement

NUM_RESAMPLES = 1000
LEVEL = 0.95
_CHUNK_CELLS = 2_000_000  # of the weights at a time: 16 MB


def resampling_weights(num_images: int, *, num_resamples: int, seed: int) -> Iterator[np.ndarray]:
    """How often each image is drawn: chunks (b, I) float64 that add up to `num_resamples` rows of sum I."""
    generator = np.random.default_rng([seed, num_images])
    rows = max(1, _CHUNK_CELLS // max(1, num_images))
    for start in range(0, num_resamples, rows):
        count = min(rows, num_resamples - start)
        drawn = generator.integers(num_images, size=(count, num_images)) + np.arange(count)[:, None] * num_images
        yield np.bincount(drawn.ravel(), minlength=count * num_images).reshape(count, num_images).astype(np.float64)


def replicates(
    measurements: Sequence[Measurement], *, num_resamples: int = NUM_RESAMPLES, seed: int = 0
) -> dict[str, np.ndarray]:
    """Every metric that can be resampled -> its values (num_resamples,) float64."""
    out: dict[str, np.ndarray] = {}
    for measurement in measurements:
        num_images = measurement.num_items if measurement.num_clusters is None else measurement.num_clusters
        if measurement.resample is None or not num_images:
            continue
        chunks = [
            measurement.resample(weights)
            for weights in resampling_weights(num_images, num_resamples=num_resamples, seed=seed)
        ]
        out |= {name: np.concatenate([chunk[name] for chunk in chunks]) for name in chunks[0]}
    return out


def percentile_intervals(values: Mapping[str, np.ndarray], level: float = LEVEL) -> dict[str, tuple[float, float]]:
    """Replicates by name -> (low, high). Resamples in which there is nothing to measure (NaN) are left out; a metric
    with nothing else has no interval."""
    tails = [(1 - level) / 2, (1 + level) / 2]
    out: dict[str, tuple[float, float]] = {}
    for name, drawn in values.items():
        finite = drawn[np.isfinite(drawn)]
        if finite.size:
            low, high = np.quantile(finite, tails)
            out[name] = (float(low), float(high))
    return out


def intervals(
    measurements: Sequence[Measurement], *, num_resamples: int = NUM_RESAMPLES, seed: int = 0
) -> dict[str, tuple[float, float]]:
    """95 % interval (low, high) of every metric that can be resampled."""
    return percentile_intervals(replicates(measurements, num_resamples=num_resamples, seed=seed))
