"""A project sent to a real cluster as a job: it is trained there, its log and exit code come back."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.cluster.jobs import jobs
from tests import dvc_project
from tests.integration.cluster import Cluster
from tests.local_training import drawn_voc, mlflow_statuses
from tests.waiting import until

PARAMS: dict[str, Any] = {
    "datasets": drawn_voc(train=24, val=8),
    "runs": {"seg": {"dataset": "voc", "task": {"name": "segmentation"}, "model": {"name": "fcn"}}},
    "train": {"max_epochs": 1, "batch_size": 8, "num_pictures": 0, "checkpoint_every_steps": 1},
    "loader": {},
    "shards": {"samples": 8},
    "cluster": {"num_workers": 1},
    "tracking": {"system_metrics": False},
}


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """A node of one CPU, which asks for a token."""
    with ExitStack() as stack:
        yield Cluster(stack, num_nodes=1, dashboard=True)


@pytest.fixture(scope="module")
def project(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With a remote that every machine sees; a file that git ignores must not travel."""
    base = tmp_path_factory.mktemp("jobs")
    folder = dvc_project.make(root, base / "project", PARAMS)
    (folder / ".env").write_text("PASSWORD=topsecret\n")
    with open(folder / ".gitignore", "a") as ignored:
        ignored.write("/.env\n")
    dvc_project.run(folder, "dvc", "remote", "modify", "--local", "store", "url", "/nowhere")  # this machine's alone
    dvc_project.run(folder, "dvc", "remote", "modify", "store", "url", str(base / "remote"))
    dvc_project.run(folder, "git", "commit", "-qam", "remote")
    return folder


Sightline = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def sightline(project: Path, cluster: Cluster) -> Iterator[Sightline]:
    """Starts a command that hears Ctrl-C, also where a shell runs these tests in its background, which makes its
    processes deaf to it. None is left afterwards."""
    started: list[subprocess.Popen[str]] = []

    def start(*arguments: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "pipeline.cli", *arguments, "--address", cluster.dashboard]
        started.append(
            subprocess.Popen(
                command,
                cwd=project,
                env=dvc_project.environment(),
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
            )
        )
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def said(process: subprocess.Popen[str]) -> tuple[int, str]:
    text, _ = process.communicate()
    return process.returncode, text


def test_a_project_is_trained_on_the_cluster_and_its_results_come_back(project, cluster, sightline):
    code, text = said(sightline("submit", "evaluate@seg"))
    assert code == 0, text
    assert "train seg: best at epoch 1" in text
    assert "MLflow runs go with its folder" in text, "a warning: nothing names a server"
    assert not (project / "artifacts").exists(), "it was not trained here"
    with jobs(cluster.dashboard) as there:
        (info,) = [job for job in there._client.list_jobs() if job.submission_id]  # its drivers are listed, too
    commit = dvc_project.run(project, "git", "rev-parse", "HEAD").strip()
    assert info.metadata["git_commit"] == commit and info.metadata["git_changed"] == ""
    assert info.runtime_env["env_vars"]["SIGHTLINE_GIT_COMMIT"] == commit
    assert "token" not in json.dumps(info.runtime_env).lower()
    dvc_project.run(project, "dvc", "remote", "modify", "--local", "--unset", "store", "url")
    dvc_project.run(project, "dvc", "fetch", "--run-cache")
    again = dvc_project.run(project, "dvc", "repro", "--pull", "evaluate@seg")
    ran = {line.split("'")[1] for line in again.splitlines() if line.startswith("Running stage")}
    # Data that stays in its place is no part of DVC's cache of runs, nor are metrics, which are git's.
    assert ran == {"check", "fetch@voc", "shard@voc", "evaluate@seg"}, "what was trained came from the remote"
    record = json.loads((project / "artifacts/seg/run.json").read_text())
    assert record["git_commit"] == commit


def test_a_job_that_fails_says_so_and_its_exit_code_comes_back(project, cluster, sightline):
    code, text = said(sightline("submit", "evaluate@nobody"))
    assert code != 0
    assert "nobody" in text


def test_a_left_job_goes_on_and_a_stopped_one_writes_its_state(project, cluster, sightline, tmp_path):
    longer = PARAMS | {"train": PARAMS["train"] | {"max_epochs": 400}}
    (project / "params.yaml").write_text(yaml.safe_dump({"registry": {}} | longer))
    folder = tmp_path / "work"
    sent = sightline("submit", "--folder", str(folder), "train@seg")
    until(lambda: list(folder.glob("state/seg-*/state-*.json")) or sent.poll() is not None)
    assert sent.poll() is None, said(sent)[1]
    assert not (folder / ".env").exists()
    sent.send_signal(signal.SIGINT)
    code, text = said(sent)
    assert code == 130
    job = text.split("follow-job ")[1].split("`")[0]
    states = len(list(folder.glob("state/seg-*/state-*.json")))
    assert states, "it went on"
    following = sightline("follow-job", job)
    time.sleep(3)
    assert said(sightline("stop-job", job))[0] == 0
    code, text = said(following)
    assert code == 130, text
    assert mlflow_statuses(folder) == ["KILLED"], text
    assert not (folder / "artifacts/seg").exists()


def test_mistakes_are_told_before_anything_travels(project, cluster, sightline, monkeypatch):
    code, text = said(sightline("stop-job", "nobody"))
    assert (code, "no such job" in text) == (2, True), text
    for address in ("127.0.0.1:8265", "http://127.0.0.1:1"):
        command = [sys.executable, "-m", "pipeline.cli", "submit", "--address", address]
        done = dvc_project.attempt(project, *command)
        assert done.returncode == 2, done.stderr
        assert address in done.stderr
    monkeypatch.setenv("RAY_AUTH_TOKEN", "0" * 64)
    code, text = said(sightline("follow-job", "any"))
    assert (code, "refuses this token" in text) == (2, True), text
    assert os.environ["RAY_AUTH_TOKEN"] not in text
