"""The pass after the fit: in the best checkpoint, once, also where the process dies before."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from lightning_modules.tasks.segmentation import Task
from pipeline.training import fit as fitting
from pipeline.training.checkpoints import BEST, load_best, weights_digest
from pipeline.training.fit import DONE, fit
from tests.local_training import arguments, final_weights

pytestmark = [pytest.mark.filterwarnings("default"), pytest.mark.usefixtures("one_thread")]


def weights(state: Path) -> dict[str, torch.Tensor]:
    return load_best(state / BEST)["state_dict"]


@pytest.fixture(scope="module")
def plain(tiny_project, tmp_path_factory) -> Path:
    state = tmp_path_factory.mktemp("plain")
    fit(**arguments(tiny_project, state))
    return state


def test_norms_of_averaged_weights_are_taken_anew_and_nothing_else_changes(tiny_project, tmp_path, plain):
    fit(**arguments(tiny_project, tmp_path, recompute_norms=True))
    before, after = weights(plain), weights(tmp_path)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    running = ("running_mean", "running_var", "num_batches_tracked")
    assert changed == {name for name in before if name.endswith(running)}
    info = load_best(tmp_path / BEST)["info"]
    assert info["finished"] and info["weights_sha256"] == weights_digest(after)
    assert "finished" not in load_best(plain / BEST)["info"]
    assert after["model.backbone.stages.0.1.num_batches_tracked"] == 10, "40 images, four at once"
    assert final_weights(tmp_path) == final_weights(plain), "states are as they were"


def test_killed_in_the_pass_it_is_done_by_the_next_call_and_once(tiny_project, tmp_path, plain, monkeypatch):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    fit(**arguments(tiny_project, whole, recompute_norms=True))

    def dying(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(fitting, "finish_best", dying)
    with pytest.raises(KeyboardInterrupt):
        fit(**arguments(tiny_project, broken, recompute_norms=True))
    assert not (broken / DONE).exists()
    monkeypatch.undo()
    fit(**arguments(tiny_project, broken, recompute_norms=True))
    assert weights_digest(weights(broken)) == weights_digest(weights(whole))
    written = (broken / BEST).stat().st_mtime_ns
    monkeypatch.setattr(Task, "losses", dying)
    fit(**arguments(tiny_project, broken, recompute_norms=True))
    assert (broken / BEST).stat().st_mtime_ns == written
