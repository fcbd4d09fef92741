"""The characters of what is written in pictures or said in clips."""

from __future__ import annotations

from collections.abc import Iterable

from contracts.records import Record
from lightning_modules.texts._base import BaseText


class Text(BaseText):
    tokenizer = "characters"

    def texts(self, record: Record) -> Iterable[str]:
        return () if record.transcript is None else (record.transcript.text,)
