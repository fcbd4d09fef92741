"""Plots become a CSV and a PNG that is the same each time."""

import csv
import math
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from contracts.errors import DataError
from lightning_modules.reports._plots import Plot, heat
from pipeline.measuring.charts import draw, write_chart, write_table

CURVE = Plot(
    name="pr",
    kind="curve",
    columns=("class", "recall", "precision"),
    rows=[("cat", 0.0, 1.0), ("dog", 0.0, 0.9), ("cat", 1.0, 0.5), ("dog", 1.0, math.nan)],
    x="recall",
    y="precision",
    series="class",
    title="precision and recall",
)
CONFUSION = Plot(
    name="confusion",
    kind="confusion",
    columns=("predicted", "truth", "count"),
    rows=[("cat", "cat", 8), ("dog", "cat", 2), ("cat", "dog", 5)],
    x="predicted",
    y="truth",
)
BAR = Plot(
    name="ap", kind="bar", columns=("class", "AP"), rows=[("a $x_y", 0.25), ("none", math.nan)], x="class", y="AP"
)
HEAT = heat(
    "attention", ["la", "zone", "."], ["the", "area"], np.array([[0.9, 0.1], [0.2, 0.8], [0.5, 0.5]]), {(0, 0), (1, 1)},
    row="target", column="source",
)  # fmt: skip


@pytest.mark.parametrize("plot", [CURVE, CONFUSION, BAR, HEAT], ids=lambda plot: plot.kind)
def test_files_hold_the_table_and_are_equal_each_time(plot: Plot, tmp_path: Path) -> None:
    table, picture = write_table(plot, tmp_path / "a"), write_chart(plot, tmp_path / "a")
    again = write_table(plot, tmp_path / "b"), write_chart(plot, tmp_path / "b")
    assert [path.read_bytes() for path in again] == [table.read_bytes(), picture.read_bytes()]
    with open(table, newline="") as file:
        rows = list(csv.reader(file))
    assert tuple(rows[0]) == plot.columns
    assert len(rows) == 1 + len(plot.rows)
    image = cv2.imread(str(picture))
    assert image.shape[0] > 200
    assert image.std() > 5


def test_a_value_that_is_not_finite_is_an_empty_cell(tmp_path: Path) -> None:
    table = write_table(BAR, tmp_path)
    assert table.read_text() == "class,AP\na $x_y,0.25\nnone,\n"


def test_a_map_keeps_the_order_of_words_and_frames_what_is_marked() -> None:
    axes = draw(HEAT).axes[0]
    assert axes.images[0].get_array().tolist() == [[0.9, 0.1], [0.2, 0.8], [0.5, 0.5]]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["la", "zone", "."], "without their places"
    assert [label.get_text() for label in axes.get_xticklabels()] == ["the", "area"]
    middles = [
        (patch.get_x() + patch.get_width() / 2, patch.get_y() + patch.get_height() / 2) for patch in axes.patches
    ]
    assert middles == [pytest.approx((0, 0)), pytest.approx((1, 1))]


def test_a_curve_has_a_line_for_each_value_of_the_series() -> None:
    lines = {line.get_label(): line.get_xydata().tolist() for line in draw(CURVE).axes[0].lines}
    assert lines["cat"] == [[0.0, 1.0], [1.0, 0.5]]
    assert lines["dog"][0] == [0.0, 0.9]


def test_confusion_shows_shares_of_the_true_class_in_its_rows() -> None:
    axes = draw(CONFUSION).axes[0]
    assert axes.images[0].get_array().tolist() == [[0.8, 0.2], [1.0, 0.0]]
    assert axes.get_ylabel() == "truth"
    assert sorted(text.get_text() for text in axes.texts) == ["0.20", "0.80", "1.00"]


def test_many_classes_and_no_rows_can_be_drawn(tmp_path: Path) -> None:
    names = [f"a class with a name beyond all measure {i}" for i in range(70)]
    rows = [(a, b, int(a == b)) for a in names for b in names]
    write_chart(
        Plot(name="big", kind="confusion", columns=("truth", "predicted", "count"), rows=rows, x="", y=""), tmp_path
    )
    empty = Plot(name="empty", kind="curve", columns=("x", "y"), rows=[], x="x", y="y")
    table = write_table(empty, tmp_path)
    assert table.read_text() == "x,y\n"
    assert draw(empty).axes[0].texts[0].get_text() == "no data"


@pytest.mark.parametrize("write", [write_table, write_chart])
def test_a_plot_that_contradicts_itself_is_refused(write: Callable[[Plot, Path], Path], tmp_path: Path) -> None:
    with pytest.raises(DataError, match="missing columns \\['y'\\]"):
        write(Plot(name="bad", kind="curve", columns=("x",), rows=[(1,)], x="x", y="y"), tmp_path)
    with pytest.raises(DataError, match="1 rows of another length"):
        write(Plot(name="bad", kind="bar", columns=("x", "y"), rows=[(1,)], x="x", y="y"), tmp_path)
    assert list(tmp_path.iterdir()) == []
