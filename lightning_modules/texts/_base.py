"""What the vocab stage counts: texts that records have, by kind. Needs no torch.

A file `lightning_modules/texts/<name>.py` holds one class `Text(BaseText)`; its name is what a task calls it by
(`BaseTask.texts`), and its key in `DataSpec.vocabulary`. Files of their own, since the stage would otherwise import
every task, and count anew whatever changes in one.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable
from typing import ClassVar

from contracts.errors import DataError
from contracts.records import Record
from contracts.text import TOKENIZERS


class BaseText(ABC):
    """The tokens of one kind of text in the training split; one that is not cut into tokens overrides `add`.

    Class attributes:
        tokenizer: a key of `TOKENIZERS`; None: each text counts whole.
    """

    tokenizer: ClassVar[str | None]

    def __init__(self) -> None:
        self.num_texts = 0
        self._counts: Counter[str] = Counter()

    @abstractmethod
    def texts(self, record: Record) -> Iterable[str]:
        """Those of a record, in its order."""

    def add(self, record: Record) -> None:
        """Count a record's."""
        for text in self.texts(record):
            self.num_texts += 1
            self._counts.update([text] if self.tokenizer is None else TOKENIZERS[self.tokenizer].split(text))

    def counted(self) -> list[tuple[str, int]]:
        """Each token and how often it was seen, most frequent first; those of equal count by the alphabet."""
        return sorted(self._counts.items(), key=lambda item: (-item[1], item[0]))

    def check(self, name: str, dataset: str, where: str) -> None:
        """Raise DataError where there are texts of which nothing can be learned.

        Args:
            name: what this kind is called. where: the shards' folder.
        """
        if self.num_texts and not self._counts:
            raise DataError(
                f"the {name} of {dataset} hold no word",
                value=f"{self.num_texts} {name}",
                where=f"{where}, split train",
                allowed="letters or digits of any script",
                fix="look at the texts in the annotation file",
            )
