"""What classification of images and of texts have in common: one class of a whole record.

Batch: `labels` (B,) int64, 0..C-1, absent in prediction; what else is the task's. B records, C classes.
Prediction: `probs` (C,) float32. Truth: `label`, 0..C-1.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from contracts.errors import ConfigError, DataError
from contracts.records import DataSpec, Record
from lightning_modules.base.task import BaseTask, Batch, Example, Mean, Prediction, Truth


class ClassTask(BaseTask):
    """Base of the tasks that choose one class of a list.

    Attributes:
        a_record: what has the class, as messages call it: "an image".
        sources: what they advise to read it with.
        label_smoothing: share of the target that is spread over all classes (1512.00567).
    """

    a_record: ClassVar[str]
    sources: ClassVar[str]
    label_smoothing: float = 0.0
    metric = "top1"

    def __init__(self, config: Any, data: DataSpec):
        super().__init__(config, data)
        if len(data.classes) < 2:
            raise ConfigError(
                "there is nothing to tell apart",
                value=list(data.classes),
                where=f"classes of {data.dataset}",
                allowed="two classes or more",
                fix=f"choose a data set with {self.sources}",
            )
        self._positions = {name: i for i, name in enumerate(data.classes)}

    @abstractmethod
    def logits(self, model: nn.Module, batch: Batch) -> Tensor:
        """(B, C) float."""

    # records to tensors

    def labeled(self, record: Record) -> Example:
        """The label's part of an example, which a record to predict for has not."""
        return {"label": self.label(record)} if record.labels else {}

    def label(self, record: Record) -> int:
        if len(record.labels) != 1:
            raise DataError(
                f"{self.a_record} of this task has one label",
                value=list(record.labels),
                where=f"record {record.key} of {self.data.dataset}",
                fix="give each one class; tasks of several labels are not here",
            )
        return self._positions[record.labels[0]]

    @staticmethod
    def labels(examples: Sequence[Example]) -> Batch:
        """The labels' part of a batch, where all examples have one."""
        if not all("label" in example for example in examples):
            return {}
        return {"labels": torch.tensor([example["label"] for example in examples], dtype=torch.int64)}

    def truths(self, record: Record) -> list[Truth]:
        return [{"label": self.label(record)}]

    # tensors to losses and predictions

    def losses(self, model: nn.Module, batch: Batch) -> dict[str, Mean]:
        return {"cross_entropy": self._loss(self.logits(model, batch), batch)}

    def predict(self, model: nn.Module, batch: Batch) -> list[Prediction]:
        return self._predictions(self.logits(model, batch))

    def evaluate_batch(self, model: nn.Module, batch: Batch) -> tuple[dict[str, Mean], list[Prediction]]:
        logits = self.logits(model, batch)
        return {"cross_entropy": self._loss(logits, batch)}, self._predictions(logits)

    def _loss(self, logits: Tensor, batch: Batch) -> Mean:
        with torch.autocast(logits.device.type, enabled=False):
            total = F.cross_entropy(
                logits.float(), batch["labels"], label_smoothing=self.label_smoothing, reduction="sum"
            )
        return Mean(total, len(logits))

    @staticmethod
    def _predictions(logits: Tensor) -> list[Prediction]:
        return [{"probs": probs} for probs in torch.softmax(logits.float(), dim=1).cpu().numpy()]

    def measurable(self, prediction: Prediction, truth: Truth) -> tuple[Prediction, Truth]:
        return {"scores": prediction["probs"]}, truth
