"""A real MLflow server with its own users and passwords (`--app-name basic-auth`): who may write where."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import urllib.request
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path

import pytest

from contracts.errors import ConfigError
from pipeline.settings.sections import TrackingConfig
from pipeline.tracking import connection
from tests.faults.test_secrets import project as project
from tests.mlflow_server import free_port, server
from tests.waiting import PATIENCE_S

pytestmark = pytest.mark.filterwarnings("default")

# Not to a registered model: its code is hundreds of files, and MLflow takes a tenth of a second to check a password.
TRAINING = """
from pipeline.settings.params import load_params
from pipeline.system.guard import ended_plainly
from pipeline.system.project import Project
from pipeline.stages.fetch import fetch
from pipeline.stages.shard import shard
from pipeline.stages.vocab import vocab
from pipeline.stages.train import train
project = Project.here()
params = load_params(project.root)
with ended_plainly():
    for stage, name in ((fetch, "voc"), (shard, "voc"), (vocab, "voc"), (train, "segmentation")):
        stage(project, params, name)
"""
ADMIN, ANNA, BOB = ("admin", "first Password 1"), ("anna", "second Password 2"), ("bob", "third Password 3")


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server with two users, who may read all and write what they have begun."""
    folder, port = tmp_path_factory.mktemp("users"), free_port()
    (folder / "auth.ini").write_text(
        f"[mlflow]\ndefault_permission = READ\ndatabase_uri = sqlite:///{folder}/users.db\n"
        f"admin_username = {ADMIN[0]}\nauthorization_function = mlflow.server.auth:authenticate_request_basic_auth\n"
    )
    variables = {
        "MLFLOW_AUTH_CONFIG_PATH": str(folder / "auth.ini"),
        "MLFLOW_AUTH_ADMIN_PASSWORD": ADMIN[1],
        "MLFLOW_FLASK_SERVER_SECRET_KEY": "of this test",
    }
    with server(folder, port, "--app-name", "basic-auth", **variables):
        address = f"http://127.0.0.1:{port}"
        for user, password in (ANNA, BOB):
            body = json.dumps({"username": user, "password": password}).encode()
            sign = b64encode(":".join(ADMIN).encode()).decode()
            headers = {"Content-Type": "application/json", "Authorization": f"Basic {sign}"}
            urllib.request.urlopen(urllib.request.Request(f"{address}/api/2.0/mlflow/users/create", body, headers))
        yield address


def signed_in(user: tuple[str, str], uri: str) -> dict[str, str]:
    return {"MLFLOW_TRACKING_URI": uri, "MLFLOW_TRACKING_USERNAME": user[0], "MLFLOW_TRACKING_PASSWORD": user[1]}


def run(project: Path, root: Path, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", TRAINING]
    environment = os.environ | {"PYTHONPATH": str(root)} | environment
    return subprocess.run(
        command, cwd=project, env=environment, capture_output=True, text=True, timeout=PATIENCE_S, check=False
    )


def test_a_run_is_kept_by_its_user_and_another_one_is_refused_in_words(
    uri: str, project: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = run(project, root, signed_in(ANNA, uri))
    said = done.stdout + done.stderr
    assert done.returncode == 0 and "train segmentation: best at epoch" in said, said
    for name, value in signed_in(ANNA, uri).items():
        monkeypatch.setenv(name, value)
    client = connection.connect(TrackingConfig(), project)
    (found,) = [one for one in client.search_experiments() if one.name == "sightline-segmentation"]
    (kept,) = client.search_runs([found.experiment_id])
    assert kept.info.status == "FINISHED"
    assert "val/mean_iou" in kept.data.metrics and kept.data.params["model"] == "fcn"
    assert {"run.yaml", "images"} <= {one.path for one in client.list_artifacts(kept.info.run_id)}
    shutil.rmtree(project / "state")
    refused = run(project, root, signed_in(BOB, uri))
    told = refused.stdout + refused.stderr
    assert refused.returncode == 2 and "403" in told and "Traceback" not in told, told[-3000:]
    assert ANNA[1] not in said and BOB[1] not in told


@pytest.mark.parametrize("user", [("anna", "wrong"), ("nobody", "at all")])
def test_a_wrong_password_is_told_and_not_repeated(
    uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, user: tuple[str, str]
) -> None:
    for name, value in signed_in(user, uri).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match="401") as refused:
        connection.connect(TrackingConfig(), tmp_path)
    assert user[1] not in str(refused.value)
