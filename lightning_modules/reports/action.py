"""Action prediction: the frames that were looked at, and what was thought of them while they came in."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from contracts.records import Record
from lightning_modules.augment.images import decode_image
from lightning_modules.base.task import Prediction, Truth
from lightning_modules.drawing import text as draw
from lightning_modules.drawing.strips import curves, film
from lightning_modules.reports import _plots
from lightning_modules.reports._plots import Plot
from lightning_modules.reports._report import BaseReport
from lightning_modules.tasks.action import SHARES, Task

_NUM_CONFUSED = 20
_WIDTH_PX, _CHART_PX = 560, 110


class Report(BaseReport[Task]):
    def constant(self, truths: Mapping[str, Truth]) -> dict[str, Prediction]:
        """The most frequent class, then the next: each class's share of the clips, whatever is seen."""
        counts = np.bincount([truth["label"] for truth in truths.values()], minlength=len(self.task.data.classes))
        probs = (counts / max(1, len(truths))).astype(np.float32)
        return {key: {"probs": probs, "observed": np.tile(probs, (len(SHARES), 1))} for key in truths}

    def picture(self, record: Record, predictions: Sequence[Prediction], truths: Sequence[Truth] | None) -> np.ndarray:
        """The frames in the order in which they were shown, the class, and the probabilities over time of the best
        classes: green the true one, red a wrong one, blue where the truth is unknown."""
        (prediction,) = predictions
        names = self.task.data.classes
        top = self.task.top(prediction["probs"])
        lines = [(name, draw.BLUE if truths is None else draw.RED) for name, _ in top[:2]]
        said = [(f"{top[0][0]}: {top[0][1]:.0%}", lines[0][1])]
        if truths is not None:
            truth = names[truths[0]["label"]]
            lines = [(name, color) for name, color in lines if name != truth][: 1 + (top[0][0] != truth)]
            lines.insert(0, (truth, draw.GREEN))
            said = [(said[0][0], draw.GREEN if top[0][0] == truth else draw.RED), (f"truth: {truth}", draw.BLACK)]
        shown = [decode_image(record.frames[i]) for i in self.task.places(record, None)]
        observed = prediction["observed"]
        chart = curves(
            [(name, observed[:, names.index(name)].tolist(), color) for name, color in lines], _WIDTH_PX, _CHART_PX,
            below="probability after 10 % to 100 % of the frames",
        )  # fmt: skip
        return draw.stack([film(shown, _WIDTH_PX), draw.text_block(said, _WIDTH_PX), chart])

    def plots(self, predictions: Mapping[str, Prediction], truths: Mapping[str, Truth]) -> list[Plot]:
        names = self.task.data.classes
        keys = sorted(truths)
        labels = np.array([truths[key]["label"] for key in keys], np.int64)
        observed = np.stack([predictions[key]["observed"] for key in keys]).argmax(axis=2)  # (N, S)
        pairs = [(names[t], names[p]) for t, p in zip(labels.tolist(), observed[:, -1].tolist(), strict=True)]
        right = observed == labels[:, None]
        frequent = [label for label, _ in Counter(labels.tolist()).most_common(_NUM_CONFUSED)]
        accuracies = [(names[label], round(float(right[labels == label, -1].mean()), 6)) for label in frequent]
        over_time = [(share, round(float(value), 6)) for share, value in zip(SHARES, right.mean(axis=0), strict=True)]
        columns = ("share of the clip that was seen", "accuracy")
        return [
            Plot(
                name="accuracy_over_time", kind="curve", columns=columns, rows=over_time, x=columns[0], y=columns[1],
                title="Accuracy while the clip goes on",
            ),
            _plots.confusion_of_pairs("confusion", pairs, shown=_NUM_CONFUSED, title="Most frequent classes"),
            _plots.bar("class_accuracy", ("class", "accuracy"), accuracies),
        ]  # fmt: skip
