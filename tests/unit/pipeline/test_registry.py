"""The champion's rule, and a registered model that answers as its checkpoint does."""

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from contracts.errors import ConfigError
from pipeline import connection, registry, tracking
from pipeline.predictor import load_predictor
from pipeline.registry import Candidate, Standing, judge, same_answer
from pipeline.sections import TrackingConfig
from tests.local_training import make_checkpoint

QUIET = TrackingConfig(system_metrics=False, flush_s=0.05)
IMAGE = cv2.imencode(".png", np.random.default_rng(0).integers(0, 255, (40, 60, 3), np.uint8))[1].tobytes()
FIT = Candidate(
    model="m",
    task="segmentation",
    checkpoint=Path("best.ckpt"),
    dataset="voc",
    metric="miou",
    mode="max",
    value=0.5,
    run_id="r",
    manifest_digest="d1",
    git_commit="c",
)
REIGNING = Standing(version="3", metric="miou", value=0.4, manifest_digest="d1")


@pytest.mark.parametrize(
    ("change", "champion", "accepted", "reason"),
    [
        ({}, None, True, "first version"),
        ({}, REIGNING, True, "0.5 is better than 0.4 of version 3"),
        ({"value": 0.4}, REIGNING, False, "not better"),
        ({"value": 0.3}, REIGNING, False, "not better"),
        ({"value": 0.3, "mode": "min"}, REIGNING, True, "better"),
        ({"value": 0.5, "mode": "min"}, REIGNING, False, "not better"),
        ({"value": 0.1, "manifest_digest": "d2"}, REIGNING, True, "other data (manifest d1, now d2)"),
        ({"value": 0.1, "metric": "accuracy"}, REIGNING, True, "measured by miou, not by accuracy"),
        ({}, dataclasses.replace(REIGNING, value=float("nan")), True, "better than nan"),
        ({"value": None}, None, False, "not finite"),
        ({"value": float("inf")}, None, False, "not finite"),
        ({"gate": 0.6}, None, False, "0.5 does not reach the gate 0.6"),
        ({"gate": 0.5}, None, True, "first version"),
        ({"gate": 0.4, "mode": "min"}, None, False, "does not reach the gate"),
        ({"gate": 0.6, "mode": "min"}, None, True, "first version"),
        ({"run_id": "", "git_commit": ""}, None, False, "no run id, no commit"),
        ({"manifest_digest": ""}, REIGNING, False, "no manifest digest"),
    ],
)
def test_the_rule(change: dict[str, Any], champion: Standing | None, accepted: bool, reason: str) -> None:
    verdict = judge(dataclasses.replace(FIT, **change), champion)
    assert verdict.accepted is accepted
    assert reason in verdict.reason


def test_a_model_that_answers_otherwise_is_refused_however_good() -> None:
    assert judge(FIT, REIGNING, "it answers otherwise") == registry.Verdict(False, "it answers otherwise")


def test_answers_are_compared_value_by_value() -> None:
    answer = {"boxes": [[1.0, 2.0]], "label": "cat", "n": 1, "none": None}
    assert same_answer(answer, {"boxes": [[1.0004, 2.0]], "label": "cat", "n": 1, "none": None})
    for other in ({"label": "dog"}, {"boxes": [[1.1, 2.0]]}, {"boxes": []}, {"n": 2}, {"none": 0}, {"new": 1}):
        assert not same_answer(answer, {**answer, **other})


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with two ended runs, `r1` and `r2` (their ids in files of these names), and three checkpoints."""
    root = tmp_path_factory.mktemp("registry")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        for name in ("r1", "r2"):
            with tracking.open_run(
                QUIET,
                root=root,
                run_name=name,
                experiment="segmentation",
                params={"a": 1},
                tags={"git_commit": "c"},
                dataset=("toy", "d1", "/data"),
                run_id_file=root / name,
            ):
                pass
    for seed in (1, 2, 3):
        make_checkpoint(root / f"{seed}.ckpt", seed)
    return root


@pytest.fixture
def root(template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return Path(shutil.copytree(template, tmp_path / "project"))


def candidate(root: Path, seed: int = 1, run: str = "r1", **change: Any) -> Candidate:
    run_id = (root / run).read_text()
    return dataclasses.replace(FIT, **{"checkpoint": root / f"{seed}.ckpt", "run_id": run_id, **change})


def register(root: Path, entry: Candidate) -> dict[str, Any]:
    return registry.register(QUIET, entry, root=root, image=IMAGE)


def versions(root: Path) -> list[str]:
    return sorted(str(v.version) for v in connection.connect(QUIET, root).search_model_versions("name = 'm'"))


def answer_in_process(model: Path, image: bytes, question: str | None) -> Any:
    """What `probe` would bring back, without the seconds that a new process takes."""
    (checkpoint,) = (model / "artifacts").glob("*.ckpt")
    predictor = load_predictor(checkpoint)
    return predictor.answer(predictor.predict(image, question))


def test_the_alias_follows_the_rule(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "probe", answer_in_process)
    first = register(root, candidate(root, 1))
    assert (first["decision"], first["champion_version"], first["previous_champion"]) == ("champion", "1", None)
    assert register(root, candidate(root, 1)) == first
    assert versions(root) == ["1"]

    worse = register(root, candidate(root, 2, "r2", value=0.4))
    assert (worse["decision"], worse["version"], worse["champion_version"]) == ("refused", "2", "1")
    better = register(root, candidate(root, 3, "r2", value=0.6))
    assert (better["decision"], better["champion_version"], better["previous_champion"]) == ("champion", "3", "1")

    late = register(root, candidate(root, 1, "r2", value=0.1, manifest_digest="d2"))
    assert (late["decision"], late["version"], late["champion_version"]) == ("champion", "4", "4")
    assert "other data" in late["reason"]
    stored = connection.connect(QUIET, root).get_model_version("m", "2").tags
    assert (stored["decision"], stored["metric_value"]) == ("refused", "0.4")
    assert "not better" in stored["reason"]


def test_another_gate_is_a_new_decision_on_the_same_version(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "probe", answer_in_process)
    refused = register(root, candidate(root, gate=0.9))
    assert (refused["decision"], refused["champion_version"], refused["gate"]) == ("refused", None, 0.9)
    assert register(root, candidate(root, gate=0.2))["champion_version"] == "1"
    lost = register(root, candidate(root, gate=0.9))
    assert (lost["decision"], lost["champion_version"]) == ("refused", None)
    assert versions(root) == ["1"]


def test_a_run_that_this_store_does_not_know_has_no_lineage(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "probe", answer_in_process)
    entry = register(root, candidate(root, run_id="0" * 32, value=None))
    assert (entry["decision"], entry["run_id"], entry["metric_value"]) == ("refused", None, None)
    assert "no run id" in entry["reason"]


def test_a_version_that_fails_the_check_is_refused_and_made_anew(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "probe", lambda *_: {"classes": {}})
    other = register(root, candidate(root))
    assert (other["decision"], other["champion_version"]) == ("refused", None)
    assert "answers otherwise" in other["reason"]
    monkeypatch.setattr(registry, "probe", answer_in_process)
    assert register(root, candidate(root))["champion_version"] == "2"


def test_the_registered_model_is_loaded_without_pickle_from_what_it_ships(root: Path) -> None:
    """The whole way: models-from-code, weights only, shipped code, in a process without Ray, DVC or this folder."""
    entry = register(root, candidate(root))
    assert (entry["decision"], entry["reason"]) == ("champion", "the first version fit to be champion: miou 0.5")
    client = connection.connect(QUIET, root)
    folder = tracking.fetch_signed("models:/m@champion", client, root / "fetched")
    assert not list(folder.rglob("*.pkl"))
    assert {path.name for path in (folder / "code").iterdir()} == {"contracts", "lightning_modules", "pipeline"}
    needed = (folder / "requirements.txt").read_text().split()
    assert all("==" in line and "+" not in line for line in needed)
    assert f"torch=={torch.__version__.partition('+')[0]}" in needed
    logged = client.search_logged_models([client.get_run(entry["run_id"]).info.experiment_id])[0]
    assert (logged.source_run_id, logged.metrics[0].key) == (entry["run_id"], "eval/miou")
    for wrong in ("models:/other@champion", "models:/m/9", f"runs:/{entry['run_id']}/other"):
        with pytest.raises(ConfigError, match=r"(?s)no such model.*models:/m@champion"):
            tracking.fetch_model(wrong, client, root / "wrong")
