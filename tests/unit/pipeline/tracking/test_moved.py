"""A project that is copied or moved writes and reads in its own folder."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient

from pipeline.settings.sections import TrackingConfig
from pipeline.tracking import connection
from pipeline.tracking import mlflow_run as tracking
from pipeline.tracking.delivery import deliver_pending
from pipeline.tracking.moved import _COLUMNS

QUIET = TrackingConfig(system_metrics=False, patience_s=0)
NEW = "sightline-seg"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with a run, an artifact and a registered version."""
    root = tmp_path_factory.mktemp("made") / "project"
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        with open_run(root) as run:
            run.client.log_text(run.run_id, "here", "note.txt")
    run.client.create_registered_model("m")
    run.client.create_model_version("m", f"{run.client.get_run(run.run_id).info.artifact_uri}/model", run.run_id)
    return root


@pytest.fixture
def project(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return Path(shutil.copytree(made, tmp_path / "made"))


def open_run(root: Path):  # type: ignore[no-untyped-def]
    return tracking.open_run(
        QUIET, root=root, run_name="r", experiment="seg", params={}, tags={}, dataset=("voc", "d" * 64, "")
    )


def paths(root: Path) -> set[str]:
    """All but that of MLflow's own experiment, which is made in the current folder."""
    with closing(sqlite3.connect(root / "mlflow.db")) as store:
        found = {path for table, column in _COLUMNS for (path,) in store.execute(f"SELECT {column} FROM {table}")}
    return {path for path in found if path and "/mlruns/" not in path}


def files(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def client_of(root: Path) -> MlflowClient:
    return connection.connect(QUIET, root)


def test_a_copy_writes_into_its_own_folder(project: Path, tmp_path: Path, capfd: pytest.CaptureFixture) -> None:
    client_of(project)
    assert all(path.startswith(f"{project}/") for path in paths(project))
    capfd.readouterr()
    copy = Path(shutil.copytree(project, tmp_path / "copy"))
    before = files(project)
    with open_run(copy) as run:
        run.client.log_text(run.run_id, "new", "note.txt")
    told = capfd.readouterr().err
    assert told.count(f"was made in {project}: its paths are those of {copy} now") == 1
    assert all(path.startswith(f"{copy}/") for path in paths(copy))
    assert (copy / "mlartifacts" / NEW / run.run_id / "artifacts" / "note.txt").read_text() == "new"
    client_of(copy)
    assert files(project) == before, "the old one is as it was"
    assert not capfd.readouterr().err, "told once"


def test_a_moved_project_opens_what_it_has(project: Path, tmp_path: Path) -> None:
    client_of(project)
    moved = project.rename(tmp_path / "moved")
    client = client_of(moved)
    (experiment,) = [found for found in client.search_experiments() if found.name == NEW]
    (run,) = client.search_runs([experiment.experiment_id])
    assert Path(client.download_artifacts(run.info.run_id, "note.txt")).read_text() == "here"
    assert client.get_model_version_download_uri("m", "1").startswith(f"{moved}/mlartifacts/")
    assert not project.exists()


def test_a_copy_inside_the_project_leaves_that_as_it_is(project: Path) -> None:
    client_of(project)
    inner = Path(shutil.copytree(project, project / "inner"))
    with open_run(inner):
        pass
    client_of(inner)
    assert all(path.startswith(f"{inner}/") and "inner/inner" not in path for path in paths(inner))


def test_another_place_for_artifacts_stays(project: Path, tmp_path: Path) -> None:
    """Of a time when `tracking.artifacts` named it."""
    elsewhere = tmp_path / "big" / "mlartifacts"
    elsewhere.mkdir(parents=True)
    with closing(sqlite3.connect(project / "mlflow.db")) as store:
        place = (f"{elsewhere}/{NEW}", NEW)
        store.execute("UPDATE experiments SET artifact_location = ? WHERE name = ?", place)
        store.commit()
    client_of(project)
    assert f"{elsewhere}/{NEW}" in paths(project)


def test_results_that_wait_are_delivered_after_the_move(project: Path, tmp_path: Path) -> None:
    with open_run(project) as run:
        pass
    (project / "mlflow.db").rename(tmp_path / "away")
    (project / "mlflow.db").mkdir()  # MLflow is away
    assert not tracking.log_results(QUIET, root=project, run_id=run.run_id, metrics={"val/x": 0.5})
    (project / "mlflow.db").rmdir()
    (tmp_path / "away").rename(project / "mlflow.db")
    moved = project.rename(tmp_path / "moved")
    client = client_of(moved)
    deliver_pending(client, moved)
    assert client.get_run(run.run_id).data.metrics["val/x"] == 0.5
