"""Stages of one run: their own optimizers, schedules and frozen parts, on one rank and on two."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from contracts.records import DataSpec
from pipeline.training.checkpoints import build_module
from pipeline.training.fit import DONE, fit
from tests import ranks
from tests.local_training import STAGES, arguments, last_state

pytestmark = [pytest.mark.filterwarnings("default"), pytest.mark.usefixtures("one_thread")]


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
    state = last_state(unbroken)
    [optimizer] = state["optimizer_states"]
    rates = sorted({group["lr"] for group in optimizer["param_groups"]})
    assert rates == pytest.approx([0.0005, 0.005]), "the second validation of the stage was not better"
    assert all(group["momentum"] == 0.9 for group in optimizer["param_groups"]), "sgd, and not adamw"


def test_what_a_stage_freezes_stays_as_it_is_and_learns_in_the_next(tiny_project, tmp_path, unbroken):
    given = arguments(tiny_project, tmp_path, **{**STAGES, "stages": STAGES["stages"][:1]})
    before = untrained(given)
    fit(**given)
    first, second = last_state(tmp_path)["current_model_state"], last_state(unbroken)["current_model_state"]
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
    before, after = untrained(given), last_state(tmp_path)["current_model_state"]
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert "model.backbone.stages.3.conv1.weight" in moved and "model.backbone.stages.0.0.weight" not in moved
