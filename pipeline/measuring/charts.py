"""A report's `Plot` as CSV and as PNG (for `dvc plots`), drawn with Matplotlib's object API: no global state.

Colours are Okabe and Ito's, which stay apart for colour-blind eyes; lines differ by dash as well. Equal plots give
equal bytes.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from contracts.errors import DataError
from lightning_modules.reports._plots import Plot

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
DASHES = ("-", "--", "-.", ":")
DPI = 110
MAX_LABEL = 24  # characters of a name on an axis
MAX_NUMBERS = 25  # classes up to which a confusion matrix shows its shares as text
MAX_TICKS = 60  # names an axis can hold legibly


def write_table(plot: Plot, folder: Path) -> Path:
    """Write `<folder>/<name>.csv`.

    Raises:
        DataError: the plot names a column that it does not have, or a row has another length.
    """
    _check(plot)
    table = folder / f"{plot.name}.csv"
    table.parent.mkdir(parents=True, exist_ok=True)
    with open(table, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(plot.columns)
        writer.writerows([_cell(value) for value in row] for row in plot.rows)
    return table


def write_chart(plot: Plot, folder: Path) -> Path:
    """Write `<folder>/<name>.png`.

    Raises:
        DataError: as of `write_table`.
    """
    _check(plot)
    picture = folder / f"{plot.name}.png"
    picture.parent.mkdir(parents=True, exist_ok=True)
    FigureCanvasAgg(draw(plot)).print_png(picture, metadata={"Software": None})  # no version in the file
    return picture


def _check(plot: Plot) -> None:
    own = {"confusion": ("truth", "predicted", "count"), "heat": (plot.x, plot.y, "weight", "marked")}
    wanted = own.get(plot.kind, (plot.x, plot.y, plot.series))
    missing = [name for name in wanted if name is not None and name not in plot.columns]
    uneven = [row for row in plot.rows if len(row) != len(plot.columns)]
    if missing or uneven:
        raise DataError(
            f"plot {plot.name!r} contradicts itself",
            value=f"missing columns {missing}, {len(uneven)} rows of another length",
            allowed=f"columns {', '.join(plot.columns)}",
        )


def _cell(value: Any) -> Any:
    """What is not finite becomes an empty cell: readers would take "nan" for a name."""
    return "" if isinstance(value, float) and not math.isfinite(value) else value


def draw(plot: Plot) -> Figure:
    """The plot as a figure; a plot without rows says so."""
    figure = Figure(figsize=(7.0, 4.6), dpi=DPI, layout="constrained")
    axes = figure.add_subplot()
    axes.set_title(_plain(plot.title or plot.name), fontsize=11)
    if not plot.rows:
        axes.text(0.5, 0.5, "no data", ha="center", va="center", transform=axes.transAxes)
        axes.set_axis_off()
    elif plot.kind == "curve":
        _curve(axes, plot)
    elif plot.kind == "bar":
        _bar(figure, axes, plot)
    elif plot.kind == "heat":
        _heat(figure, axes, plot)
    else:
        _confusion(figure, axes, plot)
    return figure


def _plain(text: Any) -> str:
    """A text that Matplotlib takes for no formula and that fits beside an axis."""
    label = str(text)
    return (label if len(label) <= 80 else f"{label[:79]}…").replace("$", r"\$")


def _name(text: Any) -> str:
    label = str(text)
    return (label if len(label) <= MAX_LABEL else f"{label[: MAX_LABEL - 1]}…").replace("$", r"\$")


def _column(plot: Plot, name: str) -> list[Any]:
    position = plot.columns.index(name)
    return [row[position] for row in plot.rows]


def _numbers(values: Sequence[Any]) -> np.ndarray:
    """float64; None is NaN, which a line leaves open and a bar leaves out."""
    return np.array([math.nan if value is None else float(value) for value in values])


def _curve(axes: Axes, plot: Plot) -> None:
    x, y = _numbers(_column(plot, plot.x)), _numbers(_column(plot, plot.y))
    names = _column(plot, plot.series) if plot.series else [""] * len(x)
    series = list(dict.fromkeys(names))
    for i, name in enumerate(series):
        chosen = [k for k, other in enumerate(names) if other == name]
        colour, dash = COLOURS[i % len(COLOURS)], DASHES[i // len(COLOURS) % len(DASHES)]
        marker = "o" if len(chosen) <= 30 else ""
        axes.plot(
            x[chosen], y[chosen], dash, color=colour, marker=marker, markersize=3, linewidth=1.6, label=_name(name)
        )
    axes.set_xlabel(_plain(plot.x))
    axes.set_ylabel(_plain(plot.y))
    for values, limit in ((x, axes.set_xlim), (y, axes.set_ylim)):
        finite = values[np.isfinite(values)]
        if finite.size and finite.min() >= 0 and 0.3 < finite.max() <= 1:  # shares and probabilities: comparable by eye
            limit(-0.02, 1.02)
    axes.grid(alpha=0.3)
    if plot.series:
        outside = len(series) > 6
        place: dict[str, Any] = {"loc": "center left", "bbox_to_anchor": (1.01, 0.5)} if outside else {"loc": "best"}
        axes.legend(fontsize=8, title=_name(plot.series), ncols=1 + (len(series) - 1) // 20, **place)


def _bar(figure: Figure, axes: Axes, plot: Plot) -> None:
    """Lying bars, so that names are read without turning the head; first row on top."""
    names, values = [_name(name) for name in _column(plot, plot.x)], _numbers(_column(plot, plot.y))
    figure.set_figheight(max(2.2, 1.2 + 0.26 * len(names)))
    places = np.arange(len(names))
    bars = axes.barh(places, np.nan_to_num(values, posinf=0, neginf=0), color=COLOURS[0], height=0.7)
    axes.bar_label(bars, [f"{value:.3g}" if np.isfinite(value) else "none" for value in values], padding=3, fontsize=8)
    axes.set_yticks(places, names, fontsize=8)
    axes.invert_yaxis()
    axes.margins(x=0.1, y=0.01)
    axes.set_xlabel(_plain(plot.y))
    axes.spines[["top", "right"]].set_visible(False)


def _confusion(figure: Figure, axes: Axes, plot: Plot) -> None:
    """Rows are the truth; colour is the share of the row, so rare classes show as well as frequent ones."""
    truths, predicted = _column(plot, "truth"), _column(plot, "predicted")
    names = list(dict.fromkeys([*truths, *predicted]))
    position = {name: i for i, name in enumerate(names)}
    counts = np.zeros((len(names), len(names)))
    for truth, guess, count in zip(truths, predicted, _numbers(_column(plot, "count")), strict=True):
        counts[position[truth], position[guess]] += count
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1e-12)
    side = min(20.0, max(4.2, 1.8 + 0.42 * len(names)))
    figure.set_size_inches(side + 0.8, side)
    image = axes.imshow(shares, cmap="cividis", vmin=0, vmax=1)
    figure.colorbar(image, ax=axes, label="share of the true class", shrink=0.8)
    if len(names) <= MAX_NUMBERS:
        for row, column in zip(*np.nonzero(shares >= 0.005), strict=True):
            colour = "black" if shares[row, column] > 0.5 else "white"
            axes.text(column, row, f"{shares[row, column]:.2f}", ha="center", va="center", fontsize=7, color=colour)
    every = 1 + (len(names) - 1) // MAX_TICKS
    ticks, labels = range(0, len(names), every), [_name(name) for name in names[::every]]
    axes.set_xticks(ticks, labels, rotation=90, fontsize=8)
    axes.set_yticks(ticks, labels, fontsize=8)
    axes.set_xlabel("predicted")
    axes.set_ylabel("truth")


def _heat(figure: Figure, axes: Axes, plot: Plot) -> None:
    """Black for 0, white for 1; a frame around what is marked. Names begin with their place, which is not drawn."""
    rows, columns = (list(dict.fromkeys(_column(plot, name))) for name in (plot.y, plot.x))
    weights = _numbers(_column(plot, "weight")).reshape(len(rows), len(columns))
    marked = _numbers(_column(plot, "marked")).reshape(weights.shape)
    figure.set_size_inches(max(4.5, 1.8 + 0.34 * len(columns)), max(3.6, 1.8 + 0.34 * len(rows)))
    image = axes.imshow(weights, cmap="gray", vmin=0, vmax=1)
    figure.colorbar(image, ax=axes, label="weight", shrink=0.8)
    for row, column in np.argwhere(marked > 0):
        place = (column - 0.44, row - 0.44)
        axes.add_patch(Rectangle(place, 0.88, 0.88, fill=False, edgecolor=COLOURS[1], linewidth=1.8))
    names = [[_name(str(name).partition(" ")[2]) for name in part] for part in (columns, rows)]
    axes.set_xticks(range(len(columns)), names[0], rotation=90, fontsize=8)
    axes.set_yticks(range(len(rows)), names[1], fontsize=8)
    axes.xaxis.tick_top()
    axes.xaxis.set_label_position("top")
    axes.set_xlabel(_plain(plot.x))
    axes.set_ylabel(_plain(plot.y))
