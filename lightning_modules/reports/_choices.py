"""What the reports of questions with candidates have in common."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Generic, TypeVar

import numpy as np

from lightning_modules.base.choice_task import ChoiceTask, choice
from lightning_modules.base.task import Prediction, Truth
from lightning_modules.drawing import text as draw
from lightning_modules.drawing.text import Colour
from lightning_modules.reports import _plots
from lightning_modules.reports._plots import Plot
from lightning_modules.reports._report import BaseReport

AnyTask = TypeVar("AnyTask", bound=ChoiceTask)


class ChoiceReport(BaseReport[AnyTask], Generic[AnyTask]):
    def constant(self, truths: Mapping[str, Truth]) -> dict[str, Prediction]:
        """The candidate that is right most often in the whole split, whatever image and question are; of boxes, each
        the right one of its own image alone, that is one by chance."""
        counts = Counter(truth["answer"] for truth in truths.values())
        out: dict[str, Prediction] = {}
        for item, truth in truths.items():
            scores = np.array([counts[candidate] for candidate in truth["candidates"]], np.float32)
            if not self.has_words:
                scores[:] = 0
            out[item] = {
                "question_id": item, "question": "", "candidates": truth["candidates"], "scores": scores,
                "choice": choice(scores, item),
            }  # fmt: skip
        return out

    @property
    def has_words(self) -> bool:
        """Whether candidates of different images can be the same."""
        return True

    def plots(self, predictions: Mapping[str, Prediction], truths: Mapping[str, Truth]) -> list[Plot]:
        values = self.task.measure(predictions, truths)[0].values
        rows = [(name, value) for name, value in values.items() if name != "overall"]
        return [
            _plots.bar("accuracy_by_word", ("first word", "accuracy"), rows, title="Accuracy by the question's word"),
        ]


def shares(scores: np.ndarray) -> np.ndarray:
    """Scores (K,) as shares that sum to 1: their softmax."""
    weights = np.exp(scores - scores.max())
    return weights / weights.sum()


def color_of(prediction: Prediction, truth: Truth | None, place: int) -> Colour:
    """Of a candidate: the chosen one green where it is right, red where wrong, blue where nobody knows."""
    if place != prediction["choice"]:
        return draw.GREY
    if truth is None or not truth["answer"]:
        return draw.BLUE
    return draw.GREEN if prediction["candidates"][place] == truth["answer"] else draw.RED
