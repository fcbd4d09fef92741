"""The tiny runs trained in this process, and what training leaves behind."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest
import torch

from contracts.records import DataSpec
from lightning_modules.base.module import TaskModule
from lightning_modules.base.optimizer import OptimizerConfig
from pipeline.settings import discover
from pipeline.settings.params import load_params
from pipeline.system.project import Project
from pipeline.training import checkpoints
from pipeline.training.checkpoints import newest_state, weights_digest
from pipeline.training.run_files import EVENTS
from pipeline.training.runs import load_run

# Two stages of one run, `train` of its settings.
_PLATEAU = {"name": "sgd", "lr": 0.01, "schedule": "plateau", "patience": 1, "factor": 0.5, "warmup_fraction": 0.1}
_PARTS = {"backbone": {"lr": "0.1x", "freeze_until": "c2"}}
STAGES: dict[str, Any] = {
    "stages": [{"epochs": 1, "freeze": ["backbone"]}, {"epochs": 2, "optimizer": {**_PLATEAU, "parts": _PARTS}}],
    "optimizer": {"schedule": "step", "milestones": [0.6]},
    "monitor": "loss",
    "monitor_mode": "max",  # never better: the loss falls in the second stage
}
ROOT = Path(__file__).resolve().parent.parent


def drawn_voc(train: int, val: int) -> dict[str, Any]:
    """`datasets` of a params.yaml: one generated world of 64 pixels with so many images."""
    world = {"name": "voc_scenes", "seed": 6, "image_size": 64, "num_records": {"train": train, "val": val}}
    return {"voc": {"origin": "generated", "input": "pipeline/ingest/worlds", "world": world, "sources": {"voc": {}}}}


def arguments(
    project: Project, state: Path, run: str = "segmentation", loader: dict[str, Any] | None = None, **train: Any
) -> dict[str, Any]:
    """Keyword arguments of `fit`: two epochs of five steps with the averaged weights, a state every two steps."""
    data = load_run(project, load_params(project.root), run)
    plain = data.run.to_dict()
    plain["train"] |= {"max_epochs": 2, "ema_decay": 0.9, "checkpoint_every_steps": 2, **train}
    plain["loader"] |= loader or {}
    state.mkdir(parents=True, exist_ok=True)
    shards = str(project.shards(data.run.dataset))
    return {"run": plain, "data": data.spec.to_dict(), "shards": shards, "state": str(state)}


class Killed(Exception):
    """Stands for the process dying: nothing may run after it."""


def kill_after(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """The process dies in the step after so many."""
    original, seen = TaskModule.training_step, [0]

    def dying(self: TaskModule, batch: Any, batch_idx: int) -> Any:
        seen[0] += 1
        if seen[0] == step + 1:
            raise Killed
        return original(self, batch, batch_idx)

    monkeypatch.setattr(TaskModule, "training_step", dying)


def last_state(state: Path) -> dict[str, Any]:
    """The newest state in a folder."""
    newest = newest_state(state)
    assert newest is not None
    return torch.load(newest, weights_only=True)


def drawn_pictures(state: Path) -> list[dict[str, Any]]:
    """The pictures that a training told."""
    lines = [json.loads(line) for line in (state / EVENTS).read_text().splitlines()]
    return [line for line in lines if line["kind"] == "image"]


def final_weights(state: Path) -> str:
    """Digest of the newest state's trained (not averaged) weights."""
    return weights_digest(last_state(state)["current_model_state"])


def mlflow_statuses(folder: Path) -> list[str]:
    """Of the training runs in a project's own store."""
    with contextlib.closing(sqlite3.connect(folder / "mlflow.db")) as store:
        return [status for (status,) in store.execute("select status from runs")]


def make_checkpoint(path: Path, seed: int) -> Path:
    """An untrained segmentation run, stored as training stores its best."""
    task, model = discover.load("task", "segmentation", where=""), discover.load("model", "fcn", where="")
    run = {
        "name": "seg",
        "dataset": "toy",
        "task_name": "segmentation",
        "task": dataclasses.asdict(task.Task.Config()),
        "model_name": "fcn",
        "model": dataclasses.asdict(model.Config()),
        "train": {"optimizer": dataclasses.asdict(OptimizerConfig()), "seed": 0},
    }
    data = DataSpec(dataset="toy", classes=("circle", "square"))
    torch.manual_seed(seed)
    weights = checkpoints.build_module(run, data).state_dict()
    path.parent.mkdir(parents=True, exist_ok=True)
    checkpoints.save_best(path, run=run, data=data, weights=weights, info={})
    return path
