"""What Lightning, one Ray worker and our loader add to a training step.

Beside a bare PyTorch loop fed from memory, both train the same model on the same batches in a process of one thread:
gradient clipping, AdamW, a schedule. The bare loop's batches are made beforehand; ours are decoded and augmented by one
loader process meanwhile.

Beside Lightning alone, a model of nine weights is trained in this process from memory, so that a step is hardly more
than what the Trainer does around it: with our callbacks and logger, with Lightning's defaults, and with nothing.
"""

from __future__ import annotations

import contextlib
import io
import json
import multiprocessing
import statistics
import tempfile
import time
import warnings
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader

from benchmarks import Figure
from benchmarks._project import make_project
from contracts.records import DataSpec
from lightning_modules.base.module import TaskModule
from lightning_modules.base.optimizer import OptimizerConfig, Phase, lr_factor
from lightning_modules.base.task import Batch, Mean
from lightning_modules.blocks.pixels import to_channels_last
from lightning_modules.tasks import segmentation
from pipeline.cluster.train import run_training
from pipeline.loading.datamodule import TarDataModule
from pipeline.settings.sections import ClusterConfig, LoaderConfig
from pipeline.settings.train_config import TrainConfig
from pipeline.training.checkpoints import build_module
from pipeline.training.fit import Placement, make_trainer, quiet_lightning
from pipeline.training.run_files import EVENTS
from pipeline.training.runs import RunData, load_run

ROOT = Path(__file__).resolve().parents[1]
BATCH, STEPS, WARM = 16, 60, 6
TINY_STEPS, TINY_ROUNDS = 500, 5
TRAIN = {"max_epochs": 1, "batch_size": BATCH, "precision": "32-true", "log_every_steps": 1, "num_pictures": 0}


def measure() -> list[Figure]:
    with tempfile.TemporaryDirectory(prefix="sightline-bench-") as folder:
        root = Path(folder)
        project, params = make_project(root, BATCH * STEPS, train=TRAIN, loader={"num_workers": 1})
        ours, bare = _side_by_side(load_run(project, params, "fcn"), project.shards("voc"), root)
    return [
        Figure(
            what=f"training step through Lightning, Ray and our loader (FCN-8s, {BATCH} images of 128 px), median",
            value=1000 * ours,
            unit="ms",
            beside="bare loop fed from memory",
            other=1000 * bare,
            goal="ratio >= 0.95 (<= 1.05 x the bare step)",
        ),
        *_trainers(),
    ]


class _Numbers(segmentation.Task):
    """A task that takes no time; notes when each step starts."""

    def __init__(self, config: Any, data: DataSpec):
        super().__init__(config, data)
        self.starts: list[float] = []

    def losses(self, model: torch.nn.Module, batch: Batch) -> dict[str, Mean]:
        self.starts.append(time.perf_counter())
        return {"square": Mean(model(batch["numbers"]).square().sum(), len(batch["numbers"]))}


class _Memory(pl.LightningDataModule):
    """What the module and our Trainer ask of a `TarDataModule`, from memory and without validation."""

    accumulate, steps_per_epoch = 1, TINY_STEPS

    def train_dataloader(self) -> DataLoader:
        same = {"keys": list("abcd"), "is_stand_in": False, "num_step_images": 4, "step_counts": {}}
        batches = [{"numbers": part, **same} for part in torch.randn(TINY_STEPS, 4, 8)]
        return DataLoader(batches, batch_size=None)  # type: ignore[arg-type]  # a list is a dataset


def _trainers() -> list[Figure]:
    quiet_lightning()
    warnings.filterwarnings("ignore", module="pytorch_lightning")  # its advice on what is left out on purpose
    kinds = ("ours", "defaults", "lean")
    steps: dict[str, list[float]] = {kind: [] for kind in kinds}
    for _ in range(TINY_ROUNDS):
        for kind in kinds:
            steps[kind].append(_tiny_step(kind))
    medians = {kind: 1e6 * statistics.median(seconds) for kind, seconds in steps.items()}
    return [
        Figure(
            what="step of a tiny model with our callbacks and logger",
            value=medians["ours"],
            unit="µs",
            beside=beside,
            other=medians[kind],
            goal=goal,
        )
        for kind, beside, goal in (
            ("defaults", "Lightning's defaults (its logger, progress bar and checkpoints)", "ratio >= 1"),
            ("lean", "Lightning without callbacks and logger", ""),
        )
    ]


def _tiny_step(kind: str) -> float:
    """Mean seconds of a step of one epoch."""
    data = DataSpec(dataset="tiny", classes=("a",), vocabulary={})
    # Two epochs, so that our Trainer does not ask for the metric of a validation after the first, the only one.
    train = TrainConfig(max_epochs=2, validate_every_epochs=2, precision="32-true")
    module = TaskModule(
        _Numbers(segmentation.Task.Config(), data), torch.nn.Linear(8, 1), [Phase(2, OptimizerConfig())]
    )
    memory = _Memory()
    plain: dict[str, Any] = {"accelerator": "cpu", "gradient_clip_val": train.gradient_clip_norm, "max_epochs": 2}
    lean = {f"enable_{name}": False for name in ("checkpointing", "progress_bar", "model_summary")} | {"logger": False}
    with tempfile.TemporaryDirectory(prefix="sightline-bench-") as folder, contextlib.redirect_stdout(io.StringIO()):
        if kind == "ours":
            run = {"name": "tiny", "train": asdict(train)}
            trainer = make_trainer(run, train, data, module, memory, Path(folder), Placement(use_gpu=False), None)
        else:
            trainer = pl.Trainer(default_root_dir=folder, **plain, **(lean if kind == "lean" else {}))
        trainer.fit_loop.max_epochs = 1
        trainer.fit(module, datamodule=memory)
    starts = module.task.starts
    return (starts[-1] - starts[WARM]) / (len(starts) - 1 - WARM)


def _side_by_side(data: RunData, shards: Path, root: Path) -> tuple[float, float]:
    """Median seconds of a step: ours, from one event line to the next, so that all between them counts; and bare,
    before and after ours, as a machine is not the same for minutes."""
    state = root / "state"
    state.mkdir()
    bare = _in_a_process(data, shards)
    arguments = {"run": data.run.to_dict(), "data": data.spec.to_dict(), "shards": str(shards), "state": str(state)}
    run_training(arguments, ClusterConfig(num_workers=1), ROOT)
    bare += _in_a_process(data, shards)
    lines = [json.loads(line) for line in (state / EVENTS).read_text().splitlines()]
    ours = [line["time"] for line in lines if line["kind"] == "metrics" and "train/loss" in line["values"]]
    return statistics.median(_seconds(ours)), statistics.median(bare)


def _seconds(times: list[float]) -> list[float]:
    return [b - a for a, b in zip(times[WARM:], times[WARM + 1 :], strict=False)]


def _in_a_process(data: RunData, shards: Path) -> list[float]:
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(_bare, data, shards).result()


def _bare(data: RunData, shards: Path) -> list[float]:
    """Seconds of each step of an epoch over batches that lie in memory."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    train = data.run.train
    module: TaskModule = build_module(data.run.to_dict(), data.spec)
    to_channels_last(module)
    loader = TarDataModule(
        shards, module.task, LoaderConfig(), batch_size=BATCH, micro_batch_size=None, eval_batch_size=BATCH, seed=0
    ).train_dataloader()
    batches = list(loader)
    optimizer = torch.optim.AdamW(module.parameters(), lr=train.optimizer.lr)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: lr_factor(OptimizerConfig(), step, total_steps=STEPS, steps_per_epoch=STEPS)
    )
    module.train()
    times = []
    for batch in batches:
        loss = torch.stack([part.value for part in module.task.losses(module.model, batch).values()]).sum()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(module.parameters(), train.gradient_clip_norm or 1.0)
        optimizer.step()
        schedule.step()
        times.append(time.time())
    return _seconds(times)
