"""Two ranks that do not see the same: one folder, one state, one moment to stop."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from pipeline.training.checkpoints import BEST, load_best, newest_state
from pipeline.training.ledger import FOLDER as LEDGER
from pipeline.training.ledger import merge
from pipeline.training.resume import decided
from pipeline.training.run_files import DONE, FAILURE
from tests import ranks
from tests.local_training import arguments, final_weights

pytestmark = pytest.mark.filterwarnings("default")


@pytest.fixture(scope="module")
def whole(tiny_project, tmp_path_factory) -> Path:
    """The state folder of two ranks that nothing happens to."""
    state, logs = tmp_path_factory.mktemp("whole"), tmp_path_factory.mktemp("logs")
    started = arguments(tiny_project, state, ledger=True)
    assert [code for code, _ in ranks.run(logs, "", [started, started])] == [0, 0]
    return state


def test_a_rank_with_another_folder_is_found_before_training(tiny_project, tmp_path):
    here, elsewhere = tmp_path / "here", tmp_path / "elsewhere"
    started, other = arguments(tiny_project, here), arguments(tiny_project, elsewhere)
    soon = "from pipeline.training import resume\nresume.PROBE_S = 0.5\n"
    for appears in ("what rank 0 writes there does not appear", "no such folder"):
        results = ranks.run(tmp_path, soon, [started, other])
        assert [code for code, _ in results] == [2, 2], results
        for _, output in results:
            assert "ConfigError: the state folder is not the same one for all workers" in output
            assert "(rank 1): " + appears in output and "all nodes mount" in output and "node " in output
        assert [path.name for path in here.iterdir()] == [FAILURE], "nothing was trained, no probe is left"
        (here / FAILURE).unlink()
        shutil.rmtree(elsewhere, ignore_errors=True)


def test_ranks_on_unequal_machines_train_with_the_precision_that_all_can_do(tiny_project, tmp_path):
    started = arguments(tiny_project, tmp_path / "state", max_epochs=1, precision="auto")
    unequal = """
from pipeline.training import fit as training
training.fast_precision = lambda use_gpu: ["bf16-mixed", "32-true"][rank]
make = training.make_trainer
def told(*given):
    trainer = make(*given)
    print("precision", trainer.precision)
    return trainer
training.make_trainer = told
"""
    results = ranks.run(tmp_path, unequal, [started, started])
    assert [code for code, _ in results] == [0, 0], results
    assert all("precision 32-true" in output for _, output in results)
    assert decided(tmp_path / "state") == {"precision": "32-true"}
    assert load_best(tmp_path / "state" / BEST)["run"]["train"]["precision"] == "32-true"


STALE = """
import shutil
from pathlib import Path
from pipeline.training import resume
resume.VISIBLE_S = {patience}
folder, shown = Path(arguments["state"]), []
is_file = Path.is_file
def late(path):  # a node whose view of the folder lags behind
    if rank == 1 and path.name == "state-00000008.ckpt" and len(shown) < {looks}:
        shown.append(path)
        return False
    return is_file(path)
Path.is_file = late
"""


def test_all_ranks_go_on_from_the_state_that_rank_0_chooses(tiny_project, tmp_path, whole):
    state = tmp_path / "state"
    started = arguments(tiny_project, state, ledger=True)
    shutil.copytree(whole, state, dirs_exist_ok=True)
    (state / DONE).unlink()
    newest = newest_state(state)
    assert newest is not None
    newest.with_suffix(".json").write_text("")  # damaged: rank 0 passes it over
    results = ranks.run(tmp_path, STALE.format(patience=0.5, looks=1000), [started, started])
    assert [code for code, _ in results] == [2, 2], results
    for _, output in results:
        assert "ConfigError: not all workers see the state that training goes on from" in output
        assert "(rank 1): no such file after" in output
        assert "state-00000008.ckpt" in output
    (state / FAILURE).unlink()
    results = ranks.run(tmp_path, STALE.format(patience=20, looks=5), [started, started])
    assert [code for code, _ in results] == [0, 0], results
    assert "goes on from state-00000008.ckpt" in results[0][1]
    assert final_weights(state) == final_weights(whole)


STOP = """
from lightning_modules.base.module import TaskModule
original = TaskModule.training_step
def told(self, batch, batch_idx):
    if self.global_step == {step} and rank == {told}:
        StopRequest.asked.set()
    return original(self, batch, batch_idx)
TaskModule.training_step = told
"""


def test_told_to_one_rank_all_stop_after_the_same_step(tiny_project, tmp_path, whole):
    state = tmp_path / "state"
    started = arguments(tiny_project, state, ledger=True, checkpoint_every_steps=100)
    for told, during, after in ((1, 1, 3), (0, 4, 5)):  # 5: the last of the epoch, after validation
        results = ranks.run(tmp_path, STOP.format(step=during, told=told), [started, started])
        assert [code for code, _ in results] == [3, 3], results
        assert all(f"the state of step {after} is written" in output for _, output in results), results
        newest = newest_state(state)
        assert newest is not None and newest.name == f"state-0000000{after}.ckpt"
    results = ranks.run(tmp_path, "", [started, started])
    assert [code for code, _ in results] == [0, 0], results
    assert final_weights(state) == final_weights(whole)
    assert merge(state / LEDGER) == merge(whole / LEDGER)
    assert json.loads((state / DONE).read_text()) == {"step": 10, "epochs": 2}
