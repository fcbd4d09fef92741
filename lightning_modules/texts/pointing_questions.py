"""The words of questions that are answered by pointing at one of several boxes."""

from __future__ import annotations

from collections.abc import Iterable

from contracts.records import Record
from lightning_modules.texts._base import BaseText


class Text(BaseText):
    tokenizer = "words"

    def texts(self, record: Record) -> Iterable[str]:
        return (question.text for question in record.questions if question.candidate_boxes)
