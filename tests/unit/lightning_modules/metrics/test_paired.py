"""The difference of two runs: against a hand calculation, and against a truth that is known."""

from __future__ import annotations

import numpy as np
import pytest

from lightning_modules.metrics.bootstrap import replicates
from lightning_modules.metrics.paired import difference
from tests.evaluated_runs import accuracy


def test_by_hand() -> None:
    """Of five resamples the differences are 1, 2, 3, 4, 5 hundredths: 2.5 % of the way from the first to the last lies
    a tenth of a step behind the first."""
    second = np.array([0.3, 0.5, 0.4, 0.2, 0.1])
    first = second + np.array([0.03, 0.01, 0.05, 0.02, 0.04])
    found = difference((0.63, 0.6), (first, second))
    assert found.value == pytest.approx(0.03)
    assert (found.low, found.high) == (pytest.approx(0.011), pytest.approx(0.049))
    assert found.verdict == "better"
    assert difference((0.6, 0.63), (second, first)).verdict == "worse"
    assert difference((0.63, 0.6), (first, second), "min").verdict == "worse", "where less is better"
    assert difference((0.6, 0.63), (second, first), "min").verdict == "better"


def test_zero_in_the_interval_is_cannot_tell() -> None:
    drawn = np.array([-1.0, 0.0, 1.0, 2.0]), np.zeros(4)
    assert difference((0.5, 0.0), drawn).verdict == "cannot tell"
    same = np.array([0.1, 0.2])
    assert difference((0.1, 0.1), (same, same)).verdict == "cannot tell", "a run is as good as itself"


def test_without_resamples_nothing_is_claimed() -> None:
    found = difference((0.9, 0.1), None)
    assert (found.value, found.low, found.high, found.verdict) == (0.8, None, None, "cannot tell")
    nothing = np.array([np.nan, np.nan])
    assert difference((0.9, 0.1), (nothing, nothing)).verdict == "cannot tell"


def test_a_resample_without_anything_to_measure_is_left_out_of_both() -> None:
    first, second = np.array([np.nan, 0.3, 0.4]), np.array([0.9, 0.1, np.nan])
    found = difference((0.3, 0.1), (first, second))
    assert (found.low, found.high) == (pytest.approx(0.2), pytest.approx(0.2))


def shares(accuracies: tuple[float, float], *, pairs: int, items: int, seed: int) -> dict[str, float]:
    """How often each verdict comes of two runs that get so many items right, each item as hard for both."""
    generator, counts = np.random.default_rng(seed), {"better": 0, "worse": 0, "cannot tell": 0}
    for _ in range(pairs):
        hard = generator.random(items)
        runs = [(0.5 * hard + 0.5 * generator.random(items) < share).astype(float) for share in accuracies]
        values = tuple(float(run.mean()) for run in runs)
        drawn = tuple(replicates([accuracy(run)], num_resamples=400)["top1"] for run in runs)
        counts[difference(values, drawn).verdict] += 1  # type: ignore[arg-type]
    return {verdict: count / pairs for verdict, count in counts.items()}


def test_two_runs_of_one_distribution_are_not_told_apart_in_95_of_100() -> None:
    """400 pairs: three standard errors are 3.3 %."""
    found = shares((0.6, 0.6), pairs=400, items=300, seed=1)
    assert found["cannot tell"] == pytest.approx(0.95, abs=0.033)
    assert found["better"] > 0 and found["worse"] > 0, "and the rest goes both ways"


def test_a_run_that_is_better_is_told() -> None:
    found = shares((0.7, 0.5), pairs=40, items=300, seed=2)
    assert found == {"better": 1, "worse": 0, "cannot tell": 0}


def test_the_same_items_make_a_narrower_interval_than_two_alone() -> None:
    """What is hard for both goes out of the difference."""
    generator = np.random.default_rng(3)
    hard = generator.random(500)
    runs = [(0.9 * hard + 0.1 * generator.random(500) < share).astype(float) for share in (0.60, 0.57)]
    drawn = [replicates([accuracy(run)])["top1"] for run in runs]
    paired = difference((runs[0].mean(), runs[1].mean()), (drawn[0], drawn[1]))
    alone = difference((runs[0].mean(), runs[1].mean()), (drawn[0], generator.permutation(drawn[1])))
    assert paired.low is not None and paired.high is not None and alone.low is not None and alone.high is not None
    assert paired.high - paired.low < 0.6 * (alone.high - alone.low)
    assert (paired.verdict, alone.verdict) == ("better", "cannot tell")
