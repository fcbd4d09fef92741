"""Code from the registry runs only if this project registered it, byte for byte; else nothing of it is touched."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from pipeline.commands import _app
from pipeline.settings.sections import TrackingConfig
from pipeline.tracking import connection, registry, signing
from pipeline.tracking import mlflow_run as tracking
from pipeline.tracking.champion import Candidate
from tests.answers import answer_in_process
from tests.command import sightline
from tests.local_training import make_checkpoint

pytestmark = pytest.mark.filterwarnings("default")

QUIET = TrackingConfig(system_metrics=False)
MODEL = "models:/seg@champion"
PICTURE = np.random.default_rng(0).integers(0, 255, (40, 60, 3), np.uint8)
EVIL = "open({marker!r}, 'w').close()\n"


def register(root: Path) -> dict[str, Any]:
    candidate = Candidate(
        model="seg",
        task="segmentation",
        checkpoint=root / "best.ckpt",
        dataset="toy",
        metric="miou",
        mode="max",
        value=0.5,
        run_id=(root / "run_id").read_text(),
        manifest_digest="d",
        git_commit="c",
    )
    image = cv2.imencode(".png", PICTURE)[1].tobytes()
    return registry.register(QUIET, candidate, root=root, inputs={"image": image}, measure=lambda checkpoint: None)


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project's folder with a run in MLflow, its untrained checkpoint and an image."""
    root = tmp_path_factory.mktemp("template")
    make_checkpoint(root / "best.ckpt", seed=1)
    cv2.imwrite(str(root / "a.png"), PICTURE)
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        with tracking.open_run(
            QUIET,
            root=root,
            run_name="r",
            experiment="training",  # the model's own is made where the template is copied to, with artifacts there
            params={},
            tags={},
            dataset=("toy", "d", ""),
            run_id_file=root / "run_id",
        ):
            pass
    return root


@pytest.fixture
def root(template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("SIGHTLINE_SIGNING_KEY", str(tmp_path / "keys" / "signing.key"))
    monkeypatch.setattr(registry, "probe", answer_in_process)
    monkeypatch.setattr(_app, "guard_process", lambda: None)  # this process's umask is pytest's
    root = Path(shutil.copytree(template, tmp_path / "project"))
    monkeypatch.chdir(root)
    return root


def stored(root: Path, name: str) -> Path:
    """A file of the one registered model, where the artifact store keeps it."""
    (file,) = root.glob(f"mlartifacts/**/models/*/artifacts/{name}")
    return file


def flip(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


def test_a_byte_changed_in_the_artifact_store_is_refused(root: Path, capfd: pytest.CaptureFixture) -> None:
    assert register(root)["decision"] == "champion"
    assert sightline("predict", [MODEL, "a.png"]) == 0
    assert json.loads(capfd.readouterr().out)["model"] == MODEL
    for name in ("artifacts/best.ckpt", "code/pipeline/predicting/predict.py", "MLmodel", "code/contracts/names.py"):
        flip(stored(root, name))
        assert sightline("predict", [MODEL, "a.png"]) == 2
        out, err = capfd.readouterr()
        assert f"changed after it was registered: a file is not the one signed: '{name}'" in err
        assert out == ""
        flip(stored(root, name))
    marker = root / "marker"
    (stored(root, "code/pipeline/predicting/predict.py").parents[1] / "__init__.py").write_text(
        EVIL.format(marker=str(marker))
    )
    assert sightline("predict", [MODEL, "a.png"]) == 2
    assert not marker.exists(), "its code ran"
    by_id = f"models:/{stored(root, 'MLmodel').parents[1].name}"  # past the registry
    assert sightline("predict", [by_id, "a.png"]) == 2
    assert capfd.readouterr().err.count("'code/pipeline/__init__.py'") == 2


def test_a_strangers_version_runs_only_if_it_is_trusted(root: Path, capfd: pytest.CaptureFixture) -> None:
    marker, strange = root / "marker", root / "strange"
    for folder in ("code/pipeline", "artifacts"):
        (strange / folder).mkdir(parents=True)
    (strange / "code" / "pipeline" / "__init__.py").write_text(EVIL.format(marker=str(marker)))
    (strange / "code" / "pipeline" / "cli.py").write_text("print('ran')\n")
    (strange / "artifacts" / "best.ckpt").write_text("x")
    (strange / "MLmodel").write_text("flavors: {}\n")
    client = connection.connect(QUIET, root)
    client.create_registered_model("theirs")
    client.create_model_version("theirs", str(strange), tags={"signature": "0" * 64})
    refused = "this version was not registered by this project: its code runs as you"
    for listing in (None, {"signature": "0" * 64, "files": signing._digests(strange)}):
        if listing is not None:
            (strange / signing.LISTING).write_text(json.dumps(listing))
        assert sightline("predict", ["models:/theirs/1", "a.png"]) == 2
        out, err = capfd.readouterr()
        assert refused in err and "--trust" in err and out == ""
        assert not marker.exists(), "its code ran"
    assert sightline("predict", ["models:/theirs/1", "a.png", "--trust"]) == 0
    out, err = capfd.readouterr()
    assert (out, marker.exists()) == ("ran\n", True)
    assert "models:/theirs/1 was not registered by this project" in err


def test_our_own_older_version_in_anothers_place_is_refused(root: Path, capfd: pytest.CaptureFixture) -> None:
    """A folder that is signed, under a version that was registered with another."""
    register(root)
    source = stored(root, "MLmodel").parent
    client = connection.connect(QUIET, root)
    client.create_registered_model("other")
    client.create_model_version("other", str(source), tags={"signature": "0" * 64})
    assert sightline("predict", ["models:/other/1", "a.png"]) == 2
    assert "another model's" in capfd.readouterr().err


def test_what_arrives_otherwise_than_it_was_sent_is_never_probed(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sent = registry.MlflowClient.log_model_artifacts

    def tamper(self: Any, model_id: str, folder: str) -> None:
        flip(Path(folder) / "code" / "pipeline" / "training" / "predictor.py")
        sent(self, model_id, folder)

    monkeypatch.setattr(registry.MlflowClient, "log_model_artifacts", tamper)
    monkeypatch.setattr(registry, "probe", lambda *_: pytest.fail("its code ran"))
    decision = register(root)
    assert decision["decision"] == "refused"
    assert "'code/pipeline/training/predictor.py'" in decision["reason"]
    monkeypatch.undo()


def test_another_teams_key_is_named(root: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture) -> None:
    register(root)
    mine = signing.key_file()
    theirs = mine.with_name("theirs.key")
    theirs.write_text("ab" * 32)
    theirs.chmod(0o600)
    monkeypatch.setenv("SIGHTLINE_SIGNING_KEY", str(theirs))
    assert sightline("predict", [MODEL, "a.png"]) == 2
    said = capfd.readouterr().err
    assert "not made with this key" in said and "SIGHTLINE_SIGNING_KEY" in said
    shutil.copyfile(mine, theirs)
    assert tracking.fetch_signed(MODEL, connection.connect(QUIET, root), root / "fetched").is_dir()
