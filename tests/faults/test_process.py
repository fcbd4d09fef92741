"""`dvc repro` killed with -9 in a stage, and two processes at the same thing."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shlex
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from pipeline.shards.manifest import load_manifest
from pipeline.shards.reader import SplitReader
from pipeline.system import orphan
from pipeline.system.project import Project
from pipeline.training.checkpoints import BEST, load_best, weights_digest
from pipeline.training.fit import fit
from pipeline.training.ledger import FOLDER as LEDGER
from pipeline.training.ledger import check, merge
from tests import dvc_project
from tests.local_training import arguments, drawn_voc, mlflow_statuses
from tests.waiting import until

pytestmark = pytest.mark.filterwarnings("default")

PARAMS: dict[str, Any] = {
    "datasets": drawn_voc(train=240, val=8),
    "runs": {"seg": {"dataset": "voc", "task": {"name": "segmentation"}, "model": {"name": "fcn"}}},
    "train": {
        "max_epochs": 1,
        "batch_size": 12,
        "eval_batch_size": 8,
        "num_pictures": 0,
        "log_every_steps": 1,
        "checkpoint_every_steps": 4,
        "ledger": True,
    },
    "loader": {"num_workers": 0},
    "shards": {"samples": 2},
    "cluster": {"engine": "local"},
    "tracking": {"system_metrics": False, "flush_s": 0.2},
}


@pytest.fixture(scope="module")
def project(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With raw files."""
    folder = dvc_project.make(root, tmp_path_factory.mktemp("killed") / "project", PARAMS)
    dvc_project.run(folder, "dvc", "repro", "fetch@voc")
    return folder


@contextlib.contextmanager
def started(folder: Path, *command: str, path: Path | None = None) -> Iterator[subprocess.Popen]:
    """A command in a session of its own, whose output goes to log.txt; nothing of it is left afterwards.

    It is started as by nohup: the system hangs up a suspended process whose parent ends.
    """
    environment = dvc_project.environment() | ({"PYTHONPATH": str(path)} if path else {})
    with open(folder / "log.txt", "w") as log:
        process = subprocess.Popen(
            ["nohup", *command],
            cwd=folder,
            env=environment,
            stdout=log,
            stderr=log,
            start_new_session=True,
            umask=0o022,
        )
    try:
        yield process
    finally:
        for left in of_session(process.pid):
            left.kill()
        process.wait()


def of_session(session: int) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, ProcessLookupError):
            if os.getsid(process.pid) == session and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def stage_of(dvc: subprocess.Popen, folder: Path, name: str, condition: Callable[[], Any]) -> psutil.Process:
    """The stage that runs, as soon as `condition` holds, when it is suspended, so that it goes no further meanwhile.

    It is looked for beforehand, which takes longer than a short stage.
    """

    def running() -> psutil.Process | None:
        try:
            commands = {process: process.cmdline() for process in of_session(dvc.pid)}
            warm = [process for process, command in commands.items() if "pipeline.system.warm" in command]
            forks = [process for process in warm if process.parent() in warm]  # not what libraries start as they load
        except psutil.Error:  # another process ended meanwhile
            return None
        stages = [process for process, command in commands.items() if command[1:4] == ["-m", "pipeline.stages", name]]
        return next(iter(forks if warm else stages), None)

    def ended() -> bool:
        return dvc.poll() is not None

    found = until(lambda: running() or ended())
    until(lambda: condition() or ended())
    if isinstance(found, psutil.Process) and not found.is_running():  # a library's own fork, of a moment
        found = running()
    assert isinstance(found, psutil.Process) and not ended(), (folder / "log.txt").read_text()[-3000:]
    found.suspend()
    return found


def kill_dvc(dvc: subprocess.Popen, stage: psutil.Process, folder: Path) -> None:
    """Kill DVC itself, and nothing else; its stage must end then, too."""
    parent = stage.parent()
    is_warm = "pipeline.system.warm" in parent.cmdline()
    dvc.send_signal(signal.SIGKILL)
    dvc.wait()
    if is_warm:  # it notices first; the stage would train on for a moment
        until(lambda: not orphan.is_alive(parent))
    stage.resume()
    until(lambda: not of_session(dvc.pid))
    assert "the DVC that started this stage is gone" in (folder / "log.txt").read_text()


def by_hand(folder: Path, name: str, of: str) -> subprocess.CompletedProcess[str]:
    return dvc_project.attempt(folder, sys.executable, "-m", "pipeline.stages", name, of)


def bytes_of(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


def test_dvc_killed_while_it_shards(project):
    shards = project / "data/shards/voc"
    with started(project, "dvc", "repro", "shard@voc") as process:
        unfinished = shards.parent / ".voc.new"
        kill_dvc(process, stage_of(process, project, "shard", lambda: list(unfinished.glob("*.tar"))), project)
    assert not (shards / "manifest.json").exists(), "the stage was ended, it did not finish"
    dvc_project.run(project, "dvc", "repro", "shard@voc")
    healed = bytes_of(shards)
    dvc_project.run(project, "dvc", "repro", "--force", "vocab@voc")
    assert len(healed) == 2 * (240 // 2 + 8 // 2) + 1
    assert healed == bytes_of(shards), "as from a run that nothing happened to"


def told(folder: Path) -> int:
    """How many lines of steps the training has written, once it has a state; 0 before."""
    lines = [line for path in folder.glob("state/seg-*/events.jsonl") for line in path.read_text().splitlines()]
    return len(lines) if list(folder.glob("state/seg-*/state-*.json")) else 0


def steps_logged(folder: Path) -> list[int]:
    with contextlib.closing(sqlite3.connect(folder / "mlflow.db")) as store:
        return [step for (step,) in store.execute("select step from metrics where key = 'train/loss' order by step")]


def test_dvc_killed_while_it_trains_and_others_that_want_the_same(project, tmp_path, one_thread):
    # `sightline repro` is DVC in its own process, and its stages are forks of another.
    with started(project, sys.executable, "-m", "pipeline.cli", "repro", "train@seg") as process:
        # Two steps past the state that it will go on from, and so repeat.
        training = stage_of(process, project, "train", lambda: told(project) >= 6)
        assert told(project) < 20, "in the middle"
        for name, of, what in (
            ("train", "seg", "the results of run seg"),
            ("shard", "voc", "the shards of data set voc"),
        ):
            refused = by_hand(project, name, of)
            assert refused.returncode == 2
            assert f"another process is at work on this: '{what}'" in refused.stderr
            assert "python -m pipeline.stages train seg" in refused.stderr, "who it is"
        kill_dvc(process, training, project)
    assert mlflow_statuses(project) == ["KILLED"]
    assert list(project.glob("state/seg-*/state-*.json")), "something to go on from"
    assert not (project / "artifacts/seg").exists()

    dvc_project.run(project, "dvc", "repro", "train@seg")
    assert mlflow_statuses(project) == ["FINISHED"], "the same run went on"
    assert steps_logged(project) == sorted(set(steps_logged(project)))
    assert len(steps_logged(project)) == 20
    keys = SplitReader(project / "data/shards/voc", load_manifest(project / "data/shards/voc"), "train").keys()
    assert [epoch.exact for epoch in check(merge(project / "artifacts/seg" / LEDGER), keys)] == [True]
    made = [f"data/{name}" for name in ("raw", "shards", "vocab", "settings")]  # `data` itself came with the code
    for name in ("mlflow.db", "mlflow.db.lock", "state", "artifacts", *made):
        assert not dvc_project.open_to_others(project / name), "made for the user alone"
    resumed = load_best(project / "artifacts/seg" / BEST)["state_dict"]
    fit(**arguments(Project(project), tmp_path, "seg", ema_decay=None, **PARAMS["train"]))
    assert weights_digest(load_best(tmp_path / BEST)["state_dict"]) == weights_digest(resumed)


STUBBORN = """
import signal, subprocess, sys, time
from pipeline.system import orphan
signal.signal(signal.SIGTERM, signal.SIG_IGN)
orphan.GRACE_S = 1.0
orphan.watch_dvc()
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(99)"])
print(child.pid, flush=True)
time.sleep(99)
"""
# What DVC does, less all else: a shell with the stage's name in its environment runs the command.
PARENT = """
import os, subprocess, sys
environment = os.environ | ({"DVC_STAGE": "s"} if sys.argv[1] == "dvc" else {})
subprocess.run(["sh", "-c", f"{sys.executable} stage.py > out; true"], env=environment)  # true: the shell stays
"""


@pytest.mark.parametrize("killed", ["dvc", "make", "by hand"])
def test_a_stage_that_does_not_listen_is_killed_with_its_children_and_one_started_by_hand_is_let_be(
    root, tmp_path, killed
):
    (tmp_path / "stage.py").write_text(STUBBORN)
    (tmp_path / "parent.py").write_text(PARENT)
    parent = [sys.executable, "parent.py", "hand" if killed == "by hand" else "dvc"]
    (tmp_path / "Makefile").write_text(f"repro:\n\t{shlex.join(parent)}\n")
    command = ["make"] if killed == "make" else parent
    with started(tmp_path, *command, path=root) as process:
        until(lambda: (tmp_path / "out").is_file() and (tmp_path / "out").read_text())
        process.kill()
        process.wait()
        if killed == "by hand":
            time.sleep(3)  # longer than it takes to notice, and the grace
            assert len(of_session(process.pid)) == 3, "shell, stage and its child"
        else:
            until(lambda: not of_session(process.pid))


def test_no_process_of_ray_outlives_a_stage_that_was_killed(tiny_project, root, tmp_path):
    folder = tmp_path / "project"
    shutil.copytree(tiny_project.root, folder)
    document = yaml.safe_load((folder / "params.yaml").read_text())
    document["cluster"] = {"engine": "ray", "num_workers": 1}
    document["train"] |= {"max_epochs": 200, "checkpoint_every_steps": 2}
    (folder / "params.yaml").write_text(yaml.safe_dump(document))
    with started(folder, sys.executable, "-m", "pipeline.stages", "train", "segmentation", path=root) as process:
        until(lambda: list(folder.glob("state/seg*/state-*.json")) or process.poll() is not None)
        assert process.poll() is None, (folder / "log.txt").read_text()[-3000:]
        # Ray's two agents look for their GCS for a minute before they leave; what works and what holds memory does not.
        family = [
            child
            for child in psutil.Process(process.pid).children(recursive=True)
            if not child.name().endswith("Agent")
        ]
        assert {"raylet", "gcs_server"} < {child.name() for child in family}, "and workers"
        process.kill()
        process.wait()
        _, alive = psutil.wait_procs(family, timeout=30)
        assert not [child for child in alive if orphan.is_alive(child)]
