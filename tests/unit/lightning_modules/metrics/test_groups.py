"""Resamples of items and of the groups that they belong to."""

import numpy as np
import pytest

from lightning_modules.metrics.bootstrap import intervals
from lightning_modules.metrics.groups import by_group
from lightning_modules.metrics.measurement import Measurement, ratio_of_sums

VALUES = np.array([1.0, 0.0, 0.5, 1.0])
IDS = ["d", "a", "c", "b"]


def mean(values: np.ndarray) -> Measurement:
    return Measurement(
        values={"mean": float(values.mean())},
        variant="",
        source="",
        num_items=len(values),
        resample=lambda weights: {"mean": ratio_of_sums(weights, values, np.ones(len(values)))},
    )


def test_a_group_is_drawn_with_all_its_items():
    groups = {"a": "y", "b": "x", "c": "y", "d": "x"}  # x: 1 and 1; y: 0 and 0.5
    grouped = by_group(mean(VALUES), IDS, groups)
    assert grouped.num_clusters == 2 and grouped.num_items == 4 and grouped.values == {"mean": 0.625}
    assert grouped.resample is not None
    drawn = grouped.resample(np.array([[2.0, 0.0], [0.0, 2.0], [1.0, 1.0]]))["mean"]
    assert drawn == pytest.approx([1, 0.25, 0.625])


def test_items_by_themselves_keep_their_digits():
    plain = mean(VALUES)
    assert by_group(plain, IDS, None) is plain
    assert by_group(plain, IDS, {name: f"{name}!" for name in IDS}) is plain
    nothing = Measurement(values={}, variant="", source="", num_items=4)
    assert by_group(nothing, IDS, dict.fromkeys(IDS, "x")) is nothing, "what has no interval gets none"


def test_copies_of_an_item_make_no_interval_narrower():
    """Each value ten times over: by items the interval shrinks by root ten, by groups it is that of the originals."""
    values = np.random.default_rng(0).random(40)
    copied = mean(np.repeat(values, 10))
    ids = [str(i) for i in range(400)]
    groups = {name: f"{int(name) // 10:02d}" for name in ids}
    width = {
        name: np.diff(intervals([m])["mean"])[0]
        for name, m in (("plain", mean(values)), ("items", copied), ("groups", by_group(copied, ids, groups)))
    }
    assert width["groups"] == pytest.approx(width["plain"], rel=1e-9)
    assert width["items"] < 0.5 * width["groups"]
