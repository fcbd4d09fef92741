"""No process of a training outlives it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

import psutil
import pytest

from tests.local_training import arguments

LOADER = """
import sys, time
from torch.utils.data import DataLoader, Dataset
from pipeline.loading.loader_process import init_worker

class Data(Dataset):
    def __len__(self):
        return 1_000_000
    def __getitem__(self, i):
        time.sleep(0.001)
        return i

if __name__ == "__main__":
    options = {"multiprocessing_context": sys.argv[1], "worker_init_fn": init_worker}
    batches = iter(DataLoader(Data(), 4, num_workers=2, **options))
    for _ in range(4):
        next(batches)
    print("loads", flush=True)
    for _ in batches:
        pass
"""
FIT = """
import json, sys
from lightning_modules.base.module import TaskModule
from pipeline.training.fit import fit
original = TaskModule.training_step
def step(self, batch, batch_idx):
    if self.global_step == 2:
        print("loads", flush=True)
    return original(self, batch, batch_idx)
TaskModule.training_step = step
if __name__ == "__main__":
    fit(**json.loads(sys.argv[1]))
"""


def check_that_all_die(command: list[str], root, at_least: int) -> None:
    """Kill the process as soon as it says "loads": its descendants, which are so many, end within seconds."""
    environment = os.environ | {"PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    training = subprocess.Popen([sys.executable, *command], env=environment, stdout=subprocess.PIPE, text=True)
    family: list[psutil.Process] = []
    try:
        assert training.stdout is not None
        assert "loads" in iter(lambda: training.stdout.readline().strip(), "")
        family = psutil.Process(training.pid).children(recursive=True)
        assert len(family) >= at_least, family
        training.send_signal(signal.SIGKILL)
        training.wait()
        _, alive = psutil.wait_procs(family, timeout=20)
        assert not alive, [" ".join(process.cmdline()) for process in alive]
    finally:
        for process in [training, *family]:
            if process.poll() is None if isinstance(process, subprocess.Popen) else process.is_running():
                process.kill()
        training.communicate()


@pytest.mark.parametrize(("method", "at_least"), [("fork", 2), ("spawn", 3), ("forkserver", 4)])
def test_loader_processes_end_with_whom_they_load_for(root, tmp_path, method, at_least):
    """With them the fork server and the tracker of shared memory."""
    script = tmp_path / "load.py"
    script.write_text(LOADER)
    check_that_all_die([str(script), method], root, at_least)


def test_nothing_outlives_a_killed_training(tiny_project, root, tmp_path):
    script = tmp_path / "train.py"
    script.write_text(FIT)
    loader = {"num_workers": 2, "start_method": "forkserver"}
    started = arguments(tiny_project, tmp_path / "state", loader=loader, max_epochs=1000, validate_every_epochs=1000)
    check_that_all_die([str(script), json.dumps(started)], root, at_least=4)
