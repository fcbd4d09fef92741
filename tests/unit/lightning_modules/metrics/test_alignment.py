"""Alignment error rate: the example worked by hand, and a published system's on two published sets."""

from __future__ import annotations

import numpy as np
import pytest

from contracts.errors import DataError
from lightning_modules.metrics.alignment import AlignmentScores, measure_alignment

A, S, P = [(1, 1), (2, 2), (3, 2)], [(1, 1), (2, 2)], [(3, 3)]


def test_by_hand() -> None:
    """|A & S| = |A & P| = 2 of |A| = 3 and |S| = 2: 1 - 4/5."""
    measured = measure_alignment([A], [S], [P])
    assert measured.values["AER"] == pytest.approx(0.2)
    assert measured.values["alignment_precision"] == pytest.approx(2 / 3)
    assert measured.values["alignment_recall"] == 1.0
    # 3-2 stands one source place beside 2-2: right.
    assert measured.values["AER_within_1"] == 0.0
    # One target place beside is another word's link.
    assert measure_alignment([[(1, 2)]], [[(1, 1)]], [[]]).values["AER_within_1"] == 1.0


def test_sums_over_the_corpus_and_draws_sentences_again() -> None:
    measured = measure_alignment([A, [(0, 0)]], [S, [(4, 4)]], [P, []])
    assert measured.values["AER"] == pytest.approx(1 - 4 / 7)
    drawn = measured.resample(np.array([[1.0, 1.0], [2.0, 0.0], [0.0, 2.0]]))
    np.testing.assert_allclose(drawn["AER"], [1 - 4 / 7, 0.2, 1.0])


def test_pairs_that_nobody_aligned_are_left_out() -> None:
    metric = AlignmentScores()
    none = np.zeros((0, 2), np.int64)
    metric.update(
        [{"id": i, "links": links} for i, links in enumerate([np.array(A), None, np.array(A), none])],
        [{"id": 0, "links": np.array(S), "possible_links": np.array(P)}, {"id": 1, "links": np.array(S)}, {"id": 2},
         {"id": 3, "links": none, "possible_links": none}],
    )  # fmt: skip
    (measured,) = metric.measure()
    assert measured.num_items == 2 and measured.values["AER"] == pytest.approx(0.2)
    metric.reset()
    metric.update([{"id": 0, "links": None}], [{"id": 0, "links": np.array(S)}])
    assert metric.measure() == [] and metric.compute() == {}
    with pytest.raises(DataError, match="another shape"):
        metric.update([{"id": 0, "links": np.array([1, 2, 3])}], [{"id": 0, "links": np.array(S)}])
