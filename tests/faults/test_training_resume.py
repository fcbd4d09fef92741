"""A training that dies at any step, in any stage, and is called again: the same weights to the last bit."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.training.callbacks import StateWriter
from pipeline.training.checkpoints import BEST, load_best
from pipeline.training.fit import fit
from pipeline.training.run_files import EVENTS
from tests.local_training import STAGES, Killed, arguments, drawn_pictures, final_weights, kill_after, last_state

pytestmark = [pytest.mark.filterwarnings("default"), pytest.mark.usefixtures("one_thread")]


@pytest.fixture(scope="module")
def unbroken_stages(tiny_project, tmp_path_factory) -> Path:
    state = tmp_path_factory.mktemp("stages")
    fit(**arguments(tiny_project, state, **STAGES))
    return state


@pytest.mark.parametrize("kill_at", [1, 3, 5, 8])
def test_killed_and_resumed_weights_are_bit_identical(tiny_project, tmp_path, unbroken, monkeypatch, kill_at):
    kill_after(monkeypatch, kill_at)
    with pytest.raises(Killed):
        fit(**arguments(tiny_project, tmp_path))
    monkeypatch.undo()
    torch.rand(7)  # a new process has another generator state
    np.random.rand(3)
    fit(**arguments(tiny_project, tmp_path))
    assert final_weights(tmp_path) == final_weights(unbroken)
    a, b = load_best(tmp_path / BEST)["info"], load_best(unbroken / BEST)["info"]
    assert a == b
    steps = [line["step"] for line in drawn_pictures(tmp_path)]
    assert steps == [0, 0, 5, 5, 10, 10], "also where it began again, the untrained model is told once"


# Inside the first stage, at its end, inside the second, in the epoch after which plateau acts, and after it.
@pytest.mark.parametrize("at", [3, 5, 7, 10, 13])
def test_killed_in_any_stage_and_resumed_weights_are_bit_identical(
    tiny_project, tmp_path, unbroken_stages, monkeypatch, at
):
    kill_after(monkeypatch, at)
    with pytest.raises(Killed):
        fit(**arguments(tiny_project, tmp_path, **STAGES))
    monkeypatch.undo()
    torch.rand(7)
    fit(**arguments(tiny_project, tmp_path, **STAGES))
    assert final_weights(tmp_path) == final_weights(unbroken_stages)
    ours, theirs = last_state(tmp_path), last_state(unbroken_stages)
    assert ours["optimizer_states"][0]["param_groups"] == theirs["optimizer_states"][0]["param_groups"]
    assert ours["lr_schedulers"] == theirs["lr_schedulers"]


@pytest.mark.parametrize("micro_batch_size", [None, 3])
def test_killed_as_soon_as_a_state_is_there_every_step_has_its_line_once(
    tiny_project, tmp_path, monkeypatch, micro_batch_size
):
    again = {"log_every_steps": 1, "num_pictures": 0, "micro_batch_size": micro_batch_size}
    fit(**arguments(tiny_project, tmp_path / "whole", **again))
    original = StateWriter._save

    def dying(self, trainer):
        original(self, trainer)
        if trainer.global_step == 2:
            raise Killed

    monkeypatch.setattr(StateWriter, "_save", dying)
    with pytest.raises(Killed):
        fit(**arguments(tiny_project, tmp_path / "broken", **again))
    monkeypatch.undo()
    fit(**arguments(tiny_project, tmp_path / "broken", **again))
    assert said(tmp_path / "broken") == said(tmp_path / "whole")
    assert [step for step, values in said(tmp_path / "whole") if "train/loss" in values] == list(range(10))


def said(state: Path) -> list[tuple[int, dict[str, float]]]:
    lines = [json.loads(line) for line in (state / EVENTS).read_text().splitlines()]
    return [(line["step"], line["values"]) for line in lines if line["kind"] == "metrics" and "lr" not in str(line)]
