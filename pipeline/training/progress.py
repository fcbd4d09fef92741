"""How far a training is, told step by step and at each epoch's end."""

from __future__ import annotations

import time
from typing import Any

import pytorch_lightning as pl

from pipeline.system.progress import Steps, tell

_EVERY_S = 0.5


class ProgressTeller(pl.Callback):
    """Epoch, steps a second, losses, the run's metric and the time that is left, in one line.

    Args:
        name: the run's. monitor: its metric. total: steps of all epochs.
    """

    def __init__(self, name: str, monitor: str, total: int):
        self.name, self.monitor, self.total = name, monitor, total
        self._told = 0.0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._start_s, self._start = time.monotonic(), trainer.global_step
        self._epoch_s = self._start_s

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._epoch_s = time.monotonic()

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any) -> None:
        if time.monotonic() - self._told > _EVERY_S:
            self._tell(trainer, "", ("train/loss", f"val/{self.monitor}"))

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        took = f"  took {_duration(time.monotonic() - self._epoch_s)}"
        self._tell(trainer, took, ("train/loss", "val/loss", f"val/{self.monitor}"), keep=True)

    def _tell(self, trainer: pl.Trainer, text: str, names: tuple[str, ...], *, keep: bool = False) -> None:
        self._told = time.monotonic()
        if not trainer.is_global_zero:
            return
        found = {name: trainer.callback_metrics.get(name) for name in names}
        values = "".join(f"  {name} {float(value):.4f}" for name, value in found.items() if value is not None)
        done, total = trainer.global_step, self.total
        left = (self._told - self._start_s) / max(1, done - self._start) * (total - done)
        epoch = f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}"
        eta = f"  {_duration(left)} left" if done < total else ""
        text = f"{epoch}  step {done}/{total}{values}{text}{eta}"
        tell(Steps(title=self.name, done=done, total=total, text=text, keep=keep))


def _duration(seconds: float) -> str:
    """12 s, 3:04, 1:02:03"""
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
