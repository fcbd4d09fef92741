"""Text classification: accuracy by length, and the classes taken for one another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from contracts.records import Record
from lightning_modules.base.task import Prediction, Truth
from lightning_modules.drawing import text as draw
from lightning_modules.metrics.measurement import values_of
from lightning_modules.reports import _plots
from lightning_modules.reports._plots import Plot
from lightning_modules.reports._report import BaseReport
from lightning_modules.tasks.text_classification import Task

_NUM_CONFUSED = 20
_PICTURE_PX = 420


class Report(BaseReport[Task]):
    def constant(self, truths: Mapping[str, Truth]) -> dict[str, Prediction]:
        """The most frequent class, then the next: each class's share of the texts."""
        counts = np.bincount([truth["label"] for truth in truths.values()], minlength=len(self.task.data.classes))
        probs = (counts / max(1, len(truths))).astype(np.float32)
        return {item: {"probs": probs} for item in truths}

    def picture(self, record: Record, predictions: Sequence[Prediction], truths: Sequence[Truth] | None) -> np.ndarray:
        """The text over its best class: green right, red wrong, blue where the truth is unknown."""
        name, probability = self.task.best(predictions[0])
        color, paragraphs = draw.BLUE, []
        if truths is not None:
            truth = self.task.data.classes[truths[0]["label"]]
            color = draw.GREEN if name == truth else draw.RED
            paragraphs = [(f"truth: {truth}", draw.BLACK)]
        sentence = record.sentence("text")
        text = draw.text_block([(sentence.text if sentence else "", draw.GREY), *paragraphs], _PICTURE_PX)
        return draw.stack([text, draw.bars([(name, probability, color)], _PICTURE_PX)])

    def plots(self, predictions: Mapping[str, Prediction], truths: Mapping[str, Truth]) -> list[Plot]:
        names = self.task.data.classes
        pairs = [(names[truth["label"]], self.task.best(predictions[item])[0]) for item, truth in truths.items()]
        values = values_of(self.task.measure(predictions, truths, thorough=True))
        by_length = {int(name.rpartition(" ")[2]): value for name, value in values.items() if "/length " in name}
        return [
            _plots.confusion_of_pairs("confusion", pairs, shown=_NUM_CONFUSED, title="Most frequent classes"),
            Plot(
                name="accuracy_by_length", kind="curve", columns=("num_tokens", "accuracy"),
                rows=sorted(by_length.items()),
                x="num_tokens", y="accuracy", title="Accuracy by the length of the text",
            ),
        ]  # fmt: skip
