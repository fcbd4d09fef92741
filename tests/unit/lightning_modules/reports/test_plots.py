"""The makers of plots: which rows a table gets."""

import numpy as np
import pytest

from lightning_modules.reports import _plots


def test_a_bar_is_named_by_the_first_column_and_as_long_as_the_last():
    plot = _plots.bar("errors", ("error", "kind", "gain"), [("wrong class", "Cls", 0.1)], title="t")
    assert (plot.x, plot.y, plot.kind, plot.title) == ("error", "gain", "bar", "t")
    assert plot.rows == [("wrong class", "Cls", 0.1)]


def test_confusions_of_a_matrix_have_a_row_for_every_cell():
    plot = _plots.confusion_of_matrix("c", ("a", "b"), np.array([[3, 1], [0, 2]]))
    assert plot.rows == [("a", "a", 3), ("a", "b", 1), ("b", "a", 0), ("b", "b", 2)]
    assert plot.columns == ("truth", "predicted", "count") and (plot.x, plot.y) == ("predicted", "truth")


def test_confusions_of_pairs_show_the_most_frequent_truths():
    pairs = [("a", "a"), ("a", "b"), ("b", "b"), ("a", "c"), ("b", "a"), ("c", "a")]
    plot = _plots.confusion_of_pairs("c", pairs, shown=2)
    assert plot.rows == [("a", "(other)", 1), ("a", "a", 1), ("a", "b", 1), ("b", "a", 1), ("b", "b", 1)]
    assert _plots.confusion_of_pairs("c", [], shown=2).rows == []


def test_curves_are_thinned_from_end_to_end():
    recall = np.linspace(0, 1, 1001)
    plot = _plots.precision_recall("pr", "t", {"long": (recall, 1 - recall), "none": (recall[:0], recall[:0])})
    assert len(plot.rows) == _plots.MAX_CURVE_POINTS
    assert plot.rows[0] == ("long", 0.0, 1.0) and plot.rows[-1] == ("long", 1.0, 0.0)
    assert plot.series == "class"


def test_a_histogram_of_lengths_has_shares_of_each_kind():
    plot = _plots.length_histogram("l", {"predicted": [1, 3, 3], "reference": [2]}, series="texts", title="t")
    assert plot.columns == ("num_words", "share", "texts") and plot.series == "texts"
    assert plot.rows == [
        (0, 0.0, "predicted"), (1, pytest.approx(1 / 3), "predicted"), (2, 0.0, "predicted"),
        (3, pytest.approx(2 / 3), "predicted"), (0, 0.0, "reference"), (1, 0.0, "reference"), (2, 1.0, "reference"),
        (3, 0.0, "reference"),
    ]  # fmt: skip
    assert _plots.length_histogram("l", {"predicted": []}, series="texts", title="t").rows == [(0, 0.0, "predicted")]
