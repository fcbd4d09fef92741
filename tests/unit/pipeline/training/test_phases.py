"""Stages of one run: their own optimizers, schedules and frozen parts, resumed exactly, on one rank and on two."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from contracts.records import DataSpec
from lightning_modules.base.module import TaskModule
from pipeline.training.checkpoints import build_module, newest_state
from pipeline.training.fit import DONE, fit
from tests import ranks
from tests.local_training import arguments, final_weights

pytestmark = [pytest.mark.filterwarnings("default"), pytest.mark.usefixtures("one_thread")]

PLATEAU = {"name": "sgd", "lr": 0.01, "schedule": "plateau", "patience": 1, "factor": 0.5, "warmup_fraction": 0.1}
PARTS = {"backbone": {"lr": "0.1x", "freeze_until": "c2"}}
STAGES: dict[str, Any] = {
    "stages": [{"epochs": 1, "freeze": ["backbone"]}, {"epochs": 2, "optimizer": {**PLATEAU, "parts": PARTS}}],
    "optimizer": {"schedule": "step", "milestones": [0.6]},
    "monitor": "loss",
    "monitor_mode": "min",  # the loss grows in the second stage
}


class Killed(Exception):
    """Stands for the process dying."""


def kill_at(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    original, seen = TaskModule.training_step, [0]

    def dying(self, batch, batch_idx):
        seen[0] += 1
        if seen[0] == step + 1:
            raise Killed
        return original(self, batch, batch_idx)

    monkeypatch.setattr(TaskModule, "training_step", dying)


def last(state: Path) -> dict[str, Any]:
    newest = newest_state(state)
    assert newest is not None
    return torch.load(newest, weights_only=True)


def untrained(given: dict[str, Any]) -> dict[str, torch.Tensor]:
    torch.manual_seed(given["run"]["train"]["seed"])
    return build_module(given["run"], DataSpec.from_dict(given["data"])).state_dict()


@pytest.fixture(scope="module")
def unbroken(tiny_project, tmp_path_factory) -> Path:
    state = tmp_path_factory.mktemp("unbroken")
    fit(**arguments(tiny_project, state, **STAGES))
    return state


def test_epochs_go_on_through_the_stages(unbroken):
    assert json.loads((unbroken / DONE).read_text()) == {"step": 15, "epochs": 3}
    state = last(unbroken)
    [optimizer] = state["optimizer_states"]
    rates = sorted({group["lr"] for group in optimizer["param_groups"]})
    assert rates == pytest.approx([0.0005, 0.005]), "the second validation of the stage was not better"
    assert all(group["momentum"] == 0.9 for group in optimizer["param_groups"]), "sgd, and not adamw"


# Inside the first stage, at its end, inside the second, in the epoch after which plateau acts, and after it.
@pytest.mark.parametrize("at", [3, 5, 7, 10, 13])
def test_killed_in_any_stage_and_resumed_weights_are_bit_identical(tiny_project, tmp_path, unbroken, monkeypatch, at):
    kill_at(monkeypatch, at)
    with pytest.raises(Killed):
        fit(**arguments(tiny_project, tmp_path, **STAGES))
    monkeypatch.undo()
    torch.rand(7)
    fit(**arguments(tiny_project, tmp_path, **STAGES))
    assert final_weights(tmp_path) == final_weights(unbroken)
    ours, theirs = last(tmp_path), last(unbroken)
    assert ours["optimizer_states"][0]["param_groups"] == theirs["optimizer_states"][0]["param_groups"]
    assert ours["lr_schedulers"] == theirs["lr_schedulers"]


def test_what_a_stage_freezes_stays_as_it_is_and_learns_in_the_next(tiny_project, tmp_path, unbroken):
    given = arguments(tiny_project, tmp_path, **{**STAGES, "stages": STAGES["stages"][:1]})
    before = untrained(given)
    fit(**given)
    first, second = last(tmp_path)["current_model_state"], last(unbroken)["current_model_state"]
    frozen = {name for name in before if name.startswith("model.backbone.")}
    assert {n for n in before if torch.equal(before[n], first[n])} == frozen, "running averages, too"
    until_c2 = {name for name in frozen if name.startswith("model.backbone.stages.0.")}
    assert {n for n in frozen if torch.equal(before[n], second[n])} == until_c2


REPORT = """
from lightning_modules.base.module import TaskModule
from pipeline.training.checkpoints import weights_digest
def report(self):
    print("weights", weights_digest(dict(self.model.named_parameters())))
TaskModule.on_train_end = report
"""


def test_two_ranks_learn_alike_what_was_frozen_first(tiny_project, tmp_path):
    given = arguments(tiny_project, tmp_path, **STAGES)
    told = ranks.run(tmp_path, REPORT, [given, given])
    assert [code for code, _ in told] == [0, 0], told
    digests = [[line for line in text.splitlines() if line.startswith("weights")] for _, text in told]
    assert digests[0] == digests[1] and len(digests[0]) == 1
    before, after = untrained(given), last(tmp_path)["current_model_state"]
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert "model.backbone.stages.3.conv1.weight" in moved and "model.backbone.stages.0.0.weight" not in moved
