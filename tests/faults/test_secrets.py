"""A password in the server's url, through a whole run: it stands in no line, file, param, tag or artifact."""

from __future__ import annotations

import base64
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from contracts.errors import ConfigError
from pipeline.settings.sections import TrackingConfig
from pipeline.tracking import connection
from pipeline.tracking.delivery import NOTE
from tests.mlflow_server import free_port, gate, server
from tests.waiting import PATIENCE_S

pytestmark = pytest.mark.filterwarnings("default")

USER, PASSWORD, ENCODED = "anna", "pa/S3cret@w0rd", "pa%2FS3cret%40w0rd"
FORMS = ("S3cret", base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode())

# Every stage in one process, as the stages' own `main` calls them; then the server is gone.
WHOLE_RUN = """
import os, sys
from pipeline.system.guard import guard_process
guard_process()
from pipeline.cli import app
from pipeline.settings.params import load_params
from pipeline.system.project import Project
from pipeline.stages.fetch import fetch
from pipeline.stages.shard import shard
from pipeline.stages.vocab import vocab
from pipeline.stages.train import train
from pipeline.stages.evaluate import evaluate
from pipeline.stages.register import register
project = Project.here()
params = load_params(project.root)
for stage in (fetch, shard, vocab):
    stage(project, params, "voc")
for stage in (train, evaluate, register):
    stage(project, params, "segmentation")
(image,) = [*(project.root / "data/raw/voc").rglob("*.jpg")][:1]
try:
    app(["predict", "models:/segmentation/1", str(image)])
except SystemExit as end:
    assert end.code == 0
os.environ["MLFLOW_TRACKING_URI"] = sys.argv[1]
evaluate(project, params, "segmentation")
raise OSError(sys.argv[1])
"""


@pytest.fixture
def project(tiny_project: Any, tmp_path: Path) -> Path:
    """The tiny project's settings: one run of one epoch, with all that MLflow can be sent."""
    document = yaml.safe_load((tiny_project.root / "params.yaml").read_text())
    document["datasets"] = {"voc": document["datasets"]["voc"]}
    document["runs"] = {"segmentation": document["runs"]["segmentation"]}
    document["train"]["max_epochs"] = 1
    document["tracking"] = {"system_metrics_every_s": 0.5, "flush_s": 0.2, "patience_s": 1}
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "params.yaml").write_text(yaml.safe_dump(document))
    subprocess.run(["git", "init", "-q"], cwd=folder, check=True)
    identity = ["-c", "user.name=test", "-c", "user.email=test@example.org"]
    subprocess.run(["git", *identity, "commit", "-q", "--allow-empty", "-m", "x"], cwd=folder, check=True)
    return folder


def test_the_password_of_the_server_is_nowhere(
    project: Path, root: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    served, port = tmp_path / "server", free_port()
    served.mkdir()
    with server(served, port), gate(port, USER, PASSWORD) as door:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://{USER}:S3cret@127.0.0.1:{door}")
        with pytest.raises(ConfigError, match="401") as refused:
            connection.connect(TrackingConfig(), project)
        assert "S3cret" not in str(refused.value)
        uri = f"http://{USER}:{ENCODED}@127.0.0.1:{door}"
        gone = f"http://{USER}:{ENCODED}@127.0.0.1:{free_port()}"
        result = subprocess.run(
            [sys.executable, "-c", WHOLE_RUN, gone],
            cwd=project,
            env=os.environ | {"PYTHONPATH": str(root), "MLFLOW_TRACKING_URI": uri},
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )
    said = result.stdout + result.stderr
    assert "register segmentation: version 1, " in said, said
    assert "View run" in said and "MLflow is away" in said and "OSError: http://***@127.0.0.1" in said, said
    assert list((project / "state" / "pending").glob(f"*/{NOTE}"))
    for form in FORMS:
        assert form not in said
        found = [path for path in tmp_path.rglob("*") if path.is_file() and form.encode() in path.read_bytes()]
        assert not found
    assert list(served.glob("served/**/plots/**/*.*")), "the results were meant to be there"
    # What the run made is for its user alone; git's own files and those of this test are not its work.
    made = [
        path for name in ("data", "artifacts", "metrics", "registry", "state") for path in (project / name).rglob("*")
    ]
    assert len(made) > 20
    assert not [path for path in made if path.stat().st_mode & 0o077]


def test_a_local_store_and_its_artifacts_are_for_the_user_alone(root: Path, tmp_path: Path) -> None:
    code = """
from pathlib import Path
from pipeline.system.guard import guard_process
guard_process()
from pipeline.settings.sections import TrackingConfig
from pipeline.tracking.mlflow_run import open_run
config = TrackingConfig(system_metrics=False)
Path("file").write_text("x")
with open_run(config, root=Path("."), run_name="r", experiment="e", params={}, tags={}, dataset=("d", "0", "")) as run:
    run.client.log_artifact(run.run_id, "file")
"""
    environment = {name: value for name, value in os.environ.items() if name != "MLFLOW_TRACKING_URI"}
    subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=environment | {"PYTHONPATH": str(root)},
        timeout=PATIENCE_S,
        check=True,
    )
    made = list(tmp_path.rglob("*"))
    assert {"mlflow.db", "mlartifacts", "file"} <= {path.name for path in made}
    assert not [path for path in made if path.stat().st_mode & 0o077]


@pytest.mark.parametrize("uri", ["postgresql://anna:pa/S3cret@host/db", "postgresql://anna:pa%2FS3cret@host/db"])
def test_a_missing_driver_is_named_and_the_password_is_not(
    uri: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.setitem(connection._DRIVERS, "postgresql", ("no_such_driver", "sightline[postgres]"))
    with pytest.raises(ConfigError, match=r"(?s)driver.*\*\*\*@host/db.*pip install 'sightline\[postgres\]'") as error:
        connection.connect(TrackingConfig(), tmp_path)
    assert "S3cret" not in str(error.value)


def test_another_server_does_not_see_the_last_ones_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_PASSWORD", raising=False)
    assert connection.without_password("https://anna:pa%2Fss@host/base") == "https://host/base"
    assert os.environ["MLFLOW_TRACKING_PASSWORD"] == "pa/ss"
    assert connection.without_password("http://other:5000") == "http://other:5000"
    assert "MLFLOW_TRACKING_PASSWORD" not in os.environ
    connection.without_password("https://anna:pw@host")
    assert connection.without_password("https://host") == "https://host"  # as MLflow's own variable has it meanwhile
    assert os.environ["MLFLOW_TRACKING_PASSWORD"] == "pw"
    connection.without_password("http://other:5000")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "the user's own")
    connection.without_password("http://other:5000")
    assert os.environ["MLFLOW_TRACKING_PASSWORD"] == "the user's own"
