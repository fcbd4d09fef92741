"""The one LightningModule: every task trains, validates and is checked here in the same way."""

from __future__ import annotations

import contextlib
from bisect import bisect_right
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any, Literal, cast

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torchmetrics import Metric, SumMetric

from contracts.errors import DataError
from contracts.seeds import derive_seed
from lightning_modules.base.finite import StepWatch
from lightning_modules.base.optimizer import Phase
from lightning_modules.base.task import BaseTask, Batch, Item, Mean, Prediction, Truth
from lightning_modules.base.task_scores import Row, TaskScores
from lightning_modules.base.updates import freeze, hold_norms, make_optimizer, make_schedules, step_plateau
from lightning_modules.blocks.norms import unmoved
from lightning_modules.ops.gather import (
    broadcast_from_first,
    gather_tensors,
    gather_tensors_to_first,
    gather_to_all,
    is_first,
    sum_over_ranks,
)


class TaskModule(pl.LightningModule):
    """Joins a task and a model; owns optimizers, schedules, logging and the check that losses and gradients are finite.

    Each phase of training has its own optimizer and schedule. `monitor` and `mode`, a name among the metrics of a
    validation, and "max" or "min", are what the plateau schedule follows.

    Validation collects (item, prediction, truth), gathers them once on one process, drops what stand-ins delivered
    twice, asserts that every item of every record of the split is there once, and scores the split as a whole.

    Attributes:
        items: of the last validation, on rank 0, by record key; both in order.
        predictions, truths: of them, by item id, in the same order.

    Raises:
        TrainingError: a loss or a gradient is NaN or infinite; names the step, the sample keys, and the loss parts or
            parameters. The optimizer has not used it.
        DataError: validation did not see each sample of the split, or there is not one prediction for each item.
    """

    def __init__(
        self,
        task: BaseTask,
        model: nn.Module,
        phases: Sequence[Phase],
        *,
        monitor: str = "loss",
        mode: Literal["max", "min"] = "min",
        seed: int = 0,
    ):
        super().__init__()
        self.task = task
        self.model = model
        self.phases = tuple(phases)
        self.monitor, self.mode = monitor, mode
        self.seed = seed
        self._phase = 0
        self._trainable = self._find_trainable()
        self.split_name = "val"
        self.items: dict[str, list[Item]] = {}
        self.predictions: dict[str, Prediction] = {}
        self.truths: dict[str, Truth] = {}
        self.loss_names: tuple[str, ...] = ()  # of the last validation
        self.keys: list[str] = []  # of the batch that is trained on
        self._watch = StepWatch()
        self._step_counts: dict[str, Tensor] = {}  # of the losses, in the global batch that is trained on
        self.scores = TaskScores(task)  # of the validation so far
        self.sums = nn.ModuleDict()  # of losses and of what they count, in the validation so far

    # training

    def _find_trainable(self) -> list[nn.Parameter]:
        """What any phase trains. The rest needs no gradient from the start, so that DDP leaves it out; what is frozen
        in some phases only is known to it, as it takes in nothing later."""
        given = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        trained: set[int] = set()
        for phase in self.phases:
            freeze(self.model, phase, given)
            trained |= {id(parameter) for parameter in given if parameter.requires_grad}
        for parameter in given:
            parameter.requires_grad_(id(parameter) in trained)
        return [parameter for parameter in given if parameter.requires_grad]

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["phase"] = self._phase

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self._phase = checkpoint["phase"]  # Lightning asks for the optimizer before it knows the epoch

    def on_train_start(self) -> None:
        hold_norms(self.model, self.phases[self._phase])  # also where it goes on inside an epoch

    def on_train_epoch_start(self) -> None:
        ends = list(accumulate(phase.epochs for phase in self.phases))
        phase = min(bisect_right(ends, self.current_epoch), len(ends) - 1)
        if phase != self._phase:
            hold_norms(self.model, self.phases[self._phase], held=False)
            self._phase = phase
            self.trainer.strategy.setup_optimizers(self.trainer)
        hold_norms(self.model, self.phases[self._phase])

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        self.keys = batch["keys"]
        if batch_idx % self.trainer.accumulate_grad_batches == 0:
            self._step_counts = self._count_step(batch["step_counts"])
        # Dropout must not depend on the history of the process, or a resumed run differs from an unbroken one.
        torch.manual_seed(derive_seed(self.seed, self.current_epoch, batch_idx, self.global_rank))

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        with unmoved(self.model) if batch["is_stand_in"] else contextlib.nullcontext():
            parts = self.task.losses(self.model, batch)
        means = {name: part.value.detach() for name, part in parts.items()}
        mean = torch.stack(list(means.values())).sum()
        self._watch.add(batch["keys"], means, mean)
        size = len(batch["keys"])
        self.log_dict({f"train/{name}": value for name, value in means.items()}, batch_size=size)
        self.log("train/loss", mean, prog_bar=True, batch_size=size)
        return self._share_of_step(parts, batch)

    def _count_step(self, counts: Mapping[str, int]) -> dict[str, Tensor]:
        """What `counts` of this rank's micro-batches of a step are over all ranks: () int64 each, on the device, so
        that nothing waits for them."""
        if not counts:
            return {}  # images alone, of which the plan says how many
        summed = sum_over_ranks(torch.tensor(list(counts.values()), device=self.device))
        return dict(zip(counts, summed.clamp(min=1), strict=True))

    def _share_of_step(self, parts: Mapping[str, Mean], batch: Batch) -> Tensor:
        """This micro-batch's part of the mean over the global batch. DDP averages gradients over ranks and Lightning
        over micro-batches: that is undone, as each has its own share of what is counted."""
        images: int = batch["num_step_images"]
        shares = [part.total.float() / self._step_counts.get(name, images) for name, part in parts.items()]
        num_parts = 0 if batch["is_stand_in"] else self.trainer.world_size * self.trainer.accumulate_grad_batches
        return torch.stack(shares).sum() * num_parts

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: int | float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Lightning calls this before each step of the optimizer, also where nothing is to be clipped."""
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        norm = nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
        self._watch.check(
            norm,
            self.model.named_parameters(),
            where=f"epoch {self.current_epoch}, step {self.global_step}",
            scaled=getattr(self.trainer.precision_plugin, "scaler", None) is not None,
        )
        if gradient_clip_val:
            nn.utils.clip_grads_with_norm_(parameters, gradient_clip_val, norm)

    def configure_optimizers(self) -> Any:
        phase = self.phases[self._phase]
        freeze(self.model, phase, self._trainable)
        optimizer = make_optimizer(self.model, phase.optimizer)
        # Not trainer.estimated_stepping_batches: it builds the loader before a checkpoint's loader position is known,
        # and Lightning then never restores that position.
        steps: int = self.trainer.datamodule.steps_per_epoch  # type: ignore[attr-defined]
        schedules = make_schedules(optimizer, phase, steps_per_epoch=steps, monitor=self.monitor, mode=self.mode)
        return [optimizer], schedules

    def on_validation_end(self) -> None:
        schedulers = [config.scheduler for config in self.trainer.lr_scheduler_configs]
        step_plateau(schedulers, self.trainer.callback_metrics, self.monitor)

    # validation and test

    def on_validation_epoch_start(self) -> None:
        self.scores.reset()
        for total in self.sums.values():
            cast(Metric, total).reset()

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        parts, predictions = self.task.evaluate_batch(self.model, batch)
        for name, part in parts.items():
            for kind, value in (("total", part.total.detach()), ("count", part.count)):
                self._sum_of(name, kind).update(0 if batch["is_stand_in"] else value)
        self.scores.collect(rows_of(batch, predictions))

    def _sum_of(self, loss: str, kind: str) -> Metric:
        """Of a loss in a validation: on the device, so that nothing waits for it; in float64."""
        name = f"{loss} {kind}"
        if name not in self.sums:
            total = SumMetric(nan_strategy="disable", dist_sync_fn=gather_tensors)
            self.sums[name] = total.set_dtype(torch.float64).to(self.device)
        return cast(Metric, self.sums[name])

    def on_validation_epoch_end(self) -> None:
        losses = self._losses()
        self.loss_names = tuple(losses)
        with self.scores.sync_context(dist_sync_fn=gather_tensors_to_first):  # scoring takes one process, not all
            metrics = broadcast_from_first(losses | self._score() if is_first() else losses)
        self.scores.reset()
        self.log_dict({f"{self.split_name}/{name}": value for name, value in metrics.items()}, batch_size=1)

    def _losses(self) -> dict[str, float]:
        """Means over all items of all ranks, and their sum."""
        losses = {}
        for name in dict.fromkeys(name for names in gather_to_all(list(self.sums)) for name in names):
            loss, _, kind = name.rpartition(" ")
            if kind == "total":
                total, count = (self._sum_of(loss, which) for which in ("total", "count"))
                for metric in (total, count):
                    metric.update(0)  # a rank may have had no batch
                losses[loss] = float(total.compute()) / max(1.0, float(count.compute()))
        return losses | ({"loss": sum(losses.values())} if losses else {})

    @property
    def groups(self) -> dict[str, str]:
        """Item id -> what is drawn again as a whole."""
        return {item.id: item.group for items in self.items.values() for item in items}

    def of_record(self, key: str) -> tuple[list[Prediction], list[Truth]]:
        """What was predicted of a record's items in the last validation, and what is true; on rank 0."""
        ids = [item.id for item in self.items[key]]
        return [self.predictions[i] for i in ids], [self.truths[i] for i in ids]

    def _score(self) -> dict[str, float]:
        rows: dict[str, Row] = {}
        for row in self.scores.collected():
            if rows.setdefault(row[0].id, row)[0] != row[0]:
                keys = rows[row[0].id][0].key, row[0].key
                raise DataError("two items have one id", value=row[0].id, where=f"records {keys[0]} and {keys[1]}")
        self.items = {}
        for item, _, _ in sorted(rows.values(), key=lambda row: row[0].key):  # stable: a record's items stay in order
            self.items.setdefault(item.key, []).append(item)
        expected: set[str] = set(self.trainer.datamodule.eval_keys(self.split_name))  # type: ignore[attr-defined]
        if self.items.keys() != expected:
            missing, extra = sorted(expected - self.items.keys())[:5], sorted(self.items.keys() - expected)[:5]
            raise DataError(
                f"validation saw {len(self.items)} of the {len(expected)} samples of split {self.split_name!r}",
                where=f"missing {missing}, unexpected {extra}",
            )
        ids = [item.id for items in self.items.values() for item in items]
        self.predictions = {item: rows[item][1] for item in ids}
        self.truths = {item: rows[item][2] for item in ids}
        return self.task.score(self.predictions, self.truths)


def rows_of(batch: Batch, predictions: Sequence[Prediction]) -> list[Row]:
    """Each item of a batch with its prediction and its truth.

    Raises:
        DataError: a task that predicts more or fewer items than it says its records have, or says one twice.
    """
    items: list[Item] = batch["items"]
    twice = [item.id for item, count in Counter(items).items() if count > 1]
    if twice or not len(items) == len(predictions) == len(batch["truths"]):
        raise DataError(
            "a task must give one prediction and one truth for each item",
            value=f"{len(predictions)} predictions and {len(batch['truths'])} truths of {len(items)} items"
            + (f", of which twice: {twice[:5]}" if twice else ""),
            where=f"samples {batch['keys']}",
        )
    return list(zip(items, predictions, batch["truths"], strict=True))
