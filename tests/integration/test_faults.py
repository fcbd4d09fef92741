"""What happens to machines, done to real training: killed, told to stop, frozen, taken away. Nothing may be lost."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from contracts.errors import TrainingError
from pipeline.cluster.train import run_training
from pipeline.settings.sections import ClusterConfig, WorkerRange
from pipeline.shards.manifest import load_manifest
from pipeline.shards.reader import SplitReader
from pipeline.training.checkpoints import BEST, load_best, newest_state
from pipeline.training.ledger import FOLDER as LEDGER
from pipeline.training.ledger import check, merge
from pipeline.training.run_files import DONE
from tests.command import sightline
from tests.integration.cluster import SOON_LEFT, TRAIN, Cluster, kill_node, training
from tests.local_training import mlflow_statuses

pytestmark = pytest.mark.filterwarnings("default")


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


@pytest.fixture
def three_nodes() -> Iterator[Cluster]:
    """A fresh cluster: what plans elastic training on a used one looks for new nodes every 20 s only."""
    with ExitStack() as stack:
        yield Cluster(stack, num_nodes=3)


def test_a_lost_node_leaves_fewer_workers_and_the_same_samples(three_nodes, root, tiny_project, tmp_path):
    """Elastic: three workers on three nodes; one node goes away, two go on with the same global batches."""
    state = tmp_path / "state"
    arguments = training(
        tiny_project, state, max_epochs=10, validate_every_epochs=10, checkpoint_every_steps=2, ledger=True
    )

    def take_away() -> None:
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            lines = [path.read_text().count("\n") for path in (state / LEDGER).glob("*-rank0002.jsonl")]
            if lines and max(lines) > 6:
                break
            time.sleep(0.05)
        kill_node(three_nodes.nodes[-1])

    killer = threading.Thread(target=take_away)
    killer.start()
    config = ClusterConfig(
        address=three_nodes.address, num_workers=WorkerRange(min=1, max=3), collective_timeout_s=10, max_failures=5
    )
    run_training(arguments, config, root)
    killer.join()
    assert json.loads((state / DONE).read_text()) == {"step": 50, "epochs": 10}
    reader = SplitReader(tiny_project.shards("voc"), load_manifest(tiny_project.shards("voc")), "train")
    steps = merge(state / LEDGER)
    assert all(found.exact for found in check(steps, reader.keys())) and len(steps) == 50
    assert [len(step.keys) for step in steps] == [8] * 50
    heads = {json.loads(path.read_text().split("\n")[0])["world"] for path in (state / LEDGER).glob("*.jsonl")}
    assert 3 in heads and heads & {1, 2}
    assert newest_state(state) is not None


def test_a_fixed_number_of_workers_waits_for_the_node_that_replaces_a_lost_one(root, tiny_project, tmp_path, capfd):
    """Two workers on two nodes; one node goes away for longer than a try takes, then another one comes."""
    state = tmp_path / "state"
    arguments = training(
        tiny_project, state, max_epochs=10, validate_every_epochs=10, checkpoint_every_steps=2, ledger=True
    )
    with ExitStack() as stack:
        cluster = Cluster(stack, num_nodes=2)
        lost = threading.Event()

        def take_away() -> None:
            deadline = time.monotonic() + 120
            while time.monotonic() < deadline and newest_state(state) is None:
                time.sleep(0.05)
            kill_node(cluster.nodes.pop())
            lost.set()

        killer = threading.Thread(target=take_away)
        killer.start()
        without = ClusterConfig(
            address=cluster.address, num_workers=2, collective_timeout_s=10, max_failures=1, wait_s=3
        )
        with pytest.raises(TrainingError, match=r"(?s)kept failing.*smaller than what.*1 of them fit.*2 tries"):
            run_training(arguments, without, root)
        killer.join()
        assert lost.is_set() and newest_state(state) is not None
        # The same command again, and a node that comes while it waits.
        comes = threading.Timer(5.0, cluster.add_node)
        comes.start()
        run_training(arguments, dataclasses.replace(without, num_workers=2, wait_s=90), root)
        comes.join()
    assert "waiting up to 90 s (cluster.wait_s)" in capfd.readouterr().out
    assert json.loads((state / DONE).read_text()) == {"step": 50, "epochs": 10}
    reader = SplitReader(tiny_project.shards("voc"), load_manifest(tiny_project.shards("voc")), "train")
    assert all(found.exact for found in check(merge(state / LEDGER), reader.keys()))
