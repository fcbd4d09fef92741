"""Accuracy of answered questions as `torchmetrics.Metric`: VQA v2's soft accuracy, and Visual7W's multiple choice.

An item is a question, its group the image, which is drawn with all its questions for an interval.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import replace
from typing import Any

from lightning_modules.metrics.item_metric import Id, Item, ItemMetric, array, text, texts
from lightning_modules.metrics.measurement import Measurement
from lightning_modules.metrics.visual7w import measure_visual7w
from lightning_modules.metrics.vqa_accuracy import Answered, measure_vqa


class VQAAccuracy(ItemMetric):
    """`measure_vqa` as `torchmetrics.Metric`: `overall`, `perAnswerType/<type>`, `perQuestionType/<type>` in percent.

    Prediction: `answer`, a text; empty where none was given. Truth:
    `answers`, those of the annotators (a question without any is left out), and where known `answer_type` and
    `question_type`.

    Args:
        question_types: also accuracy by question type, of which VQA v2 has 65.
        **settings: of `ItemMetric` and `torchmetrics.Metric`.
    """

    def __init__(self, *, question_types: bool = True, **settings: Any):
        super().__init__(**settings)
        self.question_types = question_types

    def keep(self, prediction: Item, truth: Item) -> tuple[str, list[str], str, str]:
        types = [text(truth, name, "truth") if name in truth else "" for name in ("answer_type", "question_type")]
        return text(prediction, "answer", "prediction"), texts(truth, "answers", "truth"), types[0], types[1]

    def measure_kept(
        self, kept: Mapping[Id, tuple[str, list[str], str, str]], groups: Mapping[Id, Hashable]
    ) -> list[Measurement]:
        asked = {key: values for key, values in kept.items() if values[1]}
        items = [
            Answered(answer=answer, annotations=answers, answer_type=answer_type, question_type=question_type)
            for answer, answers, answer_type, question_type in asked.values()
        ]
        measured = measure_vqa(items, [groups[key] for key in asked])
        shown = {n: v for n, v in measured.values.items() if self.question_types or not n.startswith("perQuestion")}
        return [replace(measured, values=shown)]


class Visual7WAccuracy(ItemMetric):
    """`measure_visual7w` as `torchmetrics.Metric`: `overall` and one by each question word, fractions in 0..1.

    Prediction: `answer`, the candidate that was chosen. Truth: `answer`,
    the right one (empty where nobody says which it is: the question is left out), and `question_type`, such as "what".
    """

    def keep(self, prediction: Item, truth: Item) -> tuple[str, str, str]:
        chosen = text(prediction, "answer", "prediction")
        return chosen, text(truth, "question_type", "truth"), text(truth, "answer", "truth")

    def measure_kept(self, kept: Mapping[Id, tuple[str, str, str]], groups: Mapping[Id, Hashable]) -> list[Measurement]:
        truth = {key: (kind, right) for key, (_, kind, right) in kept.items() if right}
        return [measure_visual7w(truth, {key: kept[key][0] for key in truth}, images=groups)]


class UntiedAccuracy(ItemMetric):
    """`overall, ties wrong`: the share of questions answered right whose best candidate has no equal.

    Prediction: `answer`, the candidate that was chosen, and `is_tied`, 1 where another one is as good. Truth: `answer`,
    the right one, empty where nobody says.
    """

    def keep(self, prediction: Item, truth: Item) -> tuple[str, int, str]:
        tied = int(array(prediction, "is_tied", "prediction", ()))
        return text(prediction, "answer", "prediction"), tied, text(truth, "answer", "truth")

    def measure_kept(self, kept: Mapping[Id, tuple[str, int, str]], groups: Mapping[Id, Hashable]) -> list[Measurement]:
        name = "overall, ties wrong"
        truth = {key: ("all", right) for key, (_, _, right) in kept.items() if right}
        chosen = {key: "" if kept[key][1] else kept[key][0] for key in truth}
        measured = measure_visual7w(truth, chosen, images=groups)
        resample = measured.resample
        assert resample is not None
        return [
            replace(
                measured,
                values={name: measured.values["overall"]},
                variant=f"{measured.variant}, a question whose best candidates are equally good counts as wrong",
                resample=lambda weights: {name: resample(weights)["overall"]},
            )
        ]
