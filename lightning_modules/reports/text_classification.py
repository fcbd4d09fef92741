"""Text classification: accuracy by length, the classes taken for one another, and the gates at each word."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from contracts.records import Record
from contracts.text import words
from lightning_modules.base.task import Prediction, Truth
from lightning_modules.drawing import text as draw
from lightning_modules.metrics.measurement import values_of
from lightning_modules.reports import _plots
from lightning_modules.reports._plots import Plot
from lightning_modules.reports._report import BaseReport
from lightning_modules.tasks.text_classification import Task

_NUM_CONFUSED = 20
_PICTURE_PX = 420
_MAX_TRACED = 60  # words that a picture shows gates of
GATES = ("input", "forget", "output")
WEIGHTINGS = ("units of the answer", "all units")


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
        parts = [text, draw.bars([(name, probability, color)], _PICTURE_PX)]
        if "gates" in predictions[0] and sentence:
            parts.append(self._traced(sentence.text, predictions[0]["gates"][0]))
        return draw.stack(parts)

    def _traced(self, text: str, gates: np.ndarray) -> np.ndarray:
        """A line a word, with how far each gate (3, T) was open when the word was read."""
        tokens = words(text)[: min(gates.shape[1], _MAX_TRACED)]
        canvas = np.full(((len(tokens) + 2) * draw.LINE_PX, _PICTURE_PX, 3), 255, np.uint8)
        left, width = 110, 90
        for i, name in enumerate(GATES):
            draw.put_text(canvas, name, left + i * (width + 10), draw.LINE_PX, draw.GREY)
        for t, token in enumerate(tokens):
            top = (t + 2) * draw.LINE_PX
            draw.put_text(canvas, draw.wrap(token, left - 12)[0], 6, top, draw.BLACK)
            for i, opened in enumerate(gates[:, t]):
                x = left + i * (width + 10)
                canvas[top + 3 : top + draw.LINE_PX - 3, x : x + width] = 232
                canvas[top + 3 : top + draw.LINE_PX - 3, x : x + max(1, round(width * float(opened)))] = draw.BLUE
        return canvas

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
            *_gate_plots([prediction["gates"] for prediction in predictions.values() if "gates" in prediction]),
        ]  # fmt: skip


def _gate_plots(gates: Sequence[np.ndarray]) -> list[Plot]:
    """Each gate at each place of the texts of the most frequent length (of equally many the longest): the mean over
    these texts, once over all units and once by what a unit says for the answer."""
    if not gates:
        return []
    counted = Counter(trace.shape[-1] for trace in gates)
    length = max(counted, key=lambda size: (counted[size], size))
    mean = np.mean([trace for trace in gates if trace.shape[-1] == length], axis=0)  # (2, 3, T)
    rows = [
        (f"{gate}, {units}", place + 1, float(mean[w, g, place]))
        for w, units in enumerate(WEIGHTINGS)
        for g, gate in enumerate(GATES)
        for place in range(length)
    ]
    return [
        Plot(
            name="gates", kind="curve", columns=("gate", "word", "how far open"), rows=rows, x="word", y="how far open",
            series="gate", title=f"Gates at each word of the texts of {length} words",
        )
    ]  # fmt: skip
