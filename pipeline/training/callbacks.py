"""What happens beside the steps of training: the ledger, states and the best checkpoint, pictures."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import EMAWeightAveraging
from pytorch_lightning.utilities.seed import isolate_rng

from contracts.errors import ConfigError, TrainingError
from contracts.records import DataSpec
from lightning_modules.base.finite import check_state
from lightning_modules.base.module import TaskModule
from lightning_modules.base.task import Prediction, Truth
from lightning_modules.ops.gather import broadcast_from_first
from pipeline.loading.requests import encoding
from pipeline.training.checkpoints import BEST, publish_state, save_best, weights_digest
from pipeline.training.events import EventLogger
from pipeline.training.ledger import LedgerFile
from pipeline.training.node_load import LOADER_WAIT
from pipeline.training.reports import build_report
from pipeline.training.state_copier import StateCopier
from pipeline.training.stopping import Stopped, StopRequest, Wish

PICTURES = "val pictures"  # MLflow sorts sections by name: after "val", where the metrics are
_ACCUMULATED = "accumulate_grad_batches"  # a state's own key


class LedgerWriter(pl.Callback):
    """Writes the sample keys of every finished step. Must come before the callback that writes states."""

    def __init__(self, folder: Path, *, rank: int, world: int):
        self.folder, self.rank, self.world = folder, rank, world
        self._keys: list[str] = []
        self._step = 0
        self._file: LedgerFile | None = None

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._step = trainer.global_step
        self._file = LedgerFile(
            self.folder,
            broadcast_from_first(f"{time.time_ns():020d}"),
            rank=self.rank,
            world=self.world,
            from_step=self._step,
        )

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        assert self._file is not None
        self._keys += [] if batch["is_stand_in"] else batch["keys"]
        if trainer.global_step > self._step:
            self._step = trainer.global_step
            self._file.step(epoch=trainer.current_epoch, step=self._step, keys=self._keys)
            self._keys = []

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        if self._file is not None:
            self._file.sync()

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        if self._file is not None:
            self._file.close()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        self.teardown(trainer, pl_module, "fit")


class Averaging(EMAWeightAveraging):
    """Exponential averages of the weights, where the model is.

    Lightning sets callbacks up before it moves the model, so that the averages would stay on the CPU and the weights of
    a GPU would go there at each step.
    """

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        self._device = trainer.strategy.root_device
        super().setup(trainer, pl_module, stage)
        if self._average_model is not None:
            # It is read at each step, which would wait for a GPU.
            self._average_model.n_averaged = torch.zeros((), dtype=torch.long)


class StateWriter(pl.Callback):
    """Writes states, and the best checkpoint when the monitored metric improved.

    Must come after the weight averaging callback: `on_save_checkpoint` then sees the averaged weights that were
    validated, which are the ones to keep.

    Args:
        run: `Run.to_dict()`. mode: whether more or less of `monitor` is better, "max" or "min".
        copier: copies every state to a store.
    """

    def __init__(
        self,
        folder: Path,
        run: Mapping[str, Any],
        data: DataSpec,
        monitor: str,
        mode: str,
        copier: StateCopier | None = None,
    ):
        self.folder, self.run, self.data, self.copier = folder, run, data, copier
        self.monitor, self.mode = monitor, mode
        self.every: int | None = run["train"]["checkpoint_every_steps"]
        self.validate_every: int = run["train"]["validate_every_epochs"]
        self.best: float | None = None
        self.best_info: dict[str, Any] = {}
        self._improved = False
        self.stop = StopRequest()
        self.every_s: float | None = run["train"]["checkpoint_every_s"]
        self._saved_s = time.monotonic()
        self._step = 0  # the last one finished

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._step = trainer.global_step
        self._saved_s = time.monotonic()

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        LOADER_WAIT.begin()

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best, "best_info": self.best_info}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.best, self.best_info = state["best"], state["best_info"]

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        LOADER_WAIT.end()
        if batch_idx % trainer.accumulate_grad_batches == 0:
            old = self.every_s is not None and time.monotonic() - self._saved_s > self.every_s
            self.stop.send(trainer.strategy.root_device, state=old and trainer.is_global_zero)

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any) -> None:
        try:
            self._end_step(trainer)
        finally:
            LOADER_WAIT.begin()

    def _end_step(self, trainer: pl.Trainer) -> None:
        # The last batch is followed by validation: a state in between would make a resumed run skip it.
        if trainer.fit_loop.epoch_loop.batch_progress.is_last_batch or trainer.global_step == self._step:
            return
        self._step = trainer.global_step
        wish = self.stop.due()
        if wish or (self.every and self._step % self.every == 0):
            _log_step(trainer)
            self._save(trainer)
        if wish is Wish.STOP:
            raise Stopped(f"asked to stop: the state of step {self._step} is written")

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if (trainer.current_epoch + 1) % self.validate_every == 0:
            value = trainer.callback_metrics.get(f"val/{self.monitor}")
            if value is None:
                known = ", ".join(
                    sorted(k.removeprefix("val/") for k in trainer.callback_metrics if k.startswith("val/"))
                )
                raise ConfigError("validation gives no such metric", value=self.monitor, where="monitor", allowed=known)
            self._judge(trainer, float(value))
        self._save(trainer)
        self._step = trainer.global_step
        last_step = self.stop.due()
        self.stop.send(trainer.strategy.root_device)  # the last step's answer is as old as the validation after it
        if Wish.STOP in (self.stop.due(), last_step):
            raise Stopped(f"asked to stop: the state of step {self._step} is written")

    def _judge(self, trainer: pl.Trainer, value: float) -> None:
        better = self.best is None or (value > self.best if self.mode == "max" else value < self.best)
        if math.isfinite(value) and better:
            metrics = {k: float(v) for k, v in trainer.callback_metrics.items() if k.startswith("val/")}
            self.best, self._improved = value, True
            self.best_info = {"step": trainer.global_step, "epoch": trainer.current_epoch, "metrics": metrics}

    def _save(self, trainer: pl.Trainer) -> None:
        part = self.folder / ".state.part"
        trainer.save_checkpoint(part)  # collective: every rank calls it, rank 0 writes
        self._saved_s = time.monotonic()
        if trainer.is_global_zero:
            publish_state(part, self.folder, trainer.global_step)
        if self.copier is not None and trainer.is_global_zero:
            self.copier.ask()

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        self._refuse_if_broken(trainer, checkpoint)
        if self._improved and trainer.is_global_zero:
            weights = checkpoint["state_dict"]
            info = {**self.best_info, "weights_sha256": weights_digest(weights)}
            save_best(self.folder / BEST, run=self.run, data=self.data, weights=weights, info=info)
        self._improved = False
        checkpoint[_ACCUMULATED] = trainer.accumulate_grad_batches

    def _refuse_if_broken(self, trainer: pl.Trainer, checkpoint: Mapping[str, Any]) -> None:
        """What rank 0 would write decides, and all ranks stop together: those that go on would wait for it."""
        error: TrainingError | None = None
        if trainer.is_global_zero:
            try:
                check_state(checkpoint, f"epoch {trainer.current_epoch}, step {trainer.global_step}")
            except TrainingError as found:
                error = found
        if (refused := broadcast_from_first(error)) is not None:
            raise refused

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Lightning counts micro-batches; with another number of workers a global batch may have more or fewer."""
        before, now = checkpoint[_ACCUMULATED], trainer.accumulate_grad_batches
        progress = checkpoint["loops"]["fit_loop"]["epoch_loop.batch_progress"]
        for counts in (progress["total"], progress["current"]):
            unfinished = counts["ready"] - counts["completed"]  # 1 in a state written at the end of a step
            for name, count in counts.items():
                counts[name] = count // before * now
            counts["completed"] = counts["ready"] - unfinished


def _log_step(trainer: pl.Trainer) -> None:
    """The line of the step that is just done, which Lightning writes after this: a training that goes on from the state
    of this step does not come by here again."""
    every: int = trainer.log_every_n_steps  # type: ignore[attr-defined]
    if trainer.global_step % every == 0 and trainer.logger is not None:
        values = {name: float(value) for name, value in trainer.logged_metrics.items() if name.startswith("train/")}
        trainer.logger.log_metrics(values | {"epoch": trainer.current_epoch}, step=trainer.global_step - 1)


class PictureWriter(pl.Callback):
    """Draws the same images with their predictions before the first step and after each validation, so that runs
    compare by eye. MLflow's pages open at step 0."""

    def __init__(self, events: EventLogger, count: int, run: Mapping[str, Any]):
        self.events, self.count, self.run = events, count, run

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """The untrained model. What comes after is bit for bit as if nothing had been drawn."""
        assert isinstance(pl_module, TaskModule)
        if trainer.global_step or not trainer.is_global_zero or not self.count:
            return  # a training that goes on has its pictures
        with isolate_rng(), _as_in_validation(trainer, pl_module):
            task, data = pl_module.task, trainer.datamodule  # type: ignore[attr-defined]
            for key in sorted(data.eval_keys("val"))[: self.count]:  # as `items` has them later
                record = data.record("val", key)
                with encoding(key):
                    example = task.encode(record, None)
                batch = task.collate([example]) | {"keys": [key]}
                batch = trainer.strategy.batch_to_device(batch, pl_module.device)
                self._draw(trainer, pl_module, key, task.predict(pl_module.model, batch), task.truths(record))

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        assert isinstance(pl_module, TaskModule)
        if trainer.is_global_zero:
            for key in list(pl_module.items)[: self.count]:
                self._draw(trainer, pl_module, key, *pl_module.of_record(key))

    def _draw(
        self, trainer: pl.Trainer, module: TaskModule, key: str, predictions: list[Prediction], truths: list[Truth]
    ) -> None:
        record = trainer.datamodule.record("val", key)  # type: ignore[attr-defined]
        picture = build_report(self.run, module.task).picture(record, predictions, truths)
        self.events.image(f"{PICTURES}/{key}", picture, trainer.global_step)


@contextmanager
def _as_in_validation(trainer: pl.Trainer, module: TaskModule) -> Iterator[None]:
    """Every part of the model is in evaluation mode, so that no running average moves, and is put back as it was."""
    modes = {part: part.training for part in module.modules()}
    module.eval()
    try:
        with torch.no_grad(), trainer.precision_plugin.val_step_context():
            yield
    finally:
        for part, training in modes.items():
            part.training = training
