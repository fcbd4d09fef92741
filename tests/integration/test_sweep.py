"""A sweep on a real Ray cluster of two nodes: trials run beside each other, and one process is killed."""

from __future__ import annotations

import json
import shutil
import threading
import time
from pathlib import Path

import psutil
import pytest
import yaml

from pipeline.system.project import Project
from tests.command import sightline
from tests.local_training import mlflow_statuses

pytestmark = pytest.mark.filterwarnings("default")


def killed_in_its_first_epoch(found: list[int]) -> None:
    """Kill the first process of a trial that has begun to train."""
    deadline = time.monotonic() + 120
    while not found and time.monotonic() < deadline:
        for process in psutil.process_iter(["cmdline"]):
            if (process.info["cmdline"] or [""])[0].startswith(("ray::ResourceTrainable.train", "ray::_Trial.train")):
                found.append(process.pid)
                process.kill()
                return
        time.sleep(0.05)


def test_two_trials_on_two_nodes_and_a_process_that_dies(address, tiny_project, code, tmp_path, monkeypatch, capfd):
    shutil.copytree(tiny_project.shards("voc"), tmp_path / "data/shards/voc")
    document = yaml.safe_load((tiny_project.root / "params.yaml").read_text())
    document["datasets"] = {"voc": document["datasets"]["voc"]}
    document["runs"] = {"segmentation": document["runs"]["segmentation"]}
    document["train"] |= {"max_epochs": 2, "num_pictures": 0}
    document["cluster"] = {"engine": "ray", "address": address, "use_gpu": "no"}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(document))
    space = {"train.optimizer.lr": {"choice": [1e-4, 3e-3]}}
    spec = {"run": "segmentation", "num_trials": 2, "scheduler": None, "space": space}
    (tmp_path / "lr.yaml").write_text(yaml.safe_dump(spec))
    monkeypatch.chdir(tmp_path)

    killed: list[int] = []
    threading.Thread(target=killed_in_its_first_epoch, args=(killed,), daemon=True).start()
    assert sightline("sweep", ["lr.yaml"]) == 0
    assert killed, "a trial's process was there"
    trials = json.loads((Project(tmp_path).root / "sweeps/lr.json").read_text())["trials"]
    assert [trial["state"] for trial in trials] == ["complete"] * 2
    assert {trial["settings"]["train.optimizer.lr"] for trial in trials} == {1e-4, 3e-3}
    assert all(list(trial["history"]) == ["1", "2"] for trial in trials)
    assert mlflow_statuses(tmp_path) == ["FINISHED"] * 3
    out = capfd.readouterr().out
    assert out.index("trial 1  train.optimizer.lr") < out.index("trial 0  complete"), "they ran beside each other"
    assert not list((Path(tmp_path) / "state").glob(".tune*")), "Tune leaves nothing"
