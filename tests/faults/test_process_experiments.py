"""Experiments that DVC runs in a folder that it then deletes: what they recorded and registered is in the project."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from pipeline.settings.sections import TrackingConfig
from pipeline.tracking.connection import connect
from pipeline.tracking.mlflow_run import fetch_model
from tests import dvc_project
from tests.local_training import drawn_voc, mlflow_statuses
from tests.waiting import until

pytestmark = pytest.mark.filterwarnings("default")

PARAMS: dict[str, Any] = {
    "datasets": drawn_voc(train=32, val=12),
    "runs": {"seg": {"dataset": "voc", "task": {"name": "segmentation"}, "model": {"name": "fcn"}}},
    # Enough to be surely better than background everywhere, on twelve pictures: else there is no champion.
    "train": {"max_epochs": 16, "batch_size": 8, "eval_batch_size": 6, "num_pictures": 1, "optimizer": {"lr": 4.0e-3}},
    "loader": {"num_workers": 0},
    "shards": {"samples": 8},
    "cluster": {"engine": "local"},
    "tracking": {"system_metrics": False, "flush_s": 0.2},
    "registry": {"gates": {"seg": 0.0}},
}


def rows(folder: Path, query: str) -> list[tuple[Any, ...]]:
    with contextlib.closing(sqlite3.connect(folder / "mlflow.db")) as store:
        return store.execute(query).fetchall()


def test_temporary_and_queued_experiments_end_in_the_projects_own_store(root, tmp_path):
    project = dvc_project.make(root, tmp_path / "project", PARAMS)
    dvc_project.run(project, "dvc", "exp", "run", "--temp", "--name", "apart", "-S", "train.batch_size=4")
    assert not list((project / ".dvc/tmp/exps").rglob("params.yaml")), "its folder is gone"
    assert not (project / "artifacts").exists(), "and nothing was put into the workspace"
    assert mlflow_statuses(project) == ["FINISHED"]
    ((place, value),) = rows(
        project, "select artifact_uri, value from runs join params using (run_uuid) where key = 'train.batch_size'"
    )
    assert value == "4"
    assert Path(place).is_relative_to(project) and list(Path(place).rglob("*.png"))
    assert rows(project, "select name, alias, version from registered_model_aliases") == [("seg", "champion", 1)]
    model = fetch_model("models:/seg@champion", connect(TrackingConfig(), project), tmp_path / "fetched")
    assert list(model.glob("artifacts/*.ckpt"))

    dvc_project.run(
        project, "dvc", "exp", "run", "--queue", "--name", "queued", "-S", "train.batch_size=8", "train@seg"
    )
    dvc_project.run(project, "dvc", "queue", "start")

    def status() -> str:
        return dvc_project.run(project, "dvc", "queue", "status")

    until(lambda: not {"Queued", "Running"} & set(status().split()), status)
    assert "Success" in status(), dvc_project.run(project, "dvc", "queue", "logs", "queued")
    assert mlflow_statuses(project) == ["FINISHED"] * 2
    assert not list((project / "state").glob("seg-*")), "a finished training leaves no state"

    dvc_project.run(project, "dvc", "exp", "apply", "apart")
    assert json.loads((project / "registry/seg.json").read_text())["decision"] == "champion"
    run_id = json.loads((project / "artifacts/seg/run.json").read_text())["run_id"]
    assert rows(project, f"select status from runs where run_uuid = '{run_id}'") == [("FINISHED",)]
    shown = dvc_project.run(project, "dvc", "exp", "show", "--csv")
    assert "apart" in shown and "queued" in shown
