"""The words and marks of source sentences, as they are written."""

from __future__ import annotations

from collections.abc import Iterable

from contracts.records import Record
from lightning_modules.texts._base import BaseText


class Text(BaseText):
    tokenizer = "pieces"

    def texts(self, record: Record) -> Iterable[str]:
        return (sentence.text for sentence in record.sentences if sentence.role == "source")
