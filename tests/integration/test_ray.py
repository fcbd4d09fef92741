"""A real Ray cluster of two nodes on this machine: sharding and training spread over both; and what happens to
processes, done to real training: killed, told to stop, frozen. Nothing may be lost."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from contracts.errors import ConfigError, TrainingError
from pipeline.cluster.map import map_ordered
from pipeline.cluster.session import session
from pipeline.cluster.train import run_training
from pipeline.settings.params import load_params
from pipeline.settings.sections import ClusterConfig, ShardsConfig
from pipeline.shards.manifest import load_manifest
from pipeline.shards.writing import shard_dataset
from pipeline.stages.shard import open_sources
from pipeline.system.project import Project
from pipeline.training.checkpoints import BEST, load_best
from pipeline.training.ledger import FOLDER as LEDGER
from pipeline.training.ledger import merge
from pipeline.training.run_files import DONE, EVENTS
from tests.command import sightline
from tests.integration.cluster import SOON_LEFT, TRAIN, training
from tests.local_training import mlflow_statuses
from tests.mlflow_server import free_port

pytestmark = pytest.mark.filterwarnings("default")


def test_tasks_run_on_both_nodes_and_results_keep_their_order(address, root):
    def where(number: int) -> tuple[int, str]:
        import ray

        time.sleep(0.5)
        return number, ray.get_runtime_context().get_node_id()

    results = list(map_ordered(where, ((i,) for i in range(8)), ClusterConfig(address=address), root))
    assert [number for number, _ in results] == list(range(8))
    assert len({node for _, node in results}) == 2


def test_shards_from_the_cluster_equal_those_made_here(address, root, tiny_project, tmp_path):
    params = load_params(tiny_project.root)
    manifest = shard_dataset(
        "coco",
        params.dataset("coco"),
        open_sources(tiny_project, params, "coco"),
        Project(tmp_path),
        params.section(ShardsConfig, "shards"),
        partial(map_ordered, config=ClusterConfig(address=address), root=root),
    )
    assert manifest == load_manifest(tiny_project.shards("coco"))


def test_training_on_both_nodes_reports_once_each_validation(unbroken):
    assert json.loads((unbroken / DONE).read_text()) == {"step": 60, "epochs": 12}
    assert load_best(unbroken / BEST)["info"]["metrics"]["val/mean_iou"] > 0
    lines = [json.loads(line) for line in (unbroken / EVENTS).read_text().splitlines()]
    steps = [line["step"] for line in lines if line["kind"] == "metrics" and "val/loss" in line["values"]]
    assert len(steps) == 3, "one line each, from one rank alone"


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


def test_nobody_answers_at_the_address(root):
    with (
        pytest.raises(ConfigError, match="no Ray cluster answers"),
        session(ClusterConfig(address=f"127.0.0.1:{free_port()}"), root),
    ):
        pass


def project_copy(tiny_project, folder: Path) -> Path:
    """The tiny project on a Ray cluster of two workers of its own."""
    shutil.copytree(tiny_project.root, folder)
    document = yaml.safe_load((folder / "params.yaml").read_text())
    document["cluster"] = {"engine": "ray", "num_workers": 2, "collective_timeout_s": 8}
    document["runs"]["segmentation"]["train"] = TRAIN
    (folder / "params.yaml").write_text(yaml.safe_dump(document))
    return folder


def start(folder: Path, root: Path) -> subprocess.Popen:
    """The stage's own command, as DVC runs it."""
    log = folder / "log.txt"
    with open(log, "a") as file:
        return subprocess.Popen(
            [sys.executable, "-m", "pipeline.stages", "train", "segmentation"],
            cwd=folder,
            env=os.environ | {"PYTHONPATH": str(root), **SOON_LEFT},
            stdout=file,
            stderr=file,
            start_new_session=True,
        )


def sessions(folder: Path) -> dict[str, dict[int, list[dict[str, Any]]]]:
    """The ledger as it grows: whole lines by session and rank."""
    out: dict[str, dict[int, list[dict[str, Any]]]] = {}
    for path in sorted(folder.glob(f"state/*/{LEDGER}/*.jsonl")):
        lines = [json.loads(line) for line in path.read_text().split("\n")[:-1]]
        if lines:
            out.setdefault(lines[0]["session"], {})[lines[0]["rank"]] = lines
    return out


def wait(condition: Callable[[], Any], process: subprocess.Popen, folder: Path, seconds: float = 120) -> Any:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = condition()
        if found:
            return found
        assert process.poll() is None, f"training ended too early:\n{(folder / 'log.txt').read_text()[-3000:]}"
        time.sleep(0.02)
    raise AssertionError(f"nothing happened:\n{(folder / 'log.txt').read_text()[-3000:]}")


def worker_at(folder: Path, process: subprocess.Popen, *, rank: int, session: int, steps: int) -> int:
    """Process id of a worker, as soon as the `session`-th start of training has made `steps` steps."""

    def ready() -> int:
        found = sorted(sessions(folder).items())
        if len(found) < session or len(found[session - 1][1]) < 2:
            return 0
        lines = found[session - 1][1][rank]
        return lines[0]["pid"] if len(lines) > steps else 0

    return wait(ready, process, folder)


def test_killed_stopped_and_frozen_processes_change_nothing(
    tiny_project, root, tmp_path, unbroken, monkeypatch, capsys
):
    """One training that all of it happens to, beside one that nothing happens to."""
    folder = project_copy(tiny_project, tmp_path / "project")
    process = start(folder, root)
    os.kill(worker_at(folder, process, rank=0, session=1, steps=3), signal.SIGKILL)
    # Within two seconds after a state: the second session has just gone on from one.
    os.kill(worker_at(folder, process, rank=1, session=2, steps=2), signal.SIGKILL)
    os.kill(worker_at(folder, process, rank=1, session=3, steps=2), signal.SIGTERM)

    worker_at(folder, process, rank=0, session=4, steps=1)
    assert "asked to stop: the state of step" in (folder / "log.txt").read_text()
    process.send_signal(signal.SIGTERM)  # the driver
    assert process.wait(60) == 130
    assert mlflow_statuses(folder) == ["KILLED"]

    process = start(folder, root)
    worker_at(folder, process, rank=0, session=5, steps=2)
    process.kill()
    process.wait()

    process = start(folder, root)
    frozen = worker_at(folder, process, rank=1, session=6, steps=2)
    os.kill(frozen, signal.SIGSTOP)  # given up when it has not answered for 8 s
    assert process.wait(240) == 0, (folder / "log.txt").read_text()[-3000:]
    assert not psutil.pid_exists(frozen), "nothing is left behind"
    assert mlflow_statuses(folder) == ["FINISHED"]

    monkeypatch.chdir(folder)
    assert sightline("ledger", ["segmentation"]) == 0
    assert capsys.readouterr().out.count("exact (40 samples in 5 steps)") == TRAIN["max_epochs"]
    ledger = folder / f"artifacts/segmentation/{LEDGER}"
    assert merge(ledger) == merge(unbroken / LEDGER)
    assert len({path.name.partition("-")[0] for path in ledger.iterdir()}) == 7, "every session was one of these"
    record = json.loads((folder / "artifacts/segmentation/run.json").read_text())
    assert record["best"] == load_best(unbroken / BEST)["info"], "the same weights to the last bit, and metrics"
