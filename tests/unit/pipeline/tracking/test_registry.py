"""Versions in a real store: who becomes champion, and a registered model that answers as its checkpoint does."""

import dataclasses
import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from contracts.errors import ConfigError, DataError
from pipeline.settings.params import Params, load_params
from pipeline.settings.sections import TrackingConfig
from pipeline.settings.train_config import InitConfig
from pipeline.system.project import Project
from pipeline.tracking import connection, registry
from pipeline.tracking import mlflow_run as tracking
from pipeline.tracking.champion import Candidate
from pipeline.tracking.promotion import promote
from pipeline.tracking.registry import same_answer
from pipeline.tracking.start import lay_start
from pipeline.training.run_files import BEGUN, START
from pipeline.training.runs import load_run
from pipeline.training.scores import MEASURED, RESAMPLES, Scores, read_scores
from tests import candidates
from tests.answers import answer_in_process
from tests.local_training import make_checkpoint

QUIET = TrackingConfig(system_metrics=False, flush_s=0.05)
IMAGE = cv2.imencode(".png", np.random.default_rng(0).integers(0, 255, (40, 60, 3), np.uint8))[1].tobytes()
FIT = dataclasses.replace(candidates.FIT, constant=0.0)


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


def ask_here(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Models answer in this process, and ship no code that another would need, which is 500 files."""
    monkeypatch.setattr(registry, "probe", answer_in_process)
    for name in ("lightning_modules", "pipeline"):
        folder = root / "shipped" / name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "__init__.py").touch()
        monkeypatch.setattr(registry, name, SimpleNamespace(__path__=[str(folder)]))


def candidate(root: Path, seed: int = 1, run: str = "r1", **change: Any) -> Candidate:
    run_id = (root / run).read_text()
    return dataclasses.replace(FIT, **{"checkpoint": root / f"{seed}.ckpt", "run_id": run_id, **change})


def never(checkpoint: Path) -> Scores:
    raise AssertionError(f"{checkpoint} need not be measured again")


@pytest.mark.usefixtures("forked_probe")
def test_a_training_starts_from_a_registered_model_whose_version_is_kept(root, tiny_project, tmp_path):
    """An alias is looked up when the training begins; one that moves later changes nothing in it."""
    assert register(root, candidate(root))["decision"] == "champion"
    document = load_params(tiny_project.root).document
    init = {"from": f"models:/{candidates.FIT.model}@champion", "parts": ["backbone"]}
    params = Params({**document, "runs": {"tuned": {**document["runs"]["segmentation"], "init": init}}})
    data, state = load_run(tiny_project, params, "tuned"), tmp_path / "state"
    state.mkdir()
    lay_start(Project(root), data, state)
    begun = json.loads((state / BEGUN).read_text())
    assert begun["uri"] == f"models:/{candidates.FIT.model}/1" and begun["tensors"] == begun["of_tensors"] > 20
    laid, given = (torch.load(path, weights_only=True)["state_dict"] for path in (state / START, root / "1.ckpt"))
    backbone = [name for name in laid if name.startswith("model.backbone.")]
    assert backbone and all(torch.equal(laid[name], given[name]) for name in backbone)
    (state / START).write_bytes(b"as it was laid")
    lay_start(Project(root), data, state)
    assert (state / START).read_bytes() == b"as it was laid"
    other = dataclasses.replace(data.run, init=InitConfig(source="models:/away@champion"))
    with pytest.raises(ConfigError, match="no such model"):
        lay_start(Project(root), dataclasses.replace(data, run=other), tmp_path)


def register(
    root: Path,
    entry: Candidate,
    measure: registry.Measure = never,
    further: Callable[[], str] = str,
    drawn: np.ndarray | None = None,
) -> dict[str, Any]:
    """With the evaluation that says what the candidate does. `drawn`: its metric on the resamples; None: not known."""
    folder = Path(tempfile.mkdtemp(dir=root))
    values = {"miou": 0.1, entry.metric: entry.value}
    document = {
        "metric": entry.metric, "value": entry.value, "metrics": {k: v for k, v in values.items() if v is not None},
        "constant": {} if entry.constant is None else {entry.metric: entry.constant}, "split": "val",
        "dataset": entry.dataset, "manifest_digest": entry.manifest_digest, "split_digest": entry.split_digest,
        "items_sha256": "i",
    }  # fmt: skip
    (folder / MEASURED).write_text(json.dumps(document))
    np.savez(folder / RESAMPLES, allow_pickle=False, **({} if drawn is None else {f"run/{entry.metric}": drawn}))  # type: ignore[arg-type]
    scores = read_scores(folder)
    assert scores is not None
    entry = dataclasses.replace(entry, scores=scores)
    asked: dict[str, Any] = {"inputs": {"image": IMAGE}, "measure": measure, "further": further}
    return registry.register(QUIET, entry, root=root, evaluation=folder, **asked)


def versions(root: Path) -> list[str]:
    return sorted(str(v.version) for v in connection.connect(QUIET, root).search_model_versions("name = 'm'"))


def test_the_alias_follows_the_rule(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ask_here(root, monkeypatch)
    first = register(root, candidate(root, 1))
    assert (first["decision"], first["champion_version"], first["previous_champion"]) == ("champion", "1", None)
    assert register(root, candidate(root, 1)) == first
    assert versions(root) == ["1"]

    worse = register(root, candidate(root, 2, "r2", value=0.4))
    assert (worse["decision"], worse["version"], worse["champion_version"]) == ("refused", "2", "1")
    better = register(root, candidate(root, 3, "r2", value=0.6))
    assert (better["decision"], better["champion_version"], better["previous_champion"]) == ("champion", "3", "1")

    client = connection.connect(QUIET, root)
    stored = client.get_model_version("m", "2").tags
    assert (stored["decision"], stored["metric_value"]) == ("refused", "0.4")
    assert "not better" in stored["reason"]


def test_the_interval_of_the_difference_decides(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ask_here(root, monkeypatch)
    common, own = np.random.default_rng(0).normal(0.5, 0.05, 1000), np.random.default_rng(1).normal(0.01, 0.02, 1000)
    register(root, candidate(root, 1), drawn=common)
    unsure = register(root, candidate(root, 2, "r2", value=0.51), drawn=common + own)
    assert (unsure["decision"], unsure["champion_version"], unsure["forced"]) == ("refused", "1", False)
    assert (
        "0.51 is not better than 0.5 of version 1 on the same data: a gain of 0.01, 95 % interval -0.0"
        in unsure["reason"]
    )
    gain = unsure["gain"]
    assert gain["value"] == pytest.approx(0.01) and gain["low"] < -0.02 and gain["high"] > 0.04
    again = register(root, candidate(root, 2, "r2", value=0.51, min_gain=-0.05), drawn=common + own)
    assert (again["decision"], again["version"], again["champion_version"]) == ("champion", "2", "2")
    sure = register(root, candidate(root, 3, "r2", value=0.56), drawn=common + own + 0.05)
    assert (sure["decision"], sure["champion_version"], sure["min_gain"]) == ("champion", "3", 0.0)
    assert sure["gain"]["low"] > 0.04


def test_what_takes_long_is_asked_last_and_may_refuse(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ask_here(root, monkeypatch)

    def slow() -> str:
        return "one prediction takes 90 ms on this machine, and registry.max_latency_ms is 50"

    def unasked() -> str:
        raise AssertionError("the score speaks against it already")

    refused = register(root, candidate(root, 1, conditions={"max_latency_ms": 50.0}), further=slow)
    assert (refused["decision"], refused["reason"], refused["champion_version"]) == ("refused", slow(), None)
    register(root, candidate(root, 1, conditions={"max_latency_ms": 100.0}))
    assert register(root, candidate(root, 2, "r2", value=0.4), further=unasked)["decision"] == "refused"


def test_a_version_is_promoted_against_the_gate_with_who_and_why(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ask_here(root, monkeypatch)
    monkeypatch.chdir(root)
    register(root, candidate(root, 1))
    worse = register(root, candidate(root, 2, "r2", value=0.4))
    with pytest.raises(ConfigError, match="no reason is given"):
        promote(Project(root), "m/2", why=" ")
    done = promote(Project(root), "m/2", why="the old one fails on night pictures", by="ada@example.org")
    assert (done["version"], done["previous_champion"]) == ("2", "1")
    client = connection.connect(QUIET, root)
    version = client.get_model_version("m", "2")
    assert client.get_registered_model("m").aliases == {"champion": 2}
    told = "promoted by ada@example.org on 20"
    assert told in version.description and version.tags["forced"] == "ada@example.org"
    assert "the old one fails on night pictures (the gate had said: " + worse["reason"] in version.tags["reason"]
    assert client.get_run((root / "r2").read_text()).data.tags["champion"] == "yes"
    entry = register(root, candidate(root, 2, "r2", value=0.4))
    assert (entry["decision"], entry["forced"]) == ("champion", True), "asked with the same facts it stays"
    with pytest.raises(ConfigError, match="champion already"):
        promote(Project(root), "m/2", why="again")
    with pytest.raises(ConfigError, match=r"(?s)no such version.*1, 2"):
        promote(Project(root), "m/7", why="it is better")
    with pytest.raises(ConfigError, match="names no version"):
        promote(Project(root), str(root / "1.ckpt"), why="it is better")


def test_a_version_that_answers_otherwise_cannot_be_promoted(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "probe", lambda *_: {"classes": {}})
    register(root, candidate(root))
    with pytest.raises(ConfigError, match=r"(?s)does not answer as its checkpoint.*register@m"):
        promote(Project(root), "m/1", why="it is better")


def test_a_decision_is_told_at_the_version_and_at_every_run(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ask_here(root, monkeypatch)
    client = connection.connect(QUIET, root)
    first, second = ((root / run).read_text() for run in ("r1", "r2"))
    register(root, candidate(root, 1))
    assert client.get_run(first).data.tags["champion"] == "yes"
    register(root, candidate(root, 2, "r2", value=0.4, changed=tuple(f"pipeline/file_{i}.py" for i in range(50))))
    assert (client.get_run(first).data.tags["champion"], client.get_run(second).data.tags["champion"]) == ("yes", "no")
    refused = client.get_model_version("m", "2")
    reason = refused.tags["reason"]
    assert "pipeline/file_0.py" in reason and "pipeline/file_49.py" in reason, "never cut"
    described = refused.description
    assert f"not champion: {reason}" in described and f"/runs/{second})" in described
    assert described.startswith("**miou 0.4** (a constant predictor: 0) on split val of voc (manifest d1)")
    assert f"not champion: {reason}" in client.get_run(second).data.tags["mlflow.note.content"]
    register(root, candidate(root, 3, "r2", value=0.6))
    assert (client.get_run(first).data.tags["champion"], client.get_run(second).data.tags["champion"]) == ("no", "yes")


def test_more_training_data_leave_the_yardstick_as_it_is(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ask_here(root, monkeypatch)
    assert register(root, candidate(root, 1, value=0.55))["decision"] == "champion"
    worse = register(root, candidate(root, 2, "r2", value=0.01, manifest_digest="d2"))
    assert (worse["decision"], worse["champion_version"]) == ("refused", "1")
    assert "0.01 is not better than 0.55 of version 1 on the same data" in worse["reason"]


def test_where_the_split_changed_the_champion_is_measured_on_the_new_one(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask_here(root, monkeypatch)
    register(root, candidate(root, 1, value=0.9))
    measured: list[bytes] = []

    def measure(checkpoint: Path) -> Scores:
        measured.append(checkpoint.read_bytes())
        return Scores(values={"miou": 0.3, "accuracy": 0.9})

    new = {"split_digest": "s2", "manifest_digest": "d2"}
    worse = register(root, candidate(root, 2, "r2", value=0.25, **new), measure)
    assert (worse["decision"], worse["champion_version"]) == ("refused", "1")
    assert "not better than 0.3 of version 1 on the same data, measured again there" in worse["reason"]
    assert measured == [(root / "1.ckpt").read_bytes()], "its own weights, fetched from the store"
    better = register(root, candidate(root, 3, "r2", value=0.35, **new), measure)
    assert (better["decision"], better["champion_version"]) == ("champion", "3")
    other = register(root, candidate(root, 1, "r2", metric="accuracy", value=0.2, **new), measure)
    assert (other["decision"], len(measured)) == ("refused", 3), "by another metric on the same data, too"
    last = register(root, candidate(root, 2, "r1", value=0.3, **new))
    assert (last["decision"], last["champion_version"]) == ("refused", "3"), "the new one ships what it did there"


def test_a_champion_whose_weights_cannot_be_measured_makes_way(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ask_here(root, monkeypatch)

    def refuse(checkpoint: Path) -> Scores:
        raise DataError("its classes are others than this data's")

    register(root, candidate(root, 1, value=0.9))
    late = register(root, candidate(root, 2, value=0.2, split_digest="s2"), refuse)
    assert (late["decision"], late["champion_version"]) == ("champion", "2")
    assert "version 1 cannot be compared: it cannot be measured on this data: its classes are others" in late["reason"]
    for file in root.glob("mlartifacts/**/*.ckpt"):
        file.unlink()
    gone = register(root, candidate(root, 3, value=0.1, split_digest="s3"))
    assert (gone["decision"], gone["champion_version"]) == ("champion", "3")
    assert "version 2 cannot be compared" in gone["reason"]


def test_a_store_that_does_not_answer_is_no_reason_to_dethrone(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ask_here(root, monkeypatch)
    register(root, candidate(root, 1, value=0.9))

    def away(uri: str, *args: Any) -> Path:
        assert uri == "models:/m/1"
        raise ConfigError("MLflow does not answer")

    monkeypatch.setattr(registry, "fetch_artifacts", away)
    with pytest.raises(ConfigError, match="does not answer"):
        register(root, candidate(root, 2, value=0.2, split_digest="s2"))
    assert connection.connect(QUIET, root).get_registered_model("m").aliases == {"champion": 1}


def test_another_gate_is_a_new_decision_on_the_same_version(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ask_here(root, monkeypatch)
    refused = register(root, candidate(root, gate=0.9))
    assert (refused["decision"], refused["champion_version"], refused["gate"]) == ("refused", None, 0.9)
    assert register(root, candidate(root, gate=0.2))["champion_version"] == "1"
    lost = register(root, candidate(root, gate=0.9))
    assert (lost["decision"], lost["champion_version"]) == ("refused", None)
    assert versions(root) == ["1"]


def test_a_run_that_this_store_does_not_know_has_no_lineage(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ask_here(root, monkeypatch)
    entry = register(root, candidate(root, run_id="0" * 32, value=None))
    assert (entry["decision"], entry["run_id"], entry["metric_value"]) == ("refused", None, None)
    assert "no run id" in entry["reason"]


def test_a_version_that_fails_the_check_is_refused_and_made_anew(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "probe", lambda *_: {"classes": {}})
    other = register(root, candidate(root))
    assert (other["decision"], other["champion_version"]) == ("refused", None)
    assert "answers otherwise" in other["reason"]
    ask_here(root, monkeypatch)
    assert register(root, candidate(root))["champion_version"] == "2"


@pytest.mark.usefixtures("forked_probe")
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
    assert (logged.source_run_id, logged.metrics[0].key) == (entry["run_id"], "val/miou")
    for wrong in ("models:/other@champion", "models:/m/9", f"runs:/{entry['run_id']}/other"):
        with pytest.raises(ConfigError, match=r"(?s)no such model.*models:/m@champion"):
            tracking.fetch_model(wrong, client, root / "wrong")
