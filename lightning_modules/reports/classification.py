"""Classification: accuracy of each class, and the classes taken for one another, of the most frequent ones."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torchmetrics.functional.classification import multiclass_accuracy

from contracts.records import Record
from lightning_modules.augment.images import decode_record
from lightning_modules.base.task import Prediction, Truth
from lightning_modules.drawing import text as draw
from lightning_modules.reports import _plots
from lightning_modules.reports._plots import Plot
from lightning_modules.reports._report import BaseReport
from lightning_modules.tasks.classification import Task

_NUM_CONFUSED = 20
_PICTURE_PX = 420


class Report(BaseReport[Task]):
    def constant(self, truths: Mapping[str, Truth]) -> dict[str, Prediction]:
        """The most frequent class, then the next: each class's share of the images."""
        counts = np.bincount([truth["label"] for truth in truths.values()], minlength=len(self.task.data.classes))
        probs = (counts / max(1, len(truths))).astype(np.float32)
        return {key: {"probs": probs} for key in truths}

    def picture(self, record: Record, predictions: Sequence[Prediction], truths: Sequence[Truth] | None) -> np.ndarray:
        """The image over its best classes: green right, red wrong, blue where the truth is unknown."""
        (prediction,) = predictions
        top, color, title = self.task.top(prediction), draw.BLUE, ""
        if truths is not None:
            (truth,) = truths
            title = self.task.data.classes[truth["label"]]
            color = draw.GREEN if top[0][0] == title else draw.RED
        bars = [(name, probability, draw.GREY if i else color) for i, (name, probability) in enumerate(top)]
        parts = [draw.fit(decode_record(record), _PICTURE_PX), draw.bars(bars, _PICTURE_PX)]
        if title:
            parts.insert(1, draw.text_block([(f"truth: {title}", draw.BLACK)], _PICTURE_PX))
        return draw.stack(parts)

    def plots(self, predictions: Mapping[str, Prediction], truths: Mapping[str, Truth]) -> list[Plot]:
        names, keys = self.task.data.classes, sorted(truths)
        predicted = np.array([predictions[key]["probs"].argmax() for key in keys], np.int64)
        labels = np.array([truths[key]["label"] for key in keys], np.int64)
        pairs = [(names[t], names[p]) for t, p in zip(labels.tolist(), predicted.tolist(), strict=True)]
        frequent = [label for label, _ in Counter(labels.tolist()).most_common(_NUM_CONFUSED)]
        recalls = multiclass_accuracy(
            torch.from_numpy(predicted), torch.from_numpy(labels), num_classes=len(names), average=None
        )
        accuracies = [(names[i], round(float(recalls[i]), 6)) for i in frequent]
        return [
            _plots.confusion_of_pairs("confusion", pairs, shown=_NUM_CONFUSED, title="Most frequent classes"),
            _plots.bar("class_accuracy", ("class", "accuracy"), accuracies),
        ]
