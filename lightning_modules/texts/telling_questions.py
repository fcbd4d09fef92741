"""The words of questions that are answered by one of several texts, and of these texts, right and wrong."""

from __future__ import annotations

from collections.abc import Iterable

from contracts.records import Record
from lightning_modules.texts._base import BaseText


class Text(BaseText):
    tokenizer = "words"

    def texts(self, record: Record) -> Iterable[str]:
        for question in record.questions:
            if question.candidates and not question.candidate_boxes:
                yield from (question.text, *question.candidates)
