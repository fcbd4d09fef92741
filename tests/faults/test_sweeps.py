"""A sweep whose process is killed with -9, and its best trial run by DVC's queue to the end."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests import dvc_project
from tests.local_training import drawn_voc, mlflow_statuses

PARAMS: dict[str, Any] = {
    "datasets": drawn_voc(train=24, val=8),
    "runs": {"seg": {"dataset": "voc", "task": {"name": "segmentation"}, "model": {"name": "fcn"}}},
    "train": {"max_epochs": 6, "batch_size": 8, "num_pictures": 0},
    "loader": {},
    "shards": {"samples": 8},
    "cluster": {"engine": "local"},
    "tracking": {"system_metrics": False},
}
SPEC = {
    "run": "seg",
    "num_trials": 2,
    "keep": 1,
    "scheduler": None,
    "space": {"train.optimizer.lr": {"loguniform": [1e-4, 1e-2]}},
}
SWEEP = (sys.executable, "-m", "pipeline.cli", "sweep", "lr.yaml")


@pytest.fixture
def project(root: Path, tmp_path: Path) -> Path:
    folder = dvc_project.make(root, tmp_path / "project", PARAMS)
    (folder / "lr.yaml").write_text(yaml.safe_dump(SPEC))
    dvc_project.run(folder, "dvc", "repro", "vocab@voc")
    dvc_project.run(folder, "git", "add", "-A")
    dvc_project.run(folder, "git", "commit", "-qm", "data")
    return folder


def trials(project: Path) -> list[dict[str, Any]]:
    path = project / "sweeps/lr.json"
    return json.loads(path.read_text())["trials"] if path.is_file() else []


def test_a_killed_sweep_goes_on_and_dvcs_queue_takes_its_best_without_training(project):
    with open(project / "log.txt", "w") as log:
        process = subprocess.Popen(
            SWEEP, cwd=project, env=dvc_project.environment(), stdout=log, stderr=log, start_new_session=True
        )
    try:
        while not any(
            list((project / "state" / trial["folder"]).glob("state-*.json")) for trial in trials(project)[1:]
        ):
            assert process.poll() is None, (project / "log.txt").read_text()
            time.sleep(0.02)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    first, second = trials(project)
    assert (first["state"], second["state"]) == ("complete", "running")

    text = dvc_project.run(project, *SWEEP)
    again, finished = trials(project)
    assert again == first, "what was finished is not trained again"
    assert (finished["state"], finished["run_id"]) == ("complete", second["run_id"])
    assert "goes on from state-" in text
    assert mlflow_statuses(project) == ["FINISHED"] * 3, "two trials and the sweep: none was left open"

    best = max((again, finished), key=lambda trial: trial["value"])
    before = (project / "params.yaml").read_bytes()
    text = dvc_project.run(project, *SWEEP, "--queue-best", "1")
    name = text.split("queued: ")[1].split()[0]
    dvc_project.run_queue(project)
    (found,) = (line.split()[-1] for line in dvc_project.run(project, "dvc", "exp", "list", "--name-only").splitlines())
    assert found == name
    assert (project / "params.yaml").read_bytes() == before, "the queue works in folders of its own"
    told = dvc_project.run(project, "dvc", "queue", "logs", name)
    assert "train seg: best at epoch" in told
    assert "train/loss" not in told, "it was trained by the sweep"
    with sqlite3.connect(project / "mlflow.db") as store:
        ((value,),) = store.execute(
            "select value from tags where run_uuid = ? and key = 'mlflow.note.content'", (best["run_id"],)
        ).fetchall()
    assert "mean_iou" in value, "what the queue measured stands with the trial"
