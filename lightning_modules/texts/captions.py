"""The words of captions."""

from __future__ import annotations

from collections.abc import Iterable

from contracts.records import Record
from lightning_modules.texts._base import BaseText


class Text(BaseText):
    tokenizer = "words"

    def texts(self, record: Record) -> Iterable[str]:
        return (caption.text for caption in record.captions)
