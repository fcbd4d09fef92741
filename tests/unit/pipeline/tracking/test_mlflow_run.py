"""Runs in a real SQLite store, and against a real server that dies and comes back."""

import json
import multiprocessing
import os
import re
import shutil
import signal
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from contracts.errors import ConfigError
from pipeline.settings.sections import TrackingConfig
from pipeline.tracking import connection
from pipeline.tracking import mlflow_run as tracking
from tests.mlflow_server import free_port, server
from tests.waiting import until

QUIET = TrackingConfig(system_metrics=False, flush_s=0.05, patience_s=60)
DATASET = ("coco", "d" * 64, "/data/shards/coco")


def _connect(root: str) -> None:
    tracking.experiment_id(connection.connect(QUIET, Path(root)), QUIET, Path(root), "vqa")


@pytest.fixture(scope="session")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh store, made by four processes at once; later tests copy it, for making one takes seconds."""
    root = tmp_path_factory.mktemp("store")
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=_connect, args=(str(root),)) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * 4
    return root / "mlflow.db"


@pytest.fixture
def root(database: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    shutil.copyfile(database, tmp_path / "mlflow.db")
    return tmp_path


def open_run(root: Path, config: TrackingConfig = QUIET, **other: Any) -> Any:
    arguments = {"params": {"model.lr": 0.1}, "tags": {"git_commit": "abc", "dvc_lock_sha256": ""}, **other}
    return tracking.open_run(config, root=root, run_name="r", experiment="captioning", dataset=DATASET, **arguments)


def append(file: Path, *events: dict[str, Any]) -> None:
    with open(file, "a") as out:
        out.writelines(json.dumps(event) + "\n" for event in events)


def metrics(step: int, **values: float) -> dict[str, Any]:
    return {"kind": "metrics", "step": step, "epoch": step // 10, "time": 1000.0 + step, "values": values}


def history(root: Path, run_id: str, name: str) -> list[tuple[int, float]]:
    found = connection.connect(QUIET, root).get_metric_history(run_id, name)
    return sorted((metric.step, metric.value) for metric in found)


def test_first_use_by_several_processes_makes_one_store_and_one_experiment(database: Path) -> None:
    found = connection.connect(QUIET, database.parent).search_experiments()
    assert sorted(experiment.name for experiment in found) == ["Default", "sightline-vqa"]


def test_a_run_says_what_was_trained_on_what(root: Path) -> None:
    with open_run(root, params={"model.lr": 0.1, "long": "x" * 9000, "odd name!": None}) as run:
        running = run.client.get_run(run.run_id)
        assert running.info.status == "RUNNING"
    found = run.client.get_run(run.run_id)
    assert found.info.status == "FINISHED"
    assert found.info.artifact_uri == f"{root}/mlartifacts/sightline-captioning/{run.run_id}/artifacts"
    assert found.data.params == {"model.lr": "0.1", "long": "x" * 6000, "odd name_": "None"}
    assert found.data.tags["git_commit"] == found.data.tags["mlflow.source.git.commit"] == "abc"
    assert found.data.tags["manifest_digest"] == "d" * 64
    assert "dvc_lock_sha256" not in found.data.tags
    (given,) = found.inputs.dataset_inputs
    assert (given.dataset.name, given.dataset.digest) == ("coco", "d" * 36)
    assert json.loads(given.dataset.source) == {"uri": "/data/shards/coco"}


def _terminate() -> None:
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(5)


def _raise(error: BaseException) -> None:
    raise error


@pytest.mark.parametrize(
    ("end", "raised", "status"),
    [
        (lambda: _raise(ValueError("no")), ValueError, "FAILED"),
        (lambda: _raise(KeyboardInterrupt()), KeyboardInterrupt, "KILLED"),
        (_terminate, KeyboardInterrupt, "KILLED"),
        (lambda: sys.exit(signal.SIGTERM), SystemExit, "KILLED"),
        (lambda: sys.exit(1), SystemExit, "FAILED"),
    ],
    ids=["error", "interrupt", "sigterm", "sigterm-by-ray", "exit"],
)
def test_the_final_status_tells_how_it_ended(root: Path, end: Any, raised: type[BaseException], status: str) -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(raised), open_run(root) as run:
        end()
    assert run.client.get_run(run.run_id).info.status == status
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_killed_run_is_opened_again_and_keeps_its_params(root: Path) -> None:
    note = root / "run_id"
    with pytest.raises(KeyboardInterrupt), open_run(root, params={"a": 1, "b": 2}, run_id_file=note) as first:
        raise KeyboardInterrupt
    with open_run(root, params={"a": 1, "b": 3, "c": 4}, run_id_file=note) as again:
        assert again.client.get_run(again.run_id).info.status == "RUNNING"
    found = again.client.get_run(first.run_id)
    assert again.run_id == first.run_id == note.read_text()
    assert found.data.params == {"a": "1", "b": "2", "c": "4"}
    assert found.data.tags["param.b"] == "3"
    assert "param.a" not in found.data.tags
    assert found.info.status == "FINISHED"
    assert len(found.inputs.dataset_inputs) == 1


def test_a_run_that_is_gone_is_replaced(root: Path) -> None:
    note = root / "run_id"
    note.write_text("0" * 32)
    with open_run(root, run_id_file=note) as run:
        assert note.read_text() == run.run_id != "0" * 32
    run.client.delete_run(run.run_id)
    with open_run(root, run_id_file=note) as other:
        assert other.run_id != run.run_id


def test_events_arrive_as_metrics_tags_and_pictures(root: Path) -> None:
    Image.fromarray(np.full((60, 1030, 3), 200, np.uint8)).save(root / "p.png")
    file = root / "events.jsonl"
    append(file, *(metrics(step, **{"train/loss": 1 / (step + 1), "bad!": float("nan")}) for step in range(30)))
    append(file, {"kind": "tags", "values": {"precision": "bf16", "empty": ""}})
    append(file, {"kind": "image", "step": 7, "time": 1.0, "name": "val/0025", "file": "p.png"})
    append(file, {"kind": "image", "step": 8, "time": 1.0, "name": "val/0025", "file": "gone.png"})
    with open_run(root) as run, tracking.EventTail(run, file):
        pass
    assert history(root, run.run_id, "train/loss") == [(step, 1 / (step + 1)) for step in range(30)]
    assert history(root, run.run_id, "epoch")[-1] == (29, 2.0)
    found = run.client.get_run(run.run_id).data
    assert np.isnan(found.metrics["bad_"])
    assert found.tags["precision"] == "bf16"
    pictures = sorted(Path(run.client.download_artifacts(run.run_id, "images")).iterdir())
    small, full = (Image.open(path) for path in pictures)
    with small, full:
        assert (full.size, small.size) == ((1030, 60), (512, 30))


def test_pictures_are_named_as_mlflow_names_its_own(root: Path) -> None:
    """MLflow's pages read name and step from the file name: ours must follow when an upgrade changes it."""
    picture = np.zeros((20, 20, 3), np.uint8)
    Image.fromarray(picture).save(root / "p.png")
    file = root / "events.jsonl"
    append(file, {"kind": "image", "step": 7, "time": 1.0, "name": "val/a_b-1", "file": "p.png"})
    with open_run(root) as ours, tracking.EventTail(ours, file):
        pass
    with open_run(root) as theirs:
        theirs.client.log_image(theirs.run_id, picture, key="val/a_b-1", step=7)

    def shape(run_id: str) -> list[str]:
        names = [item.path for item in ours.client.list_artifacts(run_id, "images")]
        return sorted(re.sub(r"timestamp\+\d+\+[0-9a-f-]{36}", "timestamp+T+ID", name) for name in names)

    assert shape(ours.run_id) == shape(theirs.run_id)
    tags = [ours.client.get_run(run.run_id).data.tags["mlflow.loggedImages"] for run in (ours, theirs)]
    assert tags[0] == tags[1]


def test_a_delivery_that_is_repeated_doubles_nothing(root: Path) -> None:
    Image.fromarray(np.zeros((9, 9, 3), np.uint8)).save(root / "p.png")
    file, note = root / "events.jsonl", root / "run_id"
    append(file, metrics(1, loss=0.5), {"kind": "image", "step": 1, "time": 1.0, "name": "a", "file": "p.png"})
    with open_run(root, run_id_file=note) as run, tracking.EventTail(run, file):
        pass
    (root / "events.sent.json").unlink()  # died after sending, before remembering
    append(file, metrics(2, loss=0.25))
    with open_run(root, run_id_file=note), tracking.EventTail(run, file):
        pass
    assert history(root, run.run_id, "loss") == [(1, 0.5), (2, 0.25)]
    assert len(run.client.list_artifacts(run.run_id, "images")) == 2


def test_a_name_that_mlflow_would_refuse_is_written_so_that_it_does_not(root: Path) -> None:
    file = root / "events.jsonl"
    append(file, metrics(1, loss=0.5), metrics(2, **{"a/../b": 1.0}), metrics(3, loss=0.25))
    with open_run(root) as run, tracking.EventTail(run, file) as tail:
        pass
    assert history(root, run.run_id, "loss") == [(1, 0.5), (3, 0.25)]
    assert history(root, run.run_id, "a/__/b") == [(2, 1.0)] and tail.num_dropped == 0


def test_results_are_added_to_a_run_that_has_ended(root: Path, capfd: pytest.CaptureFixture) -> None:
    with open_run(root) as run:
        pass
    before = run.client.get_run(run.run_id).info
    (root / "plots").mkdir()
    (root / "plots" / "a.csv").write_text("x\n")
    (root / "m.json").write_text("{}")
    arguments: dict[str, Any] = {"root": root, "folders": {"plots": root / "plots"}, "files": {"": [root / "m.json"]}}
    assert tracking.log_results(QUIET, run_id=run.run_id, metrics={"eval/ap": 0.5, "eval/x": None}, **arguments)
    found = run.client.get_run(run.run_id)
    assert found.data.metrics["eval/ap"] == 0.5
    assert np.isnan(found.data.metrics["eval/x"])
    assert sorted(item.path for item in run.client.list_artifacts(run.run_id)) == ["m.json", "plots"]
    assert (found.info.status, found.info.end_time) == ("FINISHED", before.end_time)
    assert not tracking.log_results(QUIET, run_id="0" * 32, metrics={}, **arguments)
    assert "has no run" in capfd.readouterr().err


def test_system_metrics_are_logged(root: Path) -> None:
    config = TrackingConfig(system_metrics_every_s=0.2)
    with open_run(root, config) as run:
        until(lambda: history(root, run.run_id, "system/cpu_utilization_percentage"))


def test_the_environment_goes_before_params(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    config = TrackingConfig(uri="sqlite:///config.db")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
    assert connection.tracking_uri(config, tmp_path) == "http://127.0.0.1:1"
    with pytest.raises(ConfigError, match=r"cannot be reached.*127\.0\.0\.1:1"):
        connection.connect(config, tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    assert connection.tracking_uri(config, tmp_path) == "sqlite:///config.db"
    assert connection.tracking_uri(QUIET, tmp_path) == f"sqlite:///{tmp_path}/mlflow.db"


def test_settings_that_cannot_work_are_refused() -> None:
    with pytest.raises(ConfigError, match="plain files"):
        TrackingConfig(uri="./mlruns")
    with pytest.raises(ConfigError, match="flush_s"):
        TrackingConfig(flush_s=0)


def test_a_deleted_experiment_is_told(root: Path) -> None:
    client = connection.connect(QUIET, root)
    client.delete_experiment(tracking.experiment_id(client, QUIET, root, "vqa"))
    with pytest.raises(ConfigError, match="was deleted"):
        tracking.experiment_id(client, QUIET, root, "vqa")


def test_a_server_that_dies_and_comes_back_loses_and_doubles_nothing(
    root: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture
) -> None:
    port = free_port()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{port}")
    Image.fromarray(np.zeros((9, 9, 3), np.uint8)).save(root / "p.png")
    file = root / "events.jsonl"
    steps = iter(range(1000))
    with server(root, port):
        opened = open_run(root)
        run = opened.__enter__()
        tail = tracking.EventTail(run, file)
        tail.__enter__()
        append(file, *(metrics(next(steps), loss=0.5) for _ in range(50)))
        append(file, {"kind": "image", "step": 1, "time": 1.0, "name": "a", "file": "p.png"})
        until(lambda: tail._offset >= file.stat().st_size)
    append(file, *(metrics(next(steps), loss=0.5) for _ in range(50)))
    until(lambda: tail._down)
    append(file, {"kind": "image", "step": 2, "time": 1.0, "name": "a", "file": "p.png"})
    with server(root, port):
        tail.__exit__(None, None, None)
        opened.__exit__(None, None, None)
        assert history(root, run.run_id, "loss") == [(step, 0.5) for step in range(100)]
        assert len(run.client.list_artifacts(run.run_id, "images")) == 4
        found = run.client.get_run(run.run_id)
    assert found.info.status == "FINISHED"
    assert found.info.artifact_uri.startswith("mlflow-artifacts:")  # the server's choice, not a path of this machine
    said = capfd.readouterr().err
    assert (said.count("is away"), said.count("is back")) == (1, 1)
