"""Bootstrap intervals: what is drawn, that they cover, and that systems on one split see the same draws."""

import numpy as np
import pytest

from lightning_modules.metrics.bootstrap import intervals, percentile_intervals, replicates, resampling_weights
from lightning_modules.metrics.measurement import Measurement, ratio_of_sums


def mean_of(values: np.ndarray, name: str = "mean") -> Measurement:
    return Measurement(
        values={name: float(values.mean())},
        variant="mean",
        source="test",
        num_items=len(values),
        resample=lambda weights: {name: ratio_of_sums(weights, values, np.ones(len(values)))},
    )


def test_every_draw_has_as_many_images_as_the_split():
    chunks = list(resampling_weights(70_000, num_resamples=50, seed=1))
    assert len(chunks) > 1 and sum(len(c) for c in chunks) == 50
    assert all((c.sum(axis=1) == 70_000).all() for c in chunks)
    again = np.concatenate(list(resampling_weights(70_000, num_resamples=50, seed=1)))
    np.testing.assert_array_equal(np.concatenate(chunks), again)
    first, second = (next(resampling_weights(9, num_resamples=5, seed=seed)) for seed in (1, 2))
    assert (first != second).any()


def test_the_interval_of_a_mean_is_the_one_of_statistics():
    values = np.random.default_rng(0).normal(3, 2, 400)
    low, high = intervals([mean_of(values)], num_resamples=4000)["mean"]
    half = 1.96 * values.std(ddof=1) / 20
    assert (low, high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.02)


def test_nine_of_ten_intervals_hold_the_truth():
    rng = np.random.default_rng(1)
    found = [intervals([mean_of(rng.normal(0, 1, 100))], num_resamples=300, seed=i)["mean"] for i in range(200)]
    assert 0.9 <= np.mean([low <= 0 <= high for low, high in found]) <= 0.99


def test_two_systems_on_one_split_are_drawn_alike():
    values = np.random.default_rng(0).normal(0, 1, 50)
    first, second = replicates([mean_of(values)]), replicates([mean_of(values + 0.1)])
    np.testing.assert_allclose(second["mean"] - first["mean"], 0.1)  # paired: the difference does not vary


def test_what_cannot_be_measured_has_no_interval():
    assert intervals([Measurement(values={"METEOR": 0.2}, variant="", source="", num_items=3)]) == {}
    empty = Measurement(values={"x": 0.0}, variant="", source="", num_items=0, resample=lambda weights: {})
    assert intervals([empty]) == {}
    some = {"some": np.array([np.nan, 1.0, 1.0]), "none": np.array([np.nan])}
    assert percentile_intervals(some) == {"some": (1.0, 1.0)}
