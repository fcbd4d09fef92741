"""On a real Ray cluster of two nodes: workers that die, an error that stays, too little room, a killed trial."""

from __future__ import annotations

import json
import os
import shutil
import threading
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from contracts.errors import ConfigError, DataError, TrainingError
from pipeline.cluster.once import on_workers
from pipeline.cluster.train import run_training
from pipeline.settings.sections import ClusterConfig
from pipeline.system.project import Project
from tests.command import sightline
from tests.integration.cluster import training
from tests.local_training import mlflow_statuses

pytestmark = pytest.mark.filterwarnings("default")


def test_workers_that_die_are_replaced_and_what_they_refuse_is_raised_as_it_is(address, root, tiny_project, tmp_path):
    def work(folder: Path, placement: Any, given: Path) -> list[str]:
        import ray

        assert (folder / "a/b").read_bytes() == b"sent"
        if not given.exists():
            given.touch()
            for name in ray.util.list_named_actors():  # what goes to the workers and comes back, lost with its node
                if name.startswith("once-"):
                    ray.kill(ray.get_actor(name))
            os._exit(1)
        raise DataError("refused", value=placement.world)

    run = training(tiny_project, tmp_path / "state")["run"]
    with pytest.raises(DataError, match="refused: 1"):
        on_workers(
            work, tmp_path / "died", {"a/b": b"sent"}, (), run, ClusterConfig(address=address, num_workers=1), root
        )
    assert (tmp_path / "died").exists()


def test_an_error_that_retrying_cannot_mend_stops_at_once(address, root, tiny_project, tmp_path):
    arguments = training(tiny_project, tmp_path / "state", monitor="miou", monitor_mode="max")
    with pytest.raises(TrainingError, match="validation gives no such metric"):
        run_training(arguments, ClusterConfig(address=address, num_workers=1), root)


def test_asking_for_more_than_there_is_is_told_when_no_node_comes(address, root, tiny_project, tmp_path, capsys):
    asked = ClusterConfig(address=address, num_workers=64, wait_s=8)
    start = time.monotonic()
    with pytest.raises(ConfigError, match="2 of them fit where nothing else runs: 2 nodes of 1 CPUs and 0 GPUs"):
        run_training(training(tiny_project, tmp_path / "state"), asked, root)
    assert 8 < time.monotonic() - start < 60
    assert "waiting up to 8 s (cluster.wait_s)" in capsys.readouterr().out


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
