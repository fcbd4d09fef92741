"""Text recognition by script, without regard to case, and which way attention walks over the picture.

Shapes: S characters of a text, T columns of a picture.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import replace

import numpy as np

from lightning_modules.metrics.item_metric import Id, Item, ItemMetric, by_groups, part, text
from lightning_modules.metrics.measurement import SOURCE, Measurement, Resample, ratio_of_sums
from lightning_modules.metrics.text import measure_recognition

_FEWEST = 3  # characters: through two points there always is a line
_SHARES = ("word_accuracy", "CER", "1-NED")


class RecognitionByScript(ItemMetric):
    """`word_accuracy/<script>`, `CER/<script>`, `1-NED/<script>` as of `measure_recognition`, and the same of all texts
    in small letters, `word_accuracy/lower` and so on, which scene text is mostly compared by (1904.01906 also leaves
    out all but letters of English and digits, which is not done here).

    Prediction: `text`. Truth: `text`, `script`.
    """

    def keep(self, prediction: Item, truth: Item) -> tuple[str, str, str]:
        return text(prediction, "text", "prediction"), text(truth, "text", "truth"), text(truth, "script", "truth")

    def measure_kept(self, kept: Mapping[Id, tuple[str, str, str]], groups: Mapping[Id, Hashable]) -> list[Measurement]:
        rows = list(kept.values())
        if not rows:
            return []
        read, wanted = [row[0] for row in rows], [row[1] for row in rows]
        measured = [_named(measure_recognition(read, wanted, case="lower"), "lower", np.arange(len(rows)), len(rows))]
        for script in sorted({row[2] for row in rows}):
            places = np.flatnonzero([row[2] == script for row in rows])
            own = measure_recognition([read[i] for i in places], [wanted[i] for i in places])
            measured.append(_named(own, script, places, len(rows)))
        return by_groups(measured, groups)


def _named(measured: Measurement, suffix: str, places: np.ndarray, num_all: int) -> Measurement:
    """The scores of the items at `places` among all `num_all`, which are drawn, under names of their own."""
    resample = measured.resample
    assert resample is not None

    def of_all(weights: np.ndarray) -> dict[str, np.ndarray]:
        drawn = resample(weights[:, places])
        return {f"{name}/{suffix}": drawn[name] for name in _SHARES}

    values = {f"{name}/{suffix}": measured.values[name] for name in _SHARES}
    return replace(measured, values=values, resample=of_all, num_clusters=num_all)


class ReadingWalk(ItemMetric):
    """`walks_left/<script>`: the share of texts over which attention goes from right to left while it writes: the line
    through its centers, one a character, falls. Texts of fewer than three written characters are left out.

    Prediction: `attention` (S, T), how much each column was looked at. Truth: `script`.
    """

    def keep(self, prediction: Item, truth: Item) -> tuple[str, float]:
        weights = np.asarray(part(prediction, "attention", "prediction"), np.float64)
        script = text(truth, "script", "truth")
        if len(weights) < _FEWEST or weights.ndim != 2 or not weights.shape[1]:
            return script, 0.0
        return script, float(np.polyfit(np.arange(len(weights)), centers(weights), 1)[0])

    def measure_kept(self, kept: Mapping[Id, tuple[str, float]], groups: Mapping[Id, Hashable]) -> list[Measurement]:
        slopes = np.array([slope for _, slope in kept.values()])
        scripts = np.array([script for script, _ in kept.values()])
        found = sorted({script for script, slope in kept.values() if slope})
        if not found:
            return []
        resample = _shares(slopes, scripts, found)
        whole = resample(np.ones((1, len(slopes))))
        measured = Measurement(
            values={name: float(values[0]) for name, values in whole.items()},
            variant="least-squares slope of the mean column over characters below 0; of at least 3 characters",
            source=SOURCE,
            num_items=int((slopes != 0).sum()),
            unit="texts",
            num_clusters=len(slopes),
            resample=resample,
        )
        return by_groups([measured], groups)


def centers(weights: np.ndarray) -> np.ndarray:
    """(S, T) -> (S,): the mean column that each character looked at, as a share of the width in 0..1."""
    weights = np.asarray(weights, np.float64)
    places = (np.arange(weights.shape[1]) + 0.5) / max(1, weights.shape[1])
    return np.asarray(weights @ places / np.maximum(weights.sum(axis=1), 1e-12))


def _shares(slopes: np.ndarray, scripts: np.ndarray, found: list[str]) -> Resample:
    def resample(weights: np.ndarray) -> dict[str, np.ndarray]:
        counted = {script: (scripts == script) & (slopes != 0) for script in found}
        return {
            f"walks_left/{script}": ratio_of_sums(weights, own & (slopes < 0), own) for script, own in counted.items()
        }

    return resample
