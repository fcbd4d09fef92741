"""MLflow that hangs, is away, locked or read-only costs no work; the UI leaves no process behind."""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
import yaml

from contracts.errors import ConfigError
from pipeline.settings.params import load_params
from pipeline.settings.sections import TrackingConfig
from pipeline.shards.manifest import load_manifest
from pipeline.stages.register import register
from pipeline.system.project import Project, write_json
from pipeline.tracking import connection, ui
from pipeline.tracking import mlflow_run as tracking
from pipeline.tracking.delivery import NOTE
from pipeline.training.checkpoints import BEST, build_module, file_sha256, save_best
from pipeline.training.runs import load_run
from tests.command import sightline
from tests.mlflow_server import free_port, server
from tests.waiting import PATIENCE_S, until

pytestmark = pytest.mark.filterwarnings("default")

QUIET = TrackingConfig(system_metrics=False, patience_s=0)


@pytest.fixture
def project(tiny_project: Project, tmp_path: Path) -> Project:
    """The tiny project with a segmentation run as training leaves it, untrained; its MLflow run is to be opened."""
    document = yaml.safe_load((tiny_project.root / "params.yaml").read_text())
    document["tracking"] |= {"patience_s": 1}
    project = Project(tmp_path / "project")
    shutil.copytree(tiny_project.root, project.root)
    (project.root / "params.yaml").write_text(yaml.safe_dump(document))
    data = load_run(project, load_params(project.root), "segmentation")
    run = data.run.to_dict()
    folder = project.artifacts("segmentation")
    folder.mkdir(parents=True)
    weights = build_module(run, data.spec).state_dict()
    save_best(folder / "best.ckpt", run=run, data=data.spec, weights=weights, info={})
    return project


def open_run(project: Project, config: TrackingConfig = QUIET) -> str:
    """A run in MLflow, with the record of it that training leaves."""
    opened = tracking.open_run(
        config,
        root=project.root,
        run_name="segmentation",
        experiment="segmentation",
        params={},
        tags={},
        dataset=("voc", "0", ""),
    )
    with opened as run:
        pass
    folder = project.artifacts("segmentation")
    record = {
        "run_id": run.run_id,
        "git_commit": "c",
        "git_changed": [],
        "code": "0" * 64,
        "manifest_digest": load_manifest(project.shards("voc"))["digest"],
        "checkpoint_sha256": file_sha256(folder / BEST),
        "fingerprint": "0" * 64,
    }
    write_json(folder / "run.json", record)
    return run.run_id


def pending(project: Project) -> list[Path]:
    return list((project.root / "state" / "pending").rglob(NOTE))


def test_a_server_that_hangs_costs_an_evaluation_nothing(
    project: Project, root: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture
) -> None:
    port = free_port()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{port}")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "2")
    with server(tmp_path, port) as process:
        run_id = open_run(project)
        os.killpg(process.pid, signal.SIGSTOP)
        evaluation = subprocess.run(
            [sys.executable, "-m", "pipeline.stages", "evaluate", "segmentation"],
            cwd=project.root,
            env=os.environ | {"PYTHONPATH": str(root)},
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )
        assert evaluation.returncode == 0, evaluation.stderr
        assert "MLflow is away" in evaluation.stderr and f"state/pending/{run_id}" in evaluation.stderr
        measured = json.loads(project.measured("segmentation").read_text())
        assert pending(project) == [project.root / "state" / "pending" / run_id / NOTE]

        params = load_params(project.root)
        with pytest.raises(ConfigError, match=r"(?s)cannot be reached.*timed out"):
            register(project, params, "segmentation")
        assert not project.registry("segmentation").exists()

        shutil.rmtree(project.plots("segmentation"))  # as DVC does before it runs a stage again
        os.killpg(process.pid, signal.SIGCONT)
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")
        register(project, params, "segmentation")
        decision = json.loads(project.registry("segmentation").read_text())
        assert not pending(project)
        client = connection.connect(QUIET, project.root)
        found = client.get_run(run_id)
        assert found.data.metrics[f"val/{measured['metric']}"] == pytest.approx(measured["value"])
        names = {item.path for item in client.list_artifacts(run_id)}
        assert {"plots", "tables", "measured.json", "segmentation.jsonl"} <= names
        register(project, params, "segmentation")
        assert json.loads(project.registry("segmentation").read_text()) == decision
    said = capfd.readouterr().err
    assert said.count("are delivered") == 1


def test_results_wait_for_their_own_store_and_are_sent_once(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """Away, back, another store in between, sent twice: one value, one file of each name."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    run_id = open_run(project)
    (project.root / "plots").mkdir()
    (project.root / "plots" / "a.csv").write_text("x")

    def log(value: float) -> bool:
        folders = {"plots": project.root / "plots"}
        return tracking.log_results(QUIET, root=project.root, run_id=run_id, metrics={"eval/x": value}, folders=folders)

    database = project.root / "mlflow.db"
    database.rename(database.with_suffix(".away"))
    database.mkdir()  # neither a database nor a place for one
    assert not log(0.5)
    assert not log(0.75), "what is measured again takes the place of what waits"
    database.rmdir()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{project.root}/other.db")
    open_run(project)
    assert len(pending(project)) == 1
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    database.with_suffix(".away").rename(database)
    copy = project.root / "copy"
    shutil.copytree(project.root / "state" / "pending", copy)
    open_run(project)
    assert not pending(project)
    shutil.copytree(copy, project.root / "state" / "pending", dirs_exist_ok=True)  # died after sending
    open_run(project)
    client = connection.connect(QUIET, project.root)
    assert [metric.value for metric in client.get_metric_history(run_id, "eval/x")] == [0.75]
    assert [item.path for item in client.list_artifacts(run_id, "plots")] == ["plots/a.csv"]


def test_a_locked_database_is_waited_for_and_then_told(
    project: Project, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    run_id = open_run(project)
    locker = "import sqlite3, sys; c = sqlite3.connect(sys.argv[1]); c.execute('BEGIN EXCLUSIVE'); print(1, flush=True)"
    with subprocess.Popen(
        [sys.executable, "-c", f"{locker}; sys.stdin.read()", str(project.root / "mlflow.db")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as holder:
        assert holder.stdout is not None and holder.stdin is not None
        holder.stdout.readline()
        assert not tracking.log_results(QUIET, root=project.root, run_id=run_id, metrics={"eval/x": 0.5})
        holder.stdin.close()
    said = capfd.readouterr().err
    assert "cannot be reached" in said and "Traceback" not in said
    open_run(project)
    assert not pending(project)


def test_a_process_that_keeps_the_lock_is_not_waited_for_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "LOCK_S", 0.2)
    with open(tmp_path / "mlflow.db.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with (
            pytest.raises(ConfigError, match="another process has held"),
            connection.first_use(f"sqlite:///{tmp_path}/mlflow.db"),
        ):
            pass


def _without_override() -> None:
    """Root may write what is read-only, unless it gives that right up before the next program starts."""
    if os.geteuid() == 0:
        cap_dac_override, pr_capbset_drop = 1, 24
        ctypes.CDLL(None).prctl(pr_capbset_drop, cap_dac_override, 0, 0, 0)


def test_a_read_only_database_is_told(project: Project, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    run_id = open_run(project)
    (project.root / "mlflow.db").chmod(0o400)
    code = f"""
from pathlib import Path
from pipeline.tracking import connection, mlflow_run as tracking
from pipeline.settings.sections import TrackingConfig
config, root = TrackingConfig(patience_s=0), Path({str(project.root)!r})
print(tracking.log_results(config, root=root, run_id={run_id!r}, metrics={{"eval/x": 0.5}}))
"""
    result = subprocess.run(
        [sys.executable, "-c", code],
        cwd=project.root,
        env=os.environ | {"PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=_without_override,
    )
    assert result.stdout == "False\n", result.stderr
    assert "MLflow's database cannot be written" in result.stderr
    assert len(pending(project)) == 1
    (project.root / "mlflow.db").chmod(0o600)
    open_run(project)
    assert not pending(project)


def test_a_server_that_is_gone_while_a_model_is_registered_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    with (
        pytest.raises(ConfigError, match=r"(?s)does not answer.*\*\*\*@h.*same command again"),
        connection.answering("http://u:p@h"),
    ):
        raise connection.MlflowException("connection refused at http://u:p@h")
    with pytest.raises(FileNotFoundError), connection.answering("http://h"):
        raise FileNotFoundError("best.ckpt")  # nobody is away: it is ours


@pytest.fixture
def ui_process(tmp_path: Path, root: Path, tiny_project: Project) -> Iterator[Callable[[], subprocess.Popen]]:
    shutil.copyfile(tiny_project.root / "params.yaml", tmp_path / "params.yaml")
    started: list[subprocess.Popen] = []
    port = free_port()

    def start() -> subprocess.Popen:
        environment = os.environ | {"PYTHONPATH": str(root), "MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path}/S3cret.db"}
        command = [sys.executable, "-m", "pipeline.cli", "ui", "--port", str(port)]
        with open(tmp_path / "log", "a") as log:
            started.append(subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=log, stderr=log))
        started[-1].port = port  # type: ignore[attr-defined]
        return started[-1]

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
            process.wait()


def answers(port: int) -> bool:
    with suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5):
        return True
    return False


@pytest.mark.parametrize(
    ("number", "early"),
    [(signal.SIGTERM, False), (signal.SIGKILL, False), (signal.SIGHUP, True)],
    ids=["term", "kill", "hup-early"],
)
def test_the_ui_leaves_no_process_behind(
    ui_process: Callable[[], subprocess.Popen], tmp_path: Path, number: int, early: bool
) -> None:
    process = ui_process()
    me = psutil.Process(process.pid)
    if early:
        until(lambda: len(me.children(recursive=True)) >= 2)
    else:
        until(lambda: answers(process.port), (tmp_path / "log").read_text)  # type: ignore[attr-defined]
    family = me.children(recursive=True)
    assert 2 <= len(family) <= 3, family
    for member in [me, *family]:
        assert "S3cret" not in " ".join(member.cmdline()), "every user of the machine can read a command line"
    listening = {c.laddr.ip for member in family for c in member.net_connections() if c.status == psutil.CONN_LISTEN}
    assert listening == (set() if early else {"127.0.0.1"})
    process.send_signal(number)
    process.wait()
    _gone, alive = psutil.wait_procs(family, timeout=60)
    assert not alive
    if not early:
        assert not (tmp_path / "S3cret.db").stat().st_mode & 0o077


def test_the_ui_warns_of_an_address_that_others_reach(
    tmp_path: Path, tiny_project: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(tiny_project.root)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    served: list[str] = []
    monkeypatch.setattr(ui, "serve", lambda uri, host, port, told: served.append(host))
    for arguments in ([], ["--host", "0.0.0.0"]):
        assert sightline("ui", arguments) == 0
    assert served == ["127.0.0.1", "0.0.0.0"]
    assert capsys.readouterr().err.count("asks nobody for a password") == 1
