"""Whole answers to questions, one vote a question.

They are counted normalised and written down in the form that annotators use most: the official accuracy compares what
they all agree on letter by letter, so "1 way" is never right for "one way".
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable

from contracts.errors import DataError
from contracts.records import Record
from lightning_modules.metrics.vqa_accuracy import most_frequent_form, normalise_answer, strip_blanks
from lightning_modules.texts._base import BaseText


class Text(BaseText):
    tokenizer = None

    def __init__(self) -> None:
        super().__init__()
        self._forms: defaultdict[str, Counter[str]] = defaultdict(Counter)
        self._num_questions = 0

    def texts(self, record: Record) -> Iterable[str]:
        return (normalise_answer(q.multiple_choice_answer) for q in record.questions if q.answers)

    def add(self, record: Record) -> None:
        super().add(record)
        self._num_questions += sum(
            not question.candidate_boxes for question in record.questions
        )  # those are pointed at
        for question in record.questions:
            if question.answers:
                for answer in (question.multiple_choice_answer, *question.answers):
                    self._forms[normalise_answer(answer)][strip_blanks(answer)] += 1

    def counted(self) -> list[tuple[str, int]]:
        return [(most_frequent_form(self._forms[answer]), count) for answer, count in super().counted()]

    def check(self, name: str, dataset: str, where: str) -> None:
        if self._num_questions and not self.num_texts:
            raise DataError(
                f"no question of {dataset} has an answer in the training split",
                value=f"{self._num_questions} questions",
                where=f"{where}, split train",
                fix="put the annotation file of the training split where sources.vqa.annotations says, or take the "
                "source `vqa` out",
            )
