"""Both workers of a real training and its driver: killed, told to stop, frozen. Nothing may be lost."""

from __future__ import annotations

import contextlib
import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from pipeline.system.project import Project
from pipeline.training.checkpoints import BEST, load_best
from pipeline.training.ledger import FOLDER as LEDGER
from pipeline.training.ledger import merge
from tests.command import sightline
from tests.faults.ray_stage import RayStage
from tests.integration.cluster import TRAIN, training
from tests.local_training import mlflow_statuses
from tests.ranks import run
from tests.waiting import until

pytestmark = pytest.mark.filterwarnings("default")


def unbroken(tiny_project: Project, folder: Path) -> Path:
    """State folder of a training of two ranks, without Ray, that nothing happened to."""
    ended = run(folder, "", [training(tiny_project, folder / "unbroken", **TRAIN)] * 2)
    assert [code for code, _ in ended] == [0, 0], ended
    return folder / "unbroken"


def working_in(folder: Path) -> list[int]:
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            found += [process.pid] if Path(process.cwd()).is_relative_to(folder) else []
    return found


@pytest.fixture
def stage(tiny_project: Project, tmp_path: Path, root: Path, warm_socket: str) -> Iterator[RayStage]:
    with RayStage(tiny_project, tmp_path / "project", root, num_workers=2, warm_socket=warm_socket) as stage:
        yield stage
    until(lambda: not working_in(stage.folder), lambda: working_in(stage.folder))


def test_killed_stopped_and_frozen_processes_change_nothing(stage, tiny_project, tmp_path, monkeypatch, capsys):
    """One training that all of it happens to, beside one that nothing happens to."""
    stage.start()
    os.kill(stage.worker(rank=0, session=1, steps=3), signal.SIGKILL)
    # Within two seconds after a state: the second session has just gone on from one.
    os.kill(stage.worker(rank=1, session=2, steps=2), signal.SIGKILL)
    os.kill(stage.worker(rank=1, session=3, steps=2), signal.SIGTERM)

    stage.worker(session=4, steps=1)
    assert "asked to stop: the state of step" in stage.log
    assert stage.process is not None
    stage.process.send_signal(signal.SIGTERM)  # the driver
    assert stage.end() == 130
    assert mlflow_statuses(stage.folder) == ["KILLED"]

    stage.start()
    stage.worker(session=5, steps=2)
    stage.process.kill()
    stage.process.wait()

    stage.start()
    frozen = stage.worker(rank=1, session=6, steps=2)
    os.kill(frozen, signal.SIGSTOP)  # given up when it has not answered for 12 s
    assert stage.end() == 0, stage.log[-3000:]
    assert not psutil.pid_exists(frozen), "nothing is left behind"
    assert mlflow_statuses(stage.folder) == ["FINISHED"]

    monkeypatch.chdir(stage.folder)
    assert sightline("ledger", ["segmentation"]) == 0
    assert capsys.readouterr().out.count("exact (40 samples in 5 steps)") == TRAIN["max_epochs"]
    ledger, same = stage.folder / f"artifacts/segmentation/{LEDGER}", unbroken(tiny_project, tmp_path)
    assert merge(ledger) == merge(same / LEDGER)
    assert len({path.name.partition("-")[0] for path in ledger.iterdir()}) == 7, "every session was one of these"
    record = json.loads((stage.folder / "artifacts/segmentation/run.json").read_text())
    assert record["best"] == load_best(same / BEST)["info"], "the same weights to the last bit, and metrics"
