"""Numbers that are not finite, and states that are not what they seem."""

from __future__ import annotations

import ast
import hashlib
import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch

from contracts.errors import DataError, TrainingError
from lightning_modules.base.finite import MAX_SKIPPED, StepWatch
from lightning_modules.base.module import TaskModule
from pipeline.training.checkpoints import BEST, newest_state
from pipeline.training.fit import fit
from pipeline.training.run_files import DONE, FAILURE
from tests import ranks
from tests.local_training import arguments, final_weights

pytestmark = pytest.mark.filterwarnings("default")


@pytest.fixture(scope="module")
def expected(tiny_project, tmp_path_factory) -> str:
    """Digest of the weights of a training that nothing goes wrong in."""
    state = tmp_path_factory.mktemp("unbroken")
    fit(**arguments(tiny_project, state))
    return final_weights(state)


class Exploding(torch.autograd.Function):
    """Nothing forwards, infinity backwards: as the square root at zero, or a division that cancels out."""

    @staticmethod
    def forward(ctx: Any, weight: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(weight)
        return weight.new_zeros(())

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> torch.Tensor:
        (weight,) = ctx.saved_tensors
        return torch.full_like(weight, torch.inf)


def explode_at(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    original = TaskModule.training_step

    def exploding(self, batch, batch_idx):
        loss = original(self, batch, batch_idx)
        return loss + Exploding.apply(next(self.model.parameters())) if self.global_step == step else loss

    monkeypatch.setattr(TaskModule, "training_step", exploding)


@pytest.mark.parametrize("clip", [1.0, None])
def test_an_infinite_gradient_stops_before_the_step_and_the_rerun_goes_on(
    tiny_project, tmp_path, monkeypatch, capsys, expected, clip
):
    explode_at(monkeypatch, step=3)
    with pytest.raises(TrainingError, match="a gradient is not finite") as caught:
        fit(**arguments(tiny_project, tmp_path, gradient_clip_norm=clip))
    assert "epoch 0, step 3, parameters " in caught.value.where and ".weight, samples ['" in caught.value.where
    assert "lower train.optimizer.lr" in caught.value.fix
    assert "a gradient is not finite" in json.loads((tmp_path / FAILURE).read_text())["text"]
    newest = newest_state(tmp_path)
    assert newest is not None and newest.name == "state-00000002.ckpt"
    assert all(value.isfinite().all() for value in torch.load(newest, weights_only=True)["state_dict"].values())
    assert not (tmp_path / BEST).exists() and not (tmp_path / DONE).exists()
    monkeypatch.undo()
    fit(**arguments(tiny_project, tmp_path, gradient_clip_norm=clip))
    assert "goes on from state-00000002.ckpt" in capsys.readouterr().out
    if clip:
        assert final_weights(tmp_path) == expected


def test_a_broken_weight_or_optimizer_value_is_never_in_a_state(tiny_project, tmp_path, monkeypatch):
    original, broken = torch.optim.AdamW.step, ["weight"]

    def breaking(self, closure=None):
        out = original(self, closure)
        parameter = self.param_groups[0]["params"][0]
        if self.state[parameter]["step"] == 10:  # the last step of the last epoch: validation and best.ckpt follow
            with torch.no_grad():
                place = parameter if broken[0] == "weight" else self.state[parameter]["exp_avg_sq"]
                place[(0,) * place.ndim] = torch.nan
        return out

    monkeypatch.setattr(torch.optim.AdamW, "step", breaking)
    for broken[0], name in (("weight", "_model_state: model."), ("moment", "optimizer: exp_avg_sq of parameter 0")):
        before = (tmp_path / BEST).read_bytes() if (tmp_path / BEST).exists() else b""
        with pytest.raises(TrainingError, match="a weight is not finite: this state is not written") as caught:
            fit(**arguments(tiny_project, tmp_path))
        assert name in str(caught.value) and caught.value.where == "epoch 1, step 10"
        newest = newest_state(tmp_path)
        assert newest is not None and newest.name == "state-00000008.ckpt"
        assert not (tmp_path / DONE).exists() and not list(tmp_path.glob("*.part"))
        assert not before or (tmp_path / BEST).read_bytes() == before, "the best checkpoint is the one before, too"
        (tmp_path / FAILURE).unlink()


def test_float16_skips_steps_until_it_is_no_matter_of_the_scale():
    watch, parameter = StepWatch(), torch.nn.Parameter(torch.ones(2))
    parameter.grad = torch.tensor([1.0, torch.inf])

    def step(norm: float, loss: float = 1.0) -> None:
        watch.add(["a"], {"part": torch.tensor(loss)}, torch.tensor(loss))
        watch.check(torch.tensor(norm), [("layer.weight", parameter)], where="step 0", scaled=True)

    for _ in range(MAX_SKIPPED - 1):
        step(torch.inf)
    step(1.0)  # the scale has come down far enough
    for _ in range(MAX_SKIPPED - 1):
        step(torch.nan)
    with pytest.raises(TrainingError, match=r"(?s)in 20 steps in a row.*layer\.weight"):
        step(torch.inf)
    with pytest.raises(TrainingError, match=r"(?s)loss is not finite.*'part': nan"):
        step(torch.nan, torch.nan)  # a scale cannot mend a loss


def test_all_ranks_stop_together_and_name_the_samples_of_all(tiny_project, tmp_path):
    script = """
from lightning_modules.base.module import TaskModule
import torch
original = TaskModule.training_step
def exploding(self, batch, batch_idx):
    loss = original(self, batch, batch_idx)
    if self.global_step == 3 and rank == 1:
        loss.register_hook(lambda grad: grad * float("inf"))
    return loss
TaskModule.training_step = exploding
"""
    state = tmp_path / "state"
    started = arguments(tiny_project, state)
    results = ranks.run(tmp_path, script, [started, started])
    assert [code for code, _ in results] == [2, 2], results
    texts = [output[output.index("TrainingError") :] for _, output in results]
    assert texts[0] == texts[1] and "a gradient is not finite" in texts[0]
    assert len(ast.literal_eval(texts[0].split("samples ")[1].splitlines()[0])) == 8, "the whole global batch"
    newest = newest_state(state)
    assert newest is not None and newest.name == "state-00000002.ckpt"


class Planted:
    """What a hostile pickle does."""

    def __init__(self, marker: Path):
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.marker),)


def test_a_hostile_state_runs_no_code_whatever_the_environment_says(tiny_project, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    state, marker = tmp_path / "state", tmp_path / "ran"
    started = arguments(tiny_project, state)
    path = state / "state-00000002.ckpt"
    torch.save({"state_dict": Planted(marker)}, path)
    note = {"step": 2, "sha256": hashlib.sha256(path.read_bytes()).hexdigest(), "bytes": path.stat().st_size}
    path.with_suffix(".json").write_text(json.dumps(note))
    with pytest.raises(DataError, match=r"(?s)state cannot be read.*state-00000002\.ckpt"):
        fit(**started)
    assert not marker.exists()
    torch.load(path, weights_only=False)
    assert marker.exists(), "it would have"
