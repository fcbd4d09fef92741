"""Multi-label classification: precision over recall and average precision of each class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from contracts.records import Record
from lightning_modules.augment.images import decode_record
from lightning_modules.base.task import Prediction, Truth
from lightning_modules.drawing import text as draw
from lightning_modules.metrics.multilabel import class_rankings
from lightning_modules.reports import _plots
from lightning_modules.reports._plots import Plot
from lightning_modules.reports._report import BaseReport
from lightning_modules.tasks.multilabel_classification import Task

_PICTURE_PX = 420
_NUM_SHOWN = 10


class Report(BaseReport[Task]):
    def constant(self, truths: Mapping[str, Truth]) -> dict[str, Prediction]:
        """Each class's share of the images that count for it: its average precision is that share."""
        labels = np.array([truth["labels"] for truth in truths.values()]).reshape(len(truths), -1)
        probs = ((labels > 0).sum(axis=0) / np.maximum((labels != 0).sum(axis=0), 1)).astype(np.float32)
        return {key: {"probs": probs} for key in truths}

    def picture(self, record: Record, predictions: Sequence[Prediction], truths: Sequence[Truth] | None) -> np.ndarray:
        """The image over the classes that are said to be there, or are, the most probable first: green where that is
        right, red where it is wrong (found where it is not, or missed), grey where it counts for nothing or nobody
        knows better and it is below `picture_score`, blue above it."""
        (prediction,) = predictions
        names, probs, least = self.task.data.classes, prediction["probs"], self.task.config.picture_score
        labels = None if truths is None else truths[0]["labels"]
        ranked = self.task.ranked(prediction)
        shown = [i for i in ranked if probs[i] >= least or (labels is not None and labels[i] >= 0)] or ranked[:1]
        bars = [(names[i], float(probs[i]), _color(probs[i] >= least, labels, i)) for i in shown[:_NUM_SHOWN]]
        parts = [draw.fit(decode_record(record), _PICTURE_PX), draw.bars(bars, _PICTURE_PX)]
        if labels is not None:
            told = [names[i] + " (difficult)" * bool(labels[i] == 0) for i in np.flatnonzero(labels >= 0)]
            parts.insert(1, draw.text_block([(f"truth: {', '.join(told) or 'none'}", draw.BLACK)], _PICTURE_PX))
        return draw.stack(parts)

    def plots(self, predictions: Mapping[str, Prediction], truths: Mapping[str, Truth]) -> list[Plot]:
        names = self.task.data.classes
        items = [(predictions[key]["probs"], truth["labels"]) for key, truth in truths.items()]
        rankings = {n: r for n, r in zip(names, class_rankings(items, len(names)), strict=True) if r.shows.any()}
        ones = np.ones((1, len(items)))
        curves = {}
        for name, ranking in rankings.items():
            recall, precision = ranking.curves(ones)
            curves[name] = (recall[0], precision[0])
        aps = [(name, float(ranking.average_precisions(ones)[1, 0])) for name, ranking in rankings.items()]
        return [
            _plots.precision_recall("pr_curve", "Images by class", curves),
            _plots.bar("class_ap", ("class", "AP"), aps),
        ]


def _color(is_found: bool, labels: np.ndarray | None, place: int) -> draw.Colour:
    if labels is None:
        return draw.BLUE if is_found else draw.GREY
    if labels[place] == 0:
        return draw.GREY
    return draw.GREEN if is_found == (labels[place] > 0) else draw.RED
