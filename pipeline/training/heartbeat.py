"""A worker whose training stands still ends itself, so that the engine starts another, as for a lost one.

A frozen process (SIGSTOP, a machine that hangs) does not answer Ray and is given up; a process that answers while its
training waits for ever is seen only from inside. Every step and every batch of validation is a heartbeat.
"""

from __future__ import annotations

import faulthandler
import time
from typing import Any

import pytorch_lightning as pl

_EVERY_S = 1.0
_START_FACTOR = 10  # the first step compiles, starts loader workers and fetches shards
_STDERR = 2  # as a file descriptor: sys.stderr may be anything


class Heartbeat(pl.Callback):
    """Ends the process, with all threads' tracebacks, `limit_s` after its last heartbeat.

    The clock is faulthandler's: a thread of C that needs no lock of Python, so it also sees code that holds it.

    Args:
        limit_s: longer than any step, any batch of validation and any scoring takes, and than a store is waited for;
            the time to the first step may be ten times as long.
    """

    def __init__(self, limit_s: float):
        self.limit_s = limit_s
        self._last = 0.0

    def _beat(self, limit_s: float) -> None:
        self._last = time.monotonic()
        faulthandler.dump_traceback_later(limit_s, exit=True, file=_STDERR)

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._beat(self.limit_s * _START_FACTOR)

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any) -> None:
        if time.monotonic() - self._last > _EVERY_S:
            self._beat(self.limit_s)

    def on_validation_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any) -> None:
        self.on_train_batch_end(trainer, pl_module)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._beat(self.limit_s)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._beat(self.limit_s)

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        faulthandler.cancel_dump_traceback_later()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        faulthandler.cancel_dump_traceback_later()
