"""A task's official metrics as one `torchmetrics.Metric`, which keeps all of an item: reports need it too."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import Any

from lightning_modules.base.task import BaseTask, Item, Prediction, Truth
from lightning_modules.metrics import item_metric
from lightning_modules.metrics.item_metric import Id, ItemMetric
from lightning_modules.metrics.measurement import Measurement

Row = tuple[Item, Prediction, Truth]


class TaskScores(ItemMetric):
    """`task.measure` of what was collected. What a validation gathers is gathered by this."""

    def __init__(self, task: BaseTask, **settings: Any):
        super().__init__(**settings)
        self.task = task

    def collect(self, rows: Sequence[Row]) -> None:
        """`update` with items as a task has them."""
        self.update(
            [{"id": item.id, "prediction": prediction} for item, prediction, _ in rows],
            [{"id": item.id, "group": item.group, "key": item.key, "truth": truth} for item, _, truth in rows],
        )

    def collected(self) -> Iterator[Row]:
        """All that was delivered, however often."""
        for item, group, (key, prediction, truth) in self.rows():
            yield Item(str(item), key, str(group)), prediction, truth

    def keep(self, prediction: item_metric.Item, truth: item_metric.Item) -> tuple[str, Prediction, Truth]:
        return truth["key"], prediction["prediction"], truth["truth"]

    def measure_kept(
        self, kept: Mapping[Id, tuple[str, Prediction, Truth]], groups: Mapping[Id, Hashable]
    ) -> list[Measurement]:
        predictions = {str(item): prediction for item, (_, prediction, _) in kept.items()}
        truths = {str(item): truth for item, (_, _, truth) in kept.items()}
        return self.task.measure(predictions, truths, {str(item): str(group) for item, group in groups.items()})
