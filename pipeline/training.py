"""Training of one run in one process of possibly many: free of Ray, DVC and MLflow.

Everything a later process needs is in the run's state folder: states, the best checkpoint, `events.jsonl` with
metrics and pictures, `failure.json` where training must not be tried again. Killed at any moment and called
again with the same arguments, `fit` goes on from the newest whole state.
"""

from __future__ import annotations

import json
import logging
import math
import time
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import EarlyStopping, EMAWeightAveraging

from contracts.errors import ConfigError, SightlineError
from contracts.records import DataSpec
from lightning_modules.base import OptimizerConfig, TaskModule
from lightning_modules.ops.gather import broadcast_from_first
from pipeline.checkpoints import BEST, build_module, newest_state, publish_state, save_best, weights_digest
from pipeline.datamodule import TarDataModule
from pipeline.events import EventLogger
from pipeline.ledger import FOLDER as LEDGER
from pipeline.ledger import LedgerFile
from pipeline.params import LoaderConfig
from pipeline.settings import Problems, parse, raise_if

FAILURE, DONE, EVENTS = "failure.json", "done.json", "events.jsonl"
_ACCUMULATED = "accumulate_grad_batches"  # a state's own key


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """How a run is trained.

    `batch_size` is global: over all workers and accumulation steps. `micro_batch_size` is the most that a worker holds
    at once (None: its whole share); how many steps it accumulates follows from it and from the number of workers, also
    when a run goes on with another number. `monitor` (default: the task's metric) chooses the best checkpoint.
    `precision: auto` is bf16-mixed where the GPU or CPU has the instructions. `checkpoint_every_steps` writes states
    inside an epoch; one is always written after validation. `ledger` records the sample keys of every step, for
    `python -m pipeline.ledger`.
    """

    max_epochs: int = 10
    batch_size: int = 16
    eval_batch_size: int = 16
    micro_batch_size: int | None = None
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    precision: Literal["auto", "32-true", "bf16-mixed", "16-mixed"] = "auto"
    channels_last: bool = True
    gradient_clip_norm: float | None = 1.0
    ema_decay: float | None = None
    early_stopping_patience: int | None = None
    monitor: str | None = None
    monitor_mode: Literal["max", "min"] | None = None
    validate_every_epochs: int = 1
    checkpoint_every_steps: int | None = None
    log_every_steps: int = 10
    ledger: bool = False
    num_pictures: int = 6
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("max_epochs", "batch_size", "eval_batch_size", "micro_batch_size", "validate_every_epochs"):
            if (getattr(self, name) or 1) < 1:
                raise ConfigError(f"{name} must be positive", value=getattr(self, name))
        if self.validate_every_epochs > self.max_epochs:
            raise ConfigError(
                "no epoch would be validated", value=self.validate_every_epochs, where="validate_every_epochs"
            )
        if (self.monitor is None) != (self.monitor_mode is None):
            raise ConfigError(
                "monitor and monitor_mode belong together",
                value=(self.monitor, self.monitor_mode),
                allowed="both or none",
            )
        if self.ema_decay is not None and not 0 < self.ema_decay < 1:
            raise ConfigError("ema_decay must lie between 0 and 1", value=self.ema_decay)


@dataclass(frozen=True)
class Placement:
    """Where this process stands: `strategy` and `plugins` come from the engine; the default is one process alone."""

    world: int = 1
    rank: int = 0
    strategy: Any = "auto"
    plugins: tuple[Any, ...] = ()
    use_gpu: bool | None = None  # None: if there is one


def choose_precision(precision: str, use_gpu: bool) -> Any:
    """Resolve "auto": bf16 autocast where the hardware multiplies bf16 fast, else float32."""
    if precision != "auto":
        return precision
    if use_gpu:
        return "bf16-mixed" if torch.cuda.is_bf16_supported() else "16-mixed"
    capabilities = torch.cpu.get_capabilities()
    return "bf16-mixed" if capabilities.get("avx512_bf16") or capabilities.get("amx_bf16") else "32-true"


def quiet_lightning() -> None:
    """Leave out Lightning's tips and notes on its own internals; its warnings on our code stay."""
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", message=".*LeafSpec.*deprecated")
    warnings.filterwarnings("ignore", message=".*sync_dist=True.*")  # validation logs what rank 0 scored and sent
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")  # a CPU's cores train


class LedgerWriter(pl.Callback):
    """Writes the sample keys of every finished step. Must come before the callback that writes states."""

    def __init__(self, folder: Path, placement: Placement):
        self.folder, self.placement = folder, placement
        self._keys: list[str] = []
        self._step = 0
        self._file: LedgerFile | None = None

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._step = trainer.global_step
        self._file = LedgerFile(
            self.folder,
            broadcast_from_first(f"{time.time_ns():020d}"),
            rank=self.placement.rank,
            world=self.placement.world,
            from_step=self._step,
        )

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        assert self._file is not None
        self._keys += batch["keys"] if batch["weight"] else []  # a stand-in is not trained on
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


class StateWriter(pl.Callback):
    """Writes states, and the best checkpoint when the monitored metric improved.

    Must come after the weight averaging callback: `on_save_checkpoint` then sees the averaged weights that were
    validated, which are the ones to keep.
    """

    def __init__(
        self, folder: Path, run: Mapping[str, Any], data: DataSpec, train: TrainConfig, monitor: str, mode: str
    ):
        self.folder, self.run, self.data = folder, run, data
        self.monitor, self.mode = monitor, mode
        self.every, self.validate_every = train.checkpoint_every_steps, train.validate_every_epochs
        self.best: float | None = None
        self.best_info: dict[str, Any] = {}
        self._improved = False

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best, "best_info": self.best_info}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.best, self.best_info = state["best"], state["best_info"]

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any) -> None:
        # The last batch is followed by validation: a state in between would make a resumed run skip it.
        if (
            self.every
            and trainer.global_step % self.every == 0
            and not trainer.fit_loop.epoch_loop.batch_progress.is_last_batch
        ):
            self._save(trainer)

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

    def _judge(self, trainer: pl.Trainer, value: float) -> None:
        better = self.best is None or (value > self.best if self.mode == "max" else value < self.best)
        if math.isfinite(value) and better:
            metrics = {k: float(v) for k, v in trainer.callback_metrics.items() if k.startswith("val/")}
            self.best, self._improved = value, True
            self.best_info = {"step": trainer.global_step, "epoch": trainer.current_epoch, "metrics": metrics}

    def _save(self, trainer: pl.Trainer) -> None:
        part = self.folder / ".state.part"
        trainer.save_checkpoint(part)  # collective: every rank calls it, rank 0 writes
        if trainer.is_global_zero:
            publish_state(part, self.folder, trainer.global_step)

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        if self._improved and trainer.is_global_zero:
            weights = checkpoint["state_dict"]
            info = {**self.best_info, "weights_sha256": weights_digest(weights)}
            save_best(self.folder / BEST, run=self.run, data=self.data, weights=weights, info=info)
        self._improved = False
        checkpoint[_ACCUMULATED] = trainer.accumulate_grad_batches

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


class PictureWriter(pl.Callback):
    """After each validation draws the same images with their predictions, so that runs compare by eye."""

    def __init__(self, events: EventLogger, count: int):
        self.events, self.count = events, count

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        assert isinstance(pl_module, TaskModule)
        if not trainer.is_global_zero:
            return
        from lightning_modules.augment import decode_image

        for key in list(pl_module.predictions)[: self.count]:
            record = trainer.datamodule.record("val", key)  # type: ignore[attr-defined]
            picture = pl_module.task.picture(
                decode_image(record.image), pl_module.predictions[key], pl_module.truths[key]
            )
            self.events.image(f"val/{key}", picture, trainer.global_step)


class ProgressLines(pl.Callback):
    """A line of progress every few seconds and at each epoch: legible in a terminal and in a Ray worker's log alike."""

    def __init__(self, name: str, monitor: str, every_s: float = 10.0):
        self.name, self.monitor, self.every_s = name, monitor, every_s
        self._last = self._epoch_start = time.monotonic()

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._epoch_start = time.monotonic()

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any) -> None:
        if time.monotonic() - self._last > self.every_s:
            self._print(trainer, f"step {trainer.global_step}", ("train/loss",))

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        took = f"{time.monotonic() - self._epoch_start:.1f} s"
        self._print(trainer, took, ("train/loss", "val/loss", f"val/{self.monitor}"))

    def _print(self, trainer: pl.Trainer, text: str, names: tuple[str, ...]) -> None:
        self._last = time.monotonic()
        if trainer.is_global_zero:
            found = {name: trainer.callback_metrics.get(name) for name in names}
            values = "  ".join(f"{name} {float(value):.4f}" for name, value in found.items() if value is not None)
            print(f"{self.name}  epoch {trainer.current_epoch + 1}/{trainer.max_epochs}  {text}  {values}", flush=True)


def fit(run: dict[str, Any], data: dict[str, Any], shards: str, state: str, placement: Placement | None = None) -> None:
    """Train `run` to its end, from the newest state in the folder `state` or from the start.

    Args:
        run: `Run.to_dict()`.
        data: `DataSpec.to_dict()`.
        shards: absolute path of the data set's shard folder.
        state: absolute path of the run's state folder, seen by every rank.

    Raises:
        SightlineError: training cannot go on and trying again would not help; it is also left in `failure.json`.
    """
    folder, placement = Path(state), placement or Placement()
    try:
        _fit(run, DataSpec.from_dict(data), Path(shards), folder, placement)
    except SightlineError as error:
        (folder / FAILURE).write_text(json.dumps({"type": type(error).__name__, "text": str(error)}))
        raise


def _fit(run: dict[str, Any], data: DataSpec, shards: Path, folder: Path, placement: Placement) -> None:
    quiet_lightning()
    problems: Problems = []
    train, loader = (
        parse(TrainConfig, run["train"], "train", problems),
        parse(LoaderConfig, run["loader"], "loader", problems),
    )
    raise_if(problems, "the run")
    assert train is not None and loader is not None
    pl.seed_everything(train.seed, workers=False, verbose=False)
    module = build_module(run, data)
    if train.channels_last:
        module = module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    datamodule = TarDataModule(
        shards,
        module.task,
        loader,
        batch_size=train.batch_size,
        micro_batch_size=train.micro_batch_size,
        eval_batch_size=train.eval_batch_size,
        seed=train.seed,
        world=placement.world,
        rank=placement.rank,
    )
    trainer = _trainer(run, train, data, module, datamodule, folder, placement)
    resume = newest_state(folder)
    if resume is not None and trainer.is_global_zero:
        print(f"{run['name']}  goes on from {resume.name}", flush=True)
    trainer.fit(module, datamodule=datamodule, ckpt_path=resume)
    if trainer.is_global_zero:
        (folder / DONE).write_text(json.dumps({"step": trainer.global_step, "epochs": trainer.current_epoch}))


def _trainer(
    run: Mapping[str, Any],
    train: TrainConfig,
    data: DataSpec,
    module: TaskModule,
    datamodule: TarDataModule,
    folder: Path,
    placement: Placement,
) -> pl.Trainer:
    monitor = train.monitor or module.task.metric
    mode = train.monitor_mode or module.task.metric_mode
    use_gpu = torch.cuda.is_available() if placement.use_gpu is None else placement.use_gpu
    events = EventLogger(folder / EVENTS)
    callbacks: list[pl.Callback] = [ProgressLines(run["name"], monitor), PictureWriter(events, train.num_pictures)]
    if train.ledger:
        callbacks.append(LedgerWriter(folder / LEDGER, placement))
    if train.ema_decay is not None:
        callbacks.append(EMAWeightAveraging(decay=train.ema_decay))
    if train.early_stopping_patience is not None:
        callbacks.append(
            EarlyStopping(
                f"val/{monitor}", mode=mode, patience=train.early_stopping_patience, check_on_train_epoch_end=False
            )
        )
    callbacks.append(StateWriter(folder, run, data, train, monitor, mode))
    return pl.Trainer(
        accelerator="gpu" if use_gpu else "cpu",
        devices=1,
        strategy=placement.strategy,
        plugins=list(placement.plugins),
        precision=choose_precision(train.precision, use_gpu),
        max_epochs=train.max_epochs,
        accumulate_grad_batches=datamodule.accumulate,
        gradient_clip_val=train.gradient_clip_norm,
        check_val_every_n_epoch=train.validate_every_epochs,
        num_sanity_val_steps=0,
        log_every_n_steps=min(train.log_every_steps, datamodule.steps_per_epoch),
        logger=events,
        callbacks=callbacks,
        default_root_dir=str(folder),
        use_distributed_sampler=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
