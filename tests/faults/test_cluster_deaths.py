"""Parts of Ray freeze, are killed or run out of memory: noticed, told in a sentence, and nothing is lost."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import psutil
import pytest

from contracts.errors import DataError
from pipeline.cluster.map import map_ordered
from pipeline.cluster.session import session
from pipeline.settings.sections import ClusterConfig
from pipeline.training.checkpoints import BEST, load_best
from pipeline.training.fit import fit
from tests.faults.ray_stage import RayStage, task_that_sleeps
from tests.integration.cluster import TRAIN, training
from tests.local_training import mlflow_statuses
from tests.waiting import PATIENCE_S

pytestmark = pytest.mark.filterwarnings("default")


@pytest.fixture
def stage(tiny_project, tmp_path, root) -> Iterator[RayStage]:
    with RayStage(tiny_project, tmp_path / "project", root, num_workers=1) as stage:
        yield stage


@pytest.fixture
def unbroken(tiny_project, tmp_path, one_thread) -> Path:
    """State folder of the same training that nothing happened to."""
    fit(**training(tiny_project, tmp_path / "unbroken", **TRAIN))
    return tmp_path / "unbroken"


def test_frozen_worker_dead_controller_and_dead_head_change_nothing(stage, unbroken):
    stage.start()
    frozen = stage.worker(session=1, steps=3)
    os.kill(frozen, signal.SIGSTOP)
    second = stage.worker(session=2, steps=2)
    assert not psutil.pid_exists(frozen)
    assert "rank 0: a worker did not answer any more" in stage.log

    stage.named("ray::TrainController").kill()
    stage.worker(session=3, steps=2)
    assert "of 3): its process died" in stage.log
    assert not psutil.pid_exists(second), "no two groups of workers write one state folder"

    tree = stage.tree()
    stage.named("gcs_server").kill()
    assert stage.end() == 2
    assert "TrainingError: Ray died in the middle of the work: 'gcs_server on this machine'" in stage.log
    assert "run the same command again" in stage.log
    assert "Traceback" not in stage.log.rpartition("TrainingError:")[2]
    assert mlflow_statuses(stage.folder) == ["FAILED"]
    psutil.wait_procs(tree, timeout=10)
    assert not [process for process in tree if process.is_running() and process.status() != psutil.STATUS_ZOMBIE]

    stage.start()
    assert stage.end() == 0, stage.log[-3000:]
    assert mlflow_statuses(stage.folder) == ["FINISHED"]
    record = json.loads((stage.folder / "artifacts/segmentation/run.json").read_text())
    assert record["best"] == load_best(unbroken / BEST)["info"], "the same weights to the last bit, and metrics"


def test_a_worker_without_memory_is_a_sentence(stage):
    stage.start()
    worker = stage.worker(session=1, steps=1)
    limit = psutil.Process(worker).memory_info().vms
    resource.prlimit(worker, resource.RLIMIT_AS, (limit, limit))
    code = stage.end()
    last = stage.log.rpartition("training workers failed")[2]
    if code == 0:  # Ray's own code in that process asked first, and the process died of it: another went on
        assert "try 1 of 3): rank 0: " in last
        assert mlflow_statuses(stage.folder) == ["FINISHED"]
    else:
        assert code == 2 and "TrainingError: training ran out of memory" in stage.log, stage.log[-3000:]
        assert "Traceback" not in stage.log.rpartition("TrainingError: ")[2] and "train.batch_size" in stage.log
        assert mlflow_statuses(stage.folder) == ["FAILED"]


PR_GET_PDEATHSIG = 2  # prctl(2)
HANG = """
import time
import pytorch_lightning as pl
from pytorch_lightning.demos.boring_classes import BoringModel
from pipeline.training.heartbeat import Heartbeat

class Hanging(BoringModel):
    def training_step(self, batch, batch_idx):
        if batch_idx == 3:
            time.sleep(90)
        return super().training_step(batch, batch_idx)

    def validation_step(self, batch, batch_idx):
        time.sleep(0.05)

quiet = dict(logger=False, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False)
for model in (BoringModel(), Hanging()):
    pl.Trainer(max_epochs=2, limit_train_batches=5, callbacks=[Heartbeat(2.0)], **quiet).fit(model)
    time.sleep(3)
    print("done", flush=True)
"""


def test_training_that_stands_still_ends_its_process(root):
    """The one before it, which did not, is left alone, and so is what comes after training."""
    out = subprocess.run([sys.executable, "-c", HANG], cwd=root, capture_output=True, text=True, timeout=PATIENCE_S)
    assert out.returncode == 1 and out.stdout == "done\n"
    assert "Timeout (0:00:02)!" in out.stderr and "in training_step" in out.stderr


def test_tasks_that_run_out_of_memory_or_die_are_sentences(root):
    def greedy(number: int) -> tuple[int, int]:
        import ctypes
        import os

        if number == 2:
            bytearray(1 << 50)
        mask, end_signal = os.umask(0), ctypes.c_int()
        os.umask(mask)
        ctypes.CDLL(None).prctl(PR_GET_PDEATHSIG, ctypes.byref(end_signal))
        return mask, end_signal.value

    def dying(number: int) -> int:
        import os

        if number:
            os.kill(os.getpid(), 9)
        return number

    for function, first, what in ((greedy, (0o077, signal.SIGKILL), "out of memory"), (dying, 0, "its process died")):
        results = map_ordered(function, ((i,) for i in range(4)), ClusterConfig(), root)
        assert next(results) == first
        with pytest.raises(DataError, match=what) as raised:
            list(results)
        assert "Traceback" not in str(raised.value) and "fix" in str(raised.value)


def test_the_end_of_the_head_is_told_while_sharding(root):
    with ExitStack() as stack:
        results = map_ordered(task_that_sleeps(), ((60.0 * i,) for i in range(3)), ClusterConfig(), root)
        stack.callback(results.close)
        assert next(results) == 0
        for process in psutil.Process().children():
            if process.name() == "gcs_server":
                process.kill()
        with pytest.raises(DataError, match="Ray died in the middle of the work"):
            next(results)


def test_what_a_dead_controller_had_reserved_is_free_for_the_next_try(root):
    """Ray's own cleaner does not run on a cluster of our own."""
    import ray
    from ray.util.placement_group import placement_group

    from pipeline.cluster.backend import clear_room

    class Controller:
        def reserve(self) -> bool:
            self.group = placement_group([{"CPU": ray.cluster_resources()["CPU"]}])
            return self.group.wait(30)

    with session(ClusterConfig(), root):
        controller = ray.remote(num_cpus=0)(Controller).remote()
        assert ray.get(controller.reserve.remote())
        ray.kill(controller)
        again = placement_group([{"CPU": ray.cluster_resources()["CPU"]}])
        assert not again.wait(3), "still reserved: what the cleaner is for"
        clear_room()
        after = placement_group([{"CPU": ray.cluster_resources()["CPU"]}])
        assert after.wait(30)
