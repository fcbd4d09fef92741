"""What a report is: what is compared with a task's predictions, and what is drawn of them.

A file `lightning_modules/reports/<task>.py` holds one class `Report(BaseReport)` of the task of that name. Weights
depend on nothing here, so that another color trains nothing again.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Generic, TypeVar

import numpy as np

from contracts.records import Record
from lightning_modules.base.task import BaseTask, Prediction, Truth
from lightning_modules.reports._plots import Plot

AnyTask = TypeVar("AnyTask", bound=BaseTask)


class BaseReport(ABC, Generic[AnyTask]):
    """The constant predictor, the pictures and the plots of one task. Mappings are keyed by item id."""

    def __init__(self, task: AnyTask):
        self.task = task

    @abstractmethod
    def constant(self, truths: Mapping[str, Truth]) -> dict[str, Prediction]:
        """The best prediction that ignores the input (most frequent answer, background, mean box): the score that
        a trained model must be compared with."""

    @abstractmethod
    def picture(self, record: Record, predictions: Sequence[Prediction], truths: Sequence[Truth] | None) -> np.ndarray:
        """The predictions of a record's items drawn on what they were made from (and the truths beside them).

        Args:
            predictions: one per item of the record, in the order of `BaseTask.items`.
            truths: the same; None where they are not known.

        Returns:
            (h, w, 3) uint8 RGB, of any size.
        """

    def gallery(
        self, read: Callable[[str], Record], predictions: Mapping[str, Prediction], truths: Mapping[str, Truth]
    ) -> dict[str, np.ndarray]:
        """Pictures of the split as a whole, by name, beside those of single records.

        Args:
            read: gives the record of a key.

        Returns:
            (h, w, 3) uint8 RGB each.
        """
        return {}

    def plots(self, predictions: Mapping[str, Prediction], truths: Mapping[str, Truth]) -> list[Plot]:
        """Curves and confusion matrices for `evaluate`."""
        return []
