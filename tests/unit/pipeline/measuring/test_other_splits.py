"""`sightline evaluate`: any split of any data set, in a file of its own; what does not fit is told."""

from __future__ import annotations

import json
import re
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from contracts.records import DataSpec
from pipeline.measuring.evaluation import Evaluation
from pipeline.settings.params import load_params
from pipeline.stages.evaluate import evaluate
from pipeline.system.project import Project, write_json
from pipeline.training.checkpoints import build_module, file_sha256, load_best, save_best
from pipeline.training.runs import load_run
from tests.command import sightline
from tests.conftest import _made

pytestmark = pytest.mark.filterwarnings("default")  # Lightning's and MLflow's own

SHARED = {
    "train": {"batch_size": 8, "eval_batch_size": 8, "num_pictures": 1, "precision": "32-true"},
    "shards": {"samples": 16},
    "cluster": {"engine": "local", "num_workers": 1},
    "tracking": {"system_metrics": False},
}


def draw(folder: Path, split: str, number: int, classes: tuple[str, ...] = ("lying", "standing", "plain")) -> None:
    generator = np.random.default_rng([number, len(split)])
    for i in range(number):
        path = folder / split / classes[i % len(classes)] / f"{split}-{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(generator.integers(0, 256, (32, 32, 3), np.uint8)).save(path)


def write_texts(folder: Path, words: str, names: tuple[str, str]) -> None:
    folder.mkdir()
    for split in ("train", "val"):
        pairs = zip(("sky", "sea"), names, strict=True)
        lines = [f"__label__{label} {words} {name}" for label, name in pairs for _ in range(3)]
        (folder / f"{split}.txt").write_text("\n".join(lines) + "\n")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """`flags` with a test split, `other` of the same classes without, `strange` with others; texts in two languages.
    Runs `clf` and `texts` as if they had been trained."""
    folder = tmp_path_factory.mktemp("splits")
    for name, splits in (("flags", (("train", 9), ("val", 6), ("test", 12))), ("other", (("train", 6), ("val", 9)))):
        for split, number in splits:
            draw(folder / name, split, number)
    for split in ("train", "val"):
        draw(folder / "strange", split, 6, ("lying", "standing", "wavy"))
    write_texts(folder / "english", "the clouds are in the", ("sky", "sea"))
    write_texts(folder / "german", "wolken ziehen am", ("himmel", "meer"))
    images = {"sources": {"image_folder": {}}, "max_shared": 100}
    texts = {"sources": {"labeled_text": {}}, "max_shared": 100}
    sources = {"flags": images, "other": images, "strange": images, "english": texts, "german": texts}
    classifier = {"task": {"name": "classification", "image_size": 32}, "model": {"name": "image_classifier"}}
    reader = {"task": {"name": "text_classification"}, "model": {"name": "recurrent_classifier"}}
    document = {
        **SHARED,
        "datasets": {name: {"origin": "local", "input": name, **source} for name, source in sources.items()},
        "runs": {
            "clf": {"dataset": "flags", **classifier},
            "not-trained": {"dataset": "flags", **classifier},
            "reader": {"dataset": "english", **reader},
        },
    }
    project = _made(folder, document)
    for run in ("clf", "reader"):
        pretend_trained(project, run)
    return project


def pretend_trained(project: Project, name: str) -> None:
    data = load_run(project, load_params(project.root), name)
    torch.manual_seed(3)
    module = build_module(data.run.to_dict(), data.spec)
    for parameter in module.model.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter)  # the last layer starts at zero, where all classes are equal
    folder = project.artifacts(name)
    folder.mkdir(parents=True)
    save_best(folder / "best.ckpt", run=data.run.to_dict(), data=data.spec, weights=module.state_dict(), info={})
    digests = dict.fromkeys(("code", "fingerprint"), "0" * 64)
    record = {"run_id": "1", "git_commit": "", "git_changed": [], **digests}
    record |= {"manifest_digest": data.manifest["digest"], "checkpoint_sha256": file_sha256(folder / "best.ckpt")}
    write_json(folder / "run.json", record)


@pytest.fixture
def project(made: Project, monkeypatch: pytest.MonkeyPatch) -> Project:
    monkeypatch.chdir(made.root)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return made


def read(project: Project, name: str) -> dict[str, Any]:
    return json.loads((project.root / "metrics" / "other" / f"{name}.json").read_text())


def test_a_run_on_its_test_split(project: Project, capsys: pytest.CaptureFixture) -> None:
    """Of a data set that has one it is what is measured; value, interval and constant predictor, in file and words."""
    assert sightline("evaluate", ["clf"]) == 0
    document = read(project, "clf-flags-test")
    expected = Evaluation(project.artifacts("clf") / "best.ckpt", project.shards("flags"), "test")
    assert document == {"model": "clf", **json.loads(json.dumps(expected.document("clf")))}
    assert (document["split"], document["num_samples"]) == ("test", 12)
    (top1, *_) = document["measured"]
    low, high = top1["interval_95"]
    assert low < top1["value"] < high and top1["gain_interval_95"][0] < 0 and document["constant"]["top1"] == 4 / 12
    out = capsys.readouterr().out
    (row,) = re.findall(r"^ *top1 +(\S+) +(\S+) +(\S+) +(\S+)", out, re.MULTILINE)
    assert row == tuple(f"{number:.4f}" for number in (top1["value"], low, high, 4 / 12))
    assert re.search(r"metric +value +low +high +constant", out)
    assert "12 samples" in out and "metrics/other/clf-flags-test.json" in out


def test_another_data_set_by_its_val_split_and_what_git_sees(project: Project, tmp_path: Path) -> None:
    subprocess.run(["git", "init", "-q", str(project.root)], check=True)
    assert sightline("evaluate", ["clf", "--dataset", "other", "--out", str(tmp_path / "kept")]) == 0
    document = read(project, "clf-other-val")
    assert (document["dataset"], document["split"], document["num_samples"]) == ("other", "val", 9)
    assert len((tmp_path / "kept" / "predictions.jsonl").read_text().splitlines()) == 9
    assert (tmp_path / "kept" / "plots" / "class_accuracy.png").is_file()
    status = ["git", "-C", str(project.root), "status", "--porcelain", "--untracked-files=all", "--", "metrics"]
    assert subprocess.run(status, capture_output=True, text=True, check=True).stdout == ""


def test_a_checkpoint_by_its_file(project: Project) -> None:
    assert sightline("evaluate", ["artifacts/clf/best.ckpt", "--split", "val"]) == 0
    document = read(project, "clf-best-flags-val")
    assert (document["model"], document["run"], document["split"]) == ("artifacts/clf/best.ckpt", "clf", "val")


def test_a_registered_model_by_alias_and_version(project: Project, capsys: pytest.CaptureFixture) -> None:
    from pipeline.tracking import connection, registry
    from pipeline.tracking.names import tracking_config
    from tests.candidates import FIT

    config = tracking_config(project)
    client = connection.connect(config, project.tracking_root)
    checkpoint = project.artifacts("clf") / "best.ckpt"
    candidate = replace(FIT, model="flagger", run_id="", task="classification", checkpoint=checkpoint)
    with connection.process_wide(client.tracking_uri):
        experiment = registry.experiment_id(client, config, project.root, "classification")
        facts = registry._facts(candidate)
        version = registry._add_version(client, candidate, facts, experiment)
        client.set_registered_model_alias("flagger", "champion", version.version)
    for given in ("flagger", "flagger@champion", "flagger/1"):
        (project.root / "metrics" / "other" / "flagger-v1-flags-val.json").unlink(missing_ok=True)
        assert sightline("evaluate", [given, "--split", "val"]) == 0
        assert read(project, "flagger-v1-flags-val")["model"] == "models:/flagger/1"
    capsys.readouterr()
    for given, said in (
        ("flagger@best", ["no such model", "models:/flagger@champion"]),
        ("flagger/7", ["no such model"]),
        ("nobody", ["no such trained run or registered model: 'nobody'", "clf, reader", "models:/flagger@champion"]),
    ):
        assert sightline("evaluate", [given]) == 2
        err = capsys.readouterr().err
        assert all(text in err for text in said), err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["clf", "--dataset", "nosuch"], ["no such data set: 'nosuch'", "flags, german, other, strange"]),
        (["clf", "--dataset", "other", "--split", "test"], ["has no such split: 'test'", "train, val"]),
        (["clf", "--split", "dev"], ["'dev' is not one of"]),
        (["clf", "--dataset", "strange"], ["classes of data set strange", "lacking plain; new wavy", "lying, plain"]),
        (["clf", "--dataset", "german"], ["classes of data set german"]),
        (["reader", "--dataset", "german"], ["knows no word of the texts of data set german", "wolken"]),
        (["missing.ckpt"], ["no such checkpoint file: 'missing.ckpt'"]),
        (["not-trained@"], ["no such trained run: 'not-trained@'", "clf, reader", "name@alias"]),
    ],
)
def test_what_does_not_fit_is_told(
    project: Project, capsys: pytest.CaptureFixture, arguments: list[str], said: list[str]
) -> None:
    before = sorted((project.root / "metrics").rglob("*"))
    assert sightline("evaluate", arguments) == 2
    err = capsys.readouterr().err
    assert all(text in err for text in said), err
    assert sorted((project.root / "metrics").rglob("*")) == before


def test_a_data_set_that_is_not_sharded_yet(
    project: Project, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(Project, "shards", lambda self, dataset: tmp_path / dataset)
    assert sightline("evaluate", ["clf", "--dataset", "other"]) == 2
    assert "not sharded yet: 'other'" in (err := capsys.readouterr().err) and "dvc repro shard@other" in err


def test_words_that_the_model_does_not_know_are_counted(project: Project, capsys: pytest.CaptureFixture) -> None:
    from pipeline.measuring.other_splits import check_fit

    document = load_best(project.artifacts("reader") / "best.ckpt")
    data = DataSpec.from_dict(document["data"])
    few = {name: [pair for pair in pairs if pair[0] != "clouds"] for name, pairs in data.vocabulary.items()}
    document["data"] = DataSpec(dataset="elsewhere", classes=data.classes, vocabulary=few).to_dict()
    (note,) = check_fit(document, project, "english")
    words = [word for label in ("sky", "sea") for _ in range(3) for word in f"the clouds are in the {label}".split()]
    assert note.startswith(f"{words.count('clouds') / len(words):.1%} of the texts of english")
    assert check_fit({**document, "data": data.to_dict()}, project, "english") == []


def test_weights_that_this_code_cannot_load_are_told(project: Project, tmp_path: Path, capsys: Any) -> None:
    document = load_best(project.artifacts("clf") / "best.ckpt")
    document["state_dict"].pop("model.classify.weight")
    data = DataSpec.from_dict(document["data"])
    save_best(tmp_path / "cut.ckpt", run=document["run"], data=data, weights=document["state_dict"], info={})
    assert sightline("evaluate", [str(tmp_path / "cut.ckpt")]) == 2
    assert "cannot load these weights" in (err := capsys.readouterr().err) and "classify.weight" in err


def test_the_stage_reports_test_beside_val(
    project: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """What is chosen by stays val's; where there is no test split, or no truth on it, nothing changes."""
    from pipeline.tracking import mlflow_run

    logged: dict[str, float] = {}
    monkeypatch.setattr(mlflow_run, "log_results", lambda config, **given: logged.update(given["metrics"]))
    evaluate(project, load_params(project.root), "clf")
    document, headline = (json.loads(file("clf").read_text()) for file in (project.measured, project.metrics))
    best, shards = project.artifacts("clf") / "best.ckpt", project.shards("flags")
    val, test = (Evaluation(best, shards, split) for split in ("val", "test"))
    assert document == json.loads(json.dumps(val.document("clf", test)))
    assert (document["split"], document["value"]) == ("val", val.metrics["top1"])
    assert document["test"]["metrics"] == test.metrics and document["test"]["num_samples"] == 12
    assert document["test"]["measured"][0]["interval_95"] == list(test.intervals["top1"])
    assert logged["val/top1"] == val.metrics["top1"] and logged["test/top1"] == test.metrics["top1"]
    named = {f"{one.split}/{name}": value for one in (val, test) for name, value in one.metrics.items()}
    assert logged == named, "MLflow gets all numbers, by the names that training gives them"
    assert (headline["value"], headline["test"]["value"]) == (val.metrics["top1"], test.metrics["top1"])
    assert headline["test"]["low"] == test.intervals["top1"][0]
    said = capsys.readouterr().out
    assert "6 samples of val" in said and "12 samples of test" in said
    lines = project.predictions("clf").read_text().splitlines()
    assert len(lines) == 6, "predictions and plots are val's"
    evaluate(project, load_params(project.root), "reader")
    assert "test" not in json.loads(project.metrics("reader").read_text())


def test_a_test_split_without_truth_is_not_measured(
    project: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    from pipeline.measuring import evaluation
    from pipeline.training.checkpoints import load_module

    best, shards, run = (
        project.artifacts("clf") / "best.ckpt",
        project.shards("flags"),
        load_params(project.root).run("clf"),
    )
    task = load_module(best)[0].task
    assert evaluation.on_test(best, project.shards("other"), task, now=run) is None
    assert capsys.readouterr().out == ""
    monkeypatch.setattr(evaluation.Evaluation, "has_truth", False)
    assert evaluation.on_test(best, shards, task, now=run) is None
    assert "test split is not measured, as no truth is known" in capsys.readouterr().out
    manifest = evaluation.load_manifest(shards)
    del manifest["splits"]["test"]["totals"]["num_labels"]
    monkeypatch.setattr(evaluation, "load_manifest", lambda folder: manifest)
    assert evaluation.on_test(best, shards, task, now=run) is None
    assert "none of its samples has num_labels" in capsys.readouterr().out
    monkeypatch.setattr(task, "requires", ("num_frames",))  # of this run's settings
    assert evaluation.lacking(manifest, "val", task) == ["num_frames"]
