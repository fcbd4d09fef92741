"""Text classification: one class of a whole text, whose tokens are read in their order.

Batch: `tokens` (B, T) int64, padded with 0; `lengths`, B numbers; `labels` (B,) int64, 0..C-1, absent in prediction.
B texts of at most T tokens, C classes. Model: `SequenceClassifier`.
Prediction: `probs` (C,) float32, and of a network with gates `gates` (2, 3, T) float32 (`SequenceClassifier.gates`).
Truth: `label`, 0..C-1, and `length` in tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from contracts.ranges import COUNT, check_ranges
from contracts.records import DataSpec, Record
from contracts.text import UNKNOWN
from lightning_modules.base.class_task import ClassTask
from lightning_modules.base.families import SequenceClassifierSpec
from lightning_modules.base.task import Batch, Example, Mean, Prediction, Truth
from lightning_modules.metrics.item_metric import ItemMetric
from lightning_modules.metrics.top_accuracy import AccuracyByLength, TopAccuracy


class Task(ClassTask):
    """Scores: `top1` and `top5`; beside them `top1/length 6`, of the texts of 6 tokens."""

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """
        Attributes:
            max_tokens: longer texts are cut.
            min_token_count: rarer tokens are unknown ones.
        """

        max_tokens: int = 400
        min_token_count: int = 1

        def __post_init__(self) -> None:
            check_ranges(self, max_tokens=COUNT, min_token_count=COUNT)

    spec_class = SequenceClassifierSpec
    requires = ("num_texts", "num_labels")
    eval_requires = ("num_texts", "num_labels")
    inputs = ("text",)
    texts = {"texts": "words"}  # noqa: RUF012  # as BaseTask declares it
    a_record = "a text"
    sources = "labeled texts, such as `labeled_text` reads"
    config: Config

    def __init__(self, config: Config, data: DataSpec):
        super().__init__(config, data)
        self._vocabulary = self.read_vocabulary("texts", min_count=config.min_token_count)

    def spec(self) -> SequenceClassifierSpec:
        return SequenceClassifierSpec(vocabulary_size=len(self._vocabulary), num_classes=len(self.data.classes))

    # records to tensors

    def encode(self, record: Record, seed: int | None) -> Example:
        return {"tokens": self._tokens(record), **self.labeled(record)}

    def _tokens(self, record: Record) -> np.ndarray:
        """(T,) int64, never empty: a text without a word is one unknown token."""
        sentence = record.sentence("text")
        ids = self._vocabulary.encode(sentence.text if sentence else "", max_length=self.config.max_tokens)
        return np.array(ids or [UNKNOWN], np.int64)

    def collate(self, examples: Sequence[Example]) -> Batch:
        tokens = [torch.from_numpy(example["tokens"]) for example in examples]
        padded = pad_sequence(tokens, batch_first=True)
        return {"tokens": padded, "lengths": [len(ids) for ids in tokens], **self.labels(examples)}

    def truths(self, record: Record) -> list[Truth]:
        return [{"label": self.label(record), "length": len(self._tokens(record))}]

    # tensors to losses and predictions

    def logits(self, model: nn.Module, batch: Batch) -> Tensor:
        return model(batch["tokens"], batch["lengths"])  # type: ignore[no-any-return]

    def predict(self, model: nn.Module, batch: Batch) -> list[Prediction]:
        return self._with_gates(super().predict(model, batch), model, batch)

    def evaluate_batch(self, model: nn.Module, batch: Batch) -> tuple[dict[str, Mean], list[Prediction]]:
        losses, predictions = super().evaluate_batch(model, batch)
        return losses, self._with_gates(predictions, model, batch)

    @staticmethod
    def _with_gates(predictions: list[Prediction], model: Any, batch: Batch) -> list[Prediction]:
        gates = model.gates(batch["tokens"], batch["lengths"])
        if gates is None:
            return predictions
        rows = zip(predictions, gates.cpu().numpy(), batch["lengths"], strict=True)
        return [{**prediction, "gates": row[..., :length]} for prediction, row, length in rows]

    # what a user sees

    def metrics(self, *, thorough: bool = False) -> list[ItemMetric]:
        return [TopAccuracy(), *([AccuracyByLength()] if thorough else [])]

    def best(self, prediction: Prediction) -> tuple[str, float]:
        """Name and probability of the best class; of equal ones the first in the class list."""
        place = int(prediction["probs"].argmax())
        return self.data.classes[place], float(prediction["probs"][place])

    def answer(self, prediction: Prediction) -> dict[str, Any]:
        name, probability = self.best(prediction)
        return {"class": name, "probability": round(probability, 6)}
