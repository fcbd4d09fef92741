"""A task, its model and its report in files of their own, and a checkpoint of them: what a user's own parts are."""

from __future__ import annotations

from pathlib import Path

import pytest

import lightning_modules.models
import lightning_modules.reports
import lightning_modules.tasks
from contracts.records import DataSpec
from pipeline.training.checkpoints import build_module, save_best

MODEL = """
from dataclasses import dataclass
from torch import nn
from lightning_modules.base.families import ClassifierSpec

@dataclass(frozen=True, kw_only=True)
class Config:
    pass

class Model(nn.Linear):
    spec_class = ClassifierSpec

    def __init__(self, config, spec):
        super().__init__(1, 1)
"""


def own_checkpoint(folder: Path, monkeypatch: pytest.MonkeyPatch, name: str, *, task: str, report: str) -> Path:
    """Write the parts called `name` into `folder`, from where they are found, and make it the current folder.

    Returns:
        `r.ckpt` in it: the model gives back what it is given.
    """
    for package, text in (("tasks", task), ("models", MODEL), ("reports", report)):
        (folder / package).mkdir()
        (folder / package / f"{name}.py").write_text(text)
        module = getattr(lightning_modules, package)
        monkeypatch.setattr(module, "__path__", [*module.__path__, str(folder / package)])
    plain = {"task_name": name, "task": {}, "model_name": name, "model": {}}
    run = {"name": "r", "dataset": "d", **plain, "train": {"optimizer": {}, "seed": 0}}
    data = DataSpec(dataset="d", classes=())
    module = build_module(run, data)
    module.model.weight.data.fill_(1.0)
    module.model.bias.data.fill_(0.0)
    save_best(folder / "r.ckpt", run=run, data=data, weights=module.state_dict(), info={})
    monkeypatch.chdir(folder)
    return folder / "r.ckpt"
