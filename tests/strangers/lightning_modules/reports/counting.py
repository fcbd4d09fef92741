"""Counting: the image over the count that was predicted, and the true one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from contracts.records import Record
from lightning_modules.augment.images import decode_record
from lightning_modules.base.task import Prediction, Truth
from lightning_modules.drawing import text as draw
from lightning_modules.reports import _plots
from lightning_modules.reports._plots import Plot
from lightning_modules.reports._report import BaseReport
from lightning_modules.tasks.counting import Task

_PICTURE_PX = 240


class Report(BaseReport[Task]):
    def constant(self, truths: Mapping[str, Truth]) -> dict[str, Prediction]:
        """The median, which no other constant has a smaller absolute error than."""
        median = float(np.median([truth["count"] for truth in truths.values()])) if truths else 0.0
        return {item: {"count": median} for item in truths}

    def picture(self, record: Record, predictions: Sequence[Prediction], truths: Sequence[Truth] | None) -> np.ndarray:
        lines = [(f"counted: {predictions[0]['count']:.2f}", draw.BLUE)]
        if truths is not None:
            lines.append((f"truth: {truths[0]['count']}", draw.BLACK))
        return draw.stack([draw.fit(decode_record(record), _PICTURE_PX), draw.text_block(lines, _PICTURE_PX)])

    def plots(self, predictions: Mapping[str, Prediction], truths: Mapping[str, Truth]) -> list[Plot]:
        pairs = [(str(truths[item]["count"]), str(round(predictions[item]["count"]))) for item in sorted(truths)]
        return [_plots.confusion_of_pairs("confusion", pairs, shown=10, title="Counts")]
