"""Visual question answering: accuracy by kind of question, and the answers taken for one another."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

import numpy as np

from contracts.records import Record
from lightning_modules.augment.images import decode_record
from lightning_modules.base.task import Prediction, Truth
from lightning_modules.drawing import text as draw
from lightning_modules.metrics.vqa_accuracy import (
    most_frequent_form,
    normalise_answer,
    question_accuracy,
    strip_blanks,
)
from lightning_modules.reports import _plots
from lightning_modules.reports._plots import Plot
from lightning_modules.reports._report import BaseReport
from lightning_modules.tasks.vqa import Task

_NUM_PLOTTED = 30
_NUM_CONFUSED = 12
_PICTURE_PX = 420
_TILE_PX = 136


class Report(BaseReport[Task]):
    def constant(self, truths: Mapping[str, Truth]) -> dict[str, Prediction]:
        """The single most frequent answer, as it is most often written, for every question."""
        forms: defaultdict[str, Counter[str]] = defaultdict(Counter)
        for answer in (answer for truth in truths.values() for answer in truth["answers"]):
            forms[normalise_answer(answer)][strip_blanks(answer)] += 1
        best = most_frequent_form(max(forms.values(), key=Counter.total)) if forms else ""
        return {
            question: {"question_id": truth["question_id"], "question": "", "answer": best, "top": [(best, 1.0)]}
            for question, truth in truths.items()
        }

    def picture(self, record: Record, predictions: Sequence[Prediction], truths: Sequence[Truth] | None) -> np.ndarray:
        """The image with its questions and the top answers: green right, red wrong, blue where the truth is unknown; of
        a model that tells where it looked, each hop's map below its answers."""
        image = decode_record(record)
        parts = [draw.fit(image, _PICTURE_PX)]
        known = [[]] * len(predictions) if truths is None else [truth["answers"] for truth in truths]
        for p, given in zip(predictions, known, strict=True):
            color, note = draw.BLUE, ""
            if given:
                color = draw.GREEN if question_accuracy(p["answer"], given) >= 0.5 else draw.RED
                note = f" [{Counter(given).most_common(1)[0][0]}]"
            parts.append(draw.text_block([(p["question"] + note, draw.BLACK)], _PICTURE_PX))
            bars = [(answer, value, draw.GREY if i else color) for i, (answer, value) in enumerate(p["top"][:3])]
            parts.append(draw.bars(bars, _PICTURE_PX))
            if len(p.get("looks", ())):
                parts.append(_looks(image, p["looks"]))
        return draw.stack(parts)

    def plots(self, predictions: Mapping[str, Prediction], truths: Mapping[str, Truth]) -> list[Plot]:
        values = self.task.measure(predictions, truths, thorough=True)[0].values
        counts = Counter(truth["question_type"] for truth in truths.values() if truth["question_type"])
        frequent = [f"perQuestionType/{name}" for name, _ in counts.most_common(_NUM_PLOTTED)]
        by_answer = [name for name in values if name.startswith("perAnswerType/")]
        return [
            _bar("answer_type", values, by_answer),
            _bar("question_type", values, [name for name in frequent if name in values]),
            _confusion(predictions, truths),
        ]


def _looks(image: np.ndarray, maps: np.ndarray) -> np.ndarray:
    """A tile a hop of maps (hops, h, w), and what share of the weight the heaviest place has."""
    small = draw.fit(image, _TILE_PX)
    tiles = [
        np.concatenate([
            draw.overlay(small, weights),
            draw.text_block([(f"look {hop}: at most {100 * float(weights.max()):.0f}%", draw.GREY)], _TILE_PX),
        ])
        for hop, weights in enumerate(maps, 1)
    ]  # fmt: skip
    return draw.grid(tiles, min(len(tiles), _PICTURE_PX // (_TILE_PX + 4)))


def _bar(kind: str, values: Mapping[str, float], names: list[str]) -> Plot:
    rows = [(name.partition("/")[2], values[name]) for name in names]
    return _plots.bar(f"accuracy_by_{kind}", (kind, "accuracy"), rows, title=f"Accuracy by {kind.replace('_', ' ')}")


def _confusion(predictions: Mapping[str, Prediction], truths: Mapping[str, Truth]) -> Plot:
    """Most frequent human answer against the prediction, for the most frequent answers."""
    pairs: list[tuple[str, str]] = []
    for question, truth in truths.items():
        if truth["answers"]:
            majority = Counter(map(normalise_answer, truth["answers"])).most_common(1)[0][0]
            pairs.append((majority, normalise_answer(predictions[question]["answer"])))
    return _plots.confusion_of_pairs("answer_confusion", pairs, shown=_NUM_CONFUSED, title="Most frequent answers")
