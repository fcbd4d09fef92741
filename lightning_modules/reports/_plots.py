"""The tables that reports draw, and the makers of the usual ones. `pipeline.measuring.charts` writes and draws them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

MAX_CURVE_POINTS = 200
OTHER = "(other)"


@dataclass(frozen=True, kw_only=True)
class Plot:
    """A table that `evaluate` writes as CSV and draws as PNG (for `dvc plots`).

    `kind` "curve": one line per value of column `series` (if any) over `x`, `y`. "confusion": columns are
    `truth`, `predicted`, `count`. "bar": `x` names, `y` values. "heat": a matrix row by row, see `heat`.
    """

    name: str
    kind: Literal["curve", "confusion", "bar", "heat"]
    columns: tuple[str, ...]
    rows: list[tuple[Any, ...]]
    x: str
    y: str
    series: str | None = None
    title: str = ""


def bar(name: str, columns: Sequence[str], rows: Iterable[tuple[Any, ...]], *, title: str = "") -> Plot:
    """One bar a row: the first column names it, the last is its length."""
    return Plot(
        name=name, kind="bar", columns=tuple(columns), rows=list(rows), x=columns[0], y=columns[-1], title=title
    )


def confusion(name: str, rows: Iterable[tuple[str, str, int]], *, title: str = "") -> Plot:
    """Rows (truth, predicted, count)."""
    return Plot(
        name=name,
        kind="confusion",
        columns=("truth", "predicted", "count"),
        rows=list(rows),
        x="predicted",
        y="truth",
        title=title,
    )


def confusion_of_matrix(name: str, labels: Sequence[str], matrix: np.ndarray, *, title: str = "") -> Plot:
    """matrix (K, K): rows truth, columns prediction."""
    rows = [(t, p, int(matrix[i, j])) for i, t in enumerate(labels) for j, p in enumerate(labels)]
    return confusion(name, rows, title=title)


def confusion_of_pairs(name: str, pairs: Sequence[tuple[str, str]], *, shown: int, title: str = "") -> Plot:
    """Pairs (truth, predicted) of the `shown` most frequent truths; what else was predicted is `OTHER`. Only pairs that
    occur have a row."""
    import torch  # not for who only draws
    from torchmetrics.functional.classification import multiclass_confusion_matrix

    frequent = [truth for truth, _ in Counter(truth for truth, _ in pairs).most_common(shown)]
    names = sorted({*frequent, OTHER})
    place = {other: i for i, other in enumerate(names)}
    counted = [(place[t], place.get(p, place[OTHER])) for t, p in pairs if t in place]
    if not counted:
        return confusion(name, [], title=title)
    truths, predicted = torch.tensor(counted).T
    matrix = multiclass_confusion_matrix(predicted, truths, len(names)).numpy()
    rows = [(names[t], names[p], int(matrix[t, p])) for t, p in np.argwhere(matrix)]
    return confusion(name, rows, title=title)


def heat(
    name: str,
    rows: Sequence[str],
    columns: Sequence[str],
    weights: np.ndarray,
    marked: Collection[tuple[int, int]] = (),
    *,
    row: str,
    column: str,
    title: str = "",
) -> Plot:
    """Weights (R, C) in 0..1 between two lists of words, a cell a row of the table: `row` and `column`, named as these
    say, `weight`, and 1 under `marked` where a frame shall be drawn. A name begins with its place, as words repeat."""
    cells = [
        (f"{i + 1} {a}", f"{j + 1} {b}", round(float(weights[i, j]), 4), int((i, j) in marked))
        for i, a in enumerate(rows)
        for j, b in enumerate(columns)
    ]
    return Plot(
        name=name, kind="heat", columns=(row, column, "weight", "marked"), rows=cells, x=column, y=row, title=title
    )


def precision_recall(name: str, title: str, curves: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> Plot:
    """Precision over recall, one line a class, thinned to `MAX_CURVE_POINTS` points each.

    Args:
        curves: class -> recall (P,) and precision (P,).
    """
    rows: list[tuple[Any, ...]] = []
    for class_name, (recall, precision) in curves.items():
        chosen = np.unique(np.linspace(0, len(recall) - 1, min(len(recall), MAX_CURVE_POINTS)).round().astype(int))
        rows += [(class_name, float(recall[i]), float(precision[i])) for i in chosen if len(recall)]
    return Plot(
        name=name,
        kind="curve",
        columns=("class", "recall", "precision"),
        rows=rows,
        x="recall",
        y="precision",
        series="class",
        title=title,
    )


def length_histogram(name: str, lengths: Mapping[str, Iterable[int]], *, series: str, title: str) -> Plot:
    """Share of texts with so many words, one line a kind of text.

    Args:
        lengths: kind -> number of words of each of its texts.
        series: what the kinds are called.
    """
    counted = {kind: Counter(numbers) for kind, numbers in lengths.items()}
    longest = max((n for counts in counted.values() for n in counts), default=0)
    rows = [
        (n, counts[n] / max(1, counts.total()), kind) for kind, counts in counted.items() for n in range(longest + 1)
    ]
    columns = ("num_words", "share", series)
    return Plot(
        name=name, kind="curve", columns=columns, rows=rows, x="num_words", y="share", series=series, title=title
    )
