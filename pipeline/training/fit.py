"""Training of one run in one process of possibly many: free of Ray, DVC and MLflow.

Everything a later process needs is in the run's state folder: states, the best checkpoint, `events.jsonl` with
metrics and pictures, `failure.json` where training must not be tried again. Killed at any moment and called
again with the same arguments, `fit` goes on from the newest whole state.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import signal
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import EarlyStopping

from contracts.errors import SightlineError, TrainingError
from contracts.records import DataSpec
from lightning_modules.base.module import TaskModule
from lightning_modules.blocks.pixels import to_channels_last
from pipeline.loading.datamodule import TarDataModule
from pipeline.settings.parse import Problems, parse, raise_if
from pipeline.settings.sections import LoaderConfig
from pipeline.settings.train_config import TrainConfig
from pipeline.system.out_of_memory import MEMORY_FIX, is_out_of_memory
from pipeline.system.project import write_json
from pipeline.training.callbacks import Averaging, LedgerWriter, PictureWriter, StateWriter
from pipeline.training.checkpoints import BEST, build_module, read_note, start_from
from pipeline.training.events import EventLogger
from pipeline.training.finishing import finish_best
from pipeline.training.heartbeat import Heartbeat
from pipeline.training.ledger import FOLDER as LEDGER
from pipeline.training.progress import ProgressTeller
from pipeline.training.resume import agree_on_precision, agree_on_state, check_shared
from pipeline.training.run_files import DONE, EVENTS, FAILURE, START
from pipeline.training.state_copier import CLOSE_S, StateCopier
from pipeline.training.state_file import StateFile
from pipeline.training.state_mirror import StateMirror
from pipeline.training.stopping import Stopped

_ERROR_LENGTH = 500


@dataclass(frozen=True)
class Placement:
    """Where this process stands: `strategy` and `plugins` come from the engine; the default is one process alone.

    Where the engine replaces lost workers, `still_s` seconds without a step make this process one.
    """

    world: int = 1
    rank: int = 0
    strategy: Any = "auto"
    plugins: tuple[Any, ...] = ()
    use_gpu: bool = field(default_factory=torch.cuda.is_available)
    still_s: float | None = None


def fast_precision(use_gpu: bool) -> str:
    """bf16 autocast where this machine multiplies bf16 fast, else float16 on a GPU and float32 on a CPU."""
    if use_gpu:
        return "bf16-mixed" if torch.cuda.is_bf16_supported(including_emulation=False) else "16-mixed"
    capabilities = torch.cpu.get_capabilities()
    return "bf16-mixed" if capabilities.get("avx512_bf16") or capabilities.get("amx_bf16") else "32-true"


def quiet_lightning() -> None:
    """Leave out Lightning's tips and notes on its own internals; its warnings on our code stay."""
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", message=".*LeafSpec.*deprecated")
    warnings.filterwarnings("ignore", message=".*sync_dist=True.*")  # validation logs what rank 0 scored and sent
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")  # a CPU's cores train


def fit(
    run: dict[str, Any],
    data: dict[str, Any],
    shards: str,
    state: str,
    placement: Placement | None = None,
    state_store: str | None = None,
) -> None:
    """Train `run` to its end, from the newest state in the folder `state` or from the start.

    Args:
        run: `Run.to_dict()`.
        data: `DataSpec.to_dict()`.
        shards: absolute path of the data set's shard folder.
        state: absolute path of the run's state folder, seen by every rank.
        state_store: url of a folder that every state is copied to.

    Raises:
        SightlineError: training cannot go on and trying again would not help; it is also left in `failure.json`.
    """
    folder, placement = Path(state), placement or Placement()
    copier = None if state_store is None else StateCopier(StateMirror(state_store, folder))
    last_copy_s = CLOSE_S
    try:
        _fit(run, DataSpec.from_dict(data), Path(shards), folder, placement, copier)
        last_copy_s = 0.0  # the result is what counts now
    except SightlineError as error:
        with contextlib.suppress(OSError), open(folder / FAILURE, "x") as file:  # the first rank's tells most
            json.dump({"type": type(error).__name__, "text": str(error)}, file)
        raise
    finally:
        if copier is not None:
            copier.close(last_copy_s)


def _fit(
    run: dict[str, Any],
    data: DataSpec,
    shards: Path,
    folder: Path,
    placement: Placement,
    copier: StateCopier | None,
) -> None:
    quiet_lightning()
    if placement.world > 1 and placement.use_gpu:
        torch.cuda.set_device(placement.strategy.root_device)  # collectives before Lightning sets it
    check_shared(folder)
    problems: Problems = []
    train, loader = (
        parse(TrainConfig, run["train"], "train", problems),
        parse(LoaderConfig, run["loader"], "loader", problems),
    )
    raise_if(problems, "the run")
    assert train is not None and loader is not None
    precision = agree_on_precision(folder, train.precision, fast_precision(placement.use_gpu))
    run = {**run, "train": {**run["train"], "precision": precision}}  # as it is kept with the weights
    train = dataclasses.replace(train, precision=precision)  # type: ignore[arg-type]
    pl.seed_everything(train.seed, workers=False, verbose=False)
    module = build_module(run, data)
    if train.channels_last:
        to_channels_last(module)
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
    trainer = make_trainer(run, train, data, module, datamodule, folder, placement, copier)
    resume = agree_on_state(folder)
    if resume is not None and trainer.is_global_zero:
        print(f"{run['name']}  goes on from {resume.name}", flush=True)
    if resume is None and run["init"] is not None:
        start_from(module, folder / START, run["init"]["part"])
    try:
        _train(trainer, module, datamodule, resume, folder / f"crash-rank{placement.rank}.json")
    finally:
        datamodule.close()
    if trainer.is_global_zero:
        if (folder / BEST).is_file():
            finish_best(trainer, module, shards, train, loader, folder)
        write_json(folder / DONE, {"step": trainer.global_step, "epochs": trainer.current_epoch})


def _train(
    trainer: pl.Trainer, module: TaskModule, datamodule: TarDataModule, resume: Path | None, crashes: Path
) -> None:
    """Lightning's fit, its failures in our words."""
    interrupt_handler = signal.getsignal(signal.SIGINT)
    try:
        trainer.fit(module, datamodule=datamodule, ckpt_path=resume, weights_only=True)
    except (SightlineError, Stopped):
        raise
    except SystemExit as error:
        if not isinstance(error.__context__, KeyboardInterrupt):
            raise
        # Lightning leaves at Ctrl-C as at a failure, and deaf to another one.
        signal.signal(signal.SIGINT, interrupt_handler)
        raise KeyboardInterrupt from error
    except Exception as error:
        if is_out_of_memory(error):
            raise TrainingError(
                "training ran out of memory",
                value=f"{type(error).__name__}: {error}".strip()[:_ERROR_LENGTH],
                where=f"step {trainer.global_step + 1}, rank {trainer.global_rank}",
                fix=MEMORY_FIX,
            ) from error
        _stop_if_repeated(crashes, trainer.global_step, module.keys, error)
        raise


def _stop_if_repeated(path: Path, step: int, keys: Sequence[str], error: Exception) -> None:
    """Note an error of ours or of a library's; raise if the same one stopped the same step before.

    A lost connection is only told by the ranks that did not fail, and may well come twice by chance.
    """
    text = f"{type(error).__name__}: {error}"
    if isinstance(error, torch.distributed.DistError) or "gloo" in text or "NCCL" in text:
        return
    if read_note(path) == {"step": step, "error": text[:_ERROR_LENGTH]}:
        raise TrainingError(
            "the same step failed twice in the same way",
            value=text[:_ERROR_LENGTH],
            where=f"step {step + 1}, samples {list(keys)}",
            fix="this is a defect, or data that nothing here expects; the traceback is above",
        ) from error
    path.write_text(json.dumps({"step": step, "error": text[:_ERROR_LENGTH]}))


def make_trainer(
    run: Mapping[str, Any],
    train: TrainConfig,
    data: DataSpec,
    module: TaskModule,
    datamodule: TarDataModule,
    folder: Path,
    placement: Placement,
    copier: StateCopier | None,
) -> pl.Trainer:
    monitor, mode = module.monitor, module.mode
    events = EventLogger(folder / EVENTS)
    pictures = PictureWriter(events, train.num_pictures, run)
    progress = ProgressTeller(run["name"], monitor, datamodule.steps_per_epoch * train.num_epochs)
    callbacks: list[pl.Callback] = [progress, pictures]
    if placement.still_s is not None:
        callbacks.append(Heartbeat(placement.still_s))
    if train.ledger:
        callbacks.append(LedgerWriter(folder / LEDGER, rank=placement.rank, world=placement.world))
    if train.ema_decay is not None:
        callbacks.append(Averaging(decay=train.ema_decay))
    if train.early_stopping_patience is not None:
        callbacks.append(
            EarlyStopping(
                f"val/{monitor}", mode=mode, patience=train.early_stopping_patience, check_on_train_epoch_end=False
            )
        )
    callbacks.append(StateWriter(folder, run, data, monitor, mode, copier))
    trainer = pl.Trainer(
        accelerator="gpu" if placement.use_gpu else "cpu",
        devices=1,
        strategy=placement.strategy,
        plugins=[*placement.plugins, StateFile()],
        precision=train.precision,  # type: ignore[arg-type]  # no "auto" any more
        max_epochs=train.num_epochs,
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
    # A broadcast for each micro-batch, which waits for the GPU, of a signal that cannot come: Lightning takes it in the
    # main thread only, where nothing of several ranks runs. `StopRequest` does this for us.
    trainer.fit_loop.epoch_loop._broadcast_sigterm_tensor = lambda: None  # type: ignore[method-assign]
    return trainer
