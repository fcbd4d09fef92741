"""Names and parameters that tell runs apart, in a real store."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml
from mlflow.tracking import MlflowClient

from pipeline.settings.params import Params
from pipeline.settings.sections import ClusterConfig, TrackingConfig
from pipeline.tracking.connection import connect
from pipeline.tracking.naming import SETTINGS, new_name, parameters, settings_of

LINEAGE = {"data": "d" * 64, "code": "c" * 40}


def settings(**train: Any) -> dict[str, Any]:
    document = {
        "datasets": {"voc": {"origin": "local", "input": "voc", "sources": {"voc": {}}}},
        "runs": {"seg": {"dataset": "voc", "task": {"name": "segmentation"}, "model": {"name": "fcn"}}},
        "train": train,
    }
    return settings_of(Params(document).run("seg"), ClusterConfig(num_workers=2))


def test_parameters_are_what_differs_from_the_defaults_and_trains() -> None:
    assert parameters(settings()) == {"dataset": "voc", "model": "fcn"}
    given = settings(max_epochs=3, num_pictures=1, eval_batch_size=64, optimizer={"lr": 0.5})
    assert parameters(given) == {
        "dataset": "voc", "model": "fcn", "train.max_epochs": 3, "train.optimizer.lr": 0.5,
    }  # fmt: skip
    assert given["cluster"]["num_workers"] == 2 and given["train"]["num_pictures"] == 1, "run.yaml has all"


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> MlflowClient:
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        return connect(TrackingConfig(), tmp_path_factory.mktemp("store"))


@pytest.fixture
def experiment(client: MlflowClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.delenv("DVC_EXP_NAME", raising=False)
    return client.create_experiment(str(tmp_path), artifact_location=str(tmp_path / "mlartifacts"))


def named(client: MlflowClient, experiment: str, run: str, given: dict[str, Any], lineage: Any = LINEAGE) -> str:
    name = new_name(client, experiment, run, given, parameters(given), lineage)
    made = client.create_run(experiment, run_name=name).info
    client.log_text(made.run_id, yaml.safe_dump(given), SETTINGS)
    for key, tag in (("data", "manifest_digest"), ("code", "git_commit")):
        client.set_tag(made.run_id, tag, lineage[key])
    return name


def test_without_a_champion_it_is_what_differs_from_the_defaults(client: MlflowClient, experiment: str) -> None:
    assert named(client, experiment, "seg", settings()) == "seg"
    assert (
        named(client, experiment, "seg", settings(optimizer={"lr": 0.5}, max_epochs=3)) == "seg: max_epochs=3, lr=0.5"
    )
    assert named(client, experiment, "seg", settings()) == "seg (2)"


def test_beside_a_champion_it_is_what_differs_from_that(client: MlflowClient, experiment: str) -> None:
    first = settings(optimizer={"lr": 0.5}, max_epochs=3)
    named(client, experiment, "model", first)
    (run,) = client.search_runs([experiment])
    client.create_registered_model("model")
    client.create_model_version("model", f"runs:/{run.info.run_id}/model", run.info.run_id)
    client.set_registered_model_alias("model", "champion", "1")
    second = copy.deepcopy(first)
    second["train"]["optimizer"]["lr"], second["train"]["num_pictures"] = 0.25, 1
    second["task"]["augment"]["horizontal_flip"] = 0.0
    assert named(client, experiment, "model", second) == "model: horizontal_flip=0, lr=0.25"
    assert named(client, experiment, "model", first) == "model: settings of the champion"
    assert named(client, experiment, "model", first, LINEAGE | {"code": "e" * 40}) == "model: code eeeeeeee"


def test_an_experiment_of_dvc_lends_its_name(
    client: MlflowClient, experiment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DVC_EXP_NAME", "shaky-pews")
    assert named(client, experiment, "seg", settings(max_epochs=3)) == "seg: shaky-pews"
