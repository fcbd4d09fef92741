"""What `evaluate` reports: every number with what it is and how sure it is, the same in JSON and for MLflow."""

from __future__ import annotations

import base64
import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest

from lightning_modules.augment.images import decode_semantic
from lightning_modules.metrics.paired import difference
from pipeline.measuring.evaluation import Evaluation
from pipeline.measuring.keeping import keep
from pipeline.measuring.report import gather
from pipeline.measuring.sources import find
from pipeline.settings.params import load_params
from pipeline.system.project import Project, write_json
from pipeline.training.checkpoints import BEST, load_best
from pipeline.training.fit import fit
from pipeline.training.history import copy_events
from pipeline.training.predictor import load_predictor
from pipeline.training.resume import decided
from pipeline.training.run_files import EVENTS, RECORD
from pipeline.training.runs import load_run
from tests.local_training import arguments

pytestmark = pytest.mark.filterwarnings("default")  # Lightning's own deprecations are not ours to fail on


@pytest.fixture(scope="module")
def best(tiny_project, tmp_path_factory) -> Path:
    """The best checkpoint of a short training."""
    data = load_run(tiny_project, load_params(tiny_project.root), "segmentation")
    plain = data.run.to_dict()
    plain["train"] |= {"max_epochs": 8, "validate_every_epochs": 8, "num_pictures": 0}
    plain["train"]["optimizer"]["lr"] = 3e-3
    state, shards = tmp_path_factory.mktemp("state"), tiny_project.shards("voc")
    fit(run=plain, data=data.spec.to_dict(), shards=str(shards), state=str(state))
    return state / BEST


@pytest.fixture(scope="module")
def evaluation(tiny_project, best) -> Evaluation:
    return Evaluation(best, tiny_project.shards("voc"))


def test_a_short_training_beats_the_constant_predictor(evaluation):
    """Forty images of 64 px: what learns nothing stays at or below background everywhere."""
    assert evaluation.metrics["mean_iou"] > 1.4 * evaluation.constant["mean_iou"] > 0.1
    shares = np.bincount(
        np.concatenate([decode_semantic(t["label_map"]).ravel() for t in evaluation.module.truths.values()])
    )[:-1]
    shares = shares[shares > 0] / shares.sum()
    assert evaluation.losses["loss"] < 0.8 * -np.sum(shares * np.log(shares)), "the loss of who knows the shares alone"


def test_a_run_keeps_the_precision_that_it_began_with(tiny_project, tmp_path, monkeypatch):
    """Trained where bf16 is fast, gone on with and measured where it is not."""
    from pipeline.training import fit as training

    started = arguments(tiny_project, tmp_path, max_epochs=1, precision="auto")
    monkeypatch.setattr(training, "fast_precision", lambda use_gpu: "bf16-mixed")
    fit(**started)
    monkeypatch.setattr(training, "fast_precision", lambda use_gpu: "32-true")
    started["run"]["train"]["max_epochs"] = 2
    fit(**started)
    assert load_best(tmp_path / BEST)["run"]["train"]["precision"] == "bf16-mixed"
    assert decided(tmp_path)["precision"] == "bf16-mixed"
    evaluated = Evaluation(tmp_path / BEST, tiny_project.shards("voc"))
    assert evaluated.module.trainer.precision == "bf16-mixed"


def test_each_number_says_what_it_is(evaluation):
    document = evaluation.document("seg")
    json.dumps(document, allow_nan=False)
    described = {entry["name"]: entry for entry in document["measured"]}
    assert described.keys() == document["metrics"].keys() and len(described) == 4
    for name, entry in described.items():
        assert entry["value"] == document["metrics"][name] == evaluation.metrics[name]
        low, high = entry["interval_95"]
        assert 0 <= low <= high <= 1
        assert entry["gain_over_constant"] == entry["value"] - document["constant"][name]
        assert entry["gain_interval_95"][0] <= entry["gain_interval_95"][1]
        assert (entry["split"], entry["num_items"], entry["unit"]) == ("val", 11, "images")
        assert "255 ignored" in entry["variant"] and entry["source"].startswith("sightline ")
    assert document["value"] == document["metrics"]["mean_iou"]
    assert document["losses"]["loss"] > 0


def test_the_headline_fits_a_line_and_says_the_same(evaluation):
    """What `dvc metrics show` prints of a run: five short fields, no further."""
    headline, document = evaluation.headline(), evaluation.document("seg")
    entry = next(entry for entry in document["measured"] if entry["name"] == document["metric"])
    constant = document["constant"]["mean_iou"]
    assert list(headline.items()) == [
        ("metric", "mean_iou"), ("value", entry["value"]), ("low", entry["interval_95"][0]),
        ("high", entry["interval_95"][1]), ("constant", constant),
    ]  # fmt: skip


def test_what_is_kept_of_a_run_is_all_that_a_page_needs(tiny_project, evaluation, best, tmp_path):
    """Written as the stage does, read as `sightline report` does: resamples give the interval again."""
    project = Project(tmp_path)
    project.artifacts("seg").mkdir(parents=True)
    shutil.copy(best, project.artifacts("seg") / BEST)
    copy_events(best.parent / EVENTS, project.artifacts("seg") / EVENTS)
    record = {"training": {"step": 40, "epochs": 8}, "cost": {"time_s": 9.0}}
    write_json(project.artifacts("seg") / RECORD, record)
    keep(evaluation, project, "seg", evaluation.pictures(2))
    (tmp_path / "params.yaml").write_text("runs: {seg: {}}")
    (group,) = gather(find(project, ["seg"]))
    run, constant = group["runs"]
    assert (group["task"], group["dataset"], group["split"]) == ("segmentation", "voc", "val")
    value, low, high = run["values"]["mean_iou"]
    drawn = np.frombuffer(base64.b64decode(run["drawn"]["mean_iou"]), "<f4")
    assert value == evaluation.metrics["mean_iou"]
    assert np.quantile(drawn, (0.025, 0.975)) == pytest.approx([low, high], abs=1e-6)
    alone = np.frombuffer(base64.b64decode(constant["drawn"]["mean_iou"]), "<f4")
    gain = next(e for e in evaluation.document("seg")["measured"] if e["name"] == "mean_iou")
    found = difference((value, constant["values"]["mean_iou"][0]), (drawn, alone))
    assert [found.low, found.high] == pytest.approx(gain["gain_interval_95"], abs=1e-6), "paired, as it was measured"
    assert run["curves"]["val/mean_iou"][-1] == [39, pytest.approx(evaluation.metrics["mean_iou"], abs=1e-3)]
    assert run["cost"]["num_parameters"] == sum(p.numel() for p in evaluation.module.parameters())
    assert run["cost"]["checkpoint_bytes"] == best.stat().st_size and run["cost"]["time_s"] == 9
    assert run["settings"]["train.max_epochs"] == 8 and run["settings"]["model_name"] == "fcn"
    assert len(run["pictures"]) == 2 and {table["name"] for table in run["tables"]} >= {"errors", "confusion"}
    names = sorted(path.name for path in project.curves("seg").iterdir())
    assert names == ["train_loss.csv", "val_loss.csv", "val_mean_iou.csv"]
    assert (project.curves("seg") / "val_mean_iou.csv").read_text().splitlines()[0] == "step,value"


def test_numbers_are_those_of_the_checkpoints_predictions_in_float64(tiny_project, evaluation, best):
    """By hand: each image of the split predicted by itself, and the definitions of VOC's intersection over union."""
    predictor, data = load_predictor(best), evaluation.data
    pairs: list[np.ndarray] = []
    for key in data.eval_keys("val"):
        record = data.record("val", key)
        (prediction,) = predictor.predict(predictor.record({"image": record.image}))
        predicted = decode_semantic(prediction["label_map"])
        np.testing.assert_array_equal(predicted, decode_semantic(evaluation.module.predictions[key]["label_map"]))
        truth = decode_semantic(record.semantic_mask)
        pairs.append(np.stack([truth[truth != 255], predicted[truth != 255]]))
    truth, predicted = np.concatenate(pairs, axis=1)
    ious = [
        np.sum((truth == c) & (predicted == c)) / np.sum((truth == c) | (predicted == c))
        for c in range(len(evaluation.module.task.class_names))
        if np.any((truth == c) | (predicted == c))
    ]
    assert evaluation.metrics["mean_iou"] == pytest.approx(np.mean(ious), rel=1e-12)
    assert evaluation.metrics["pixel_accuracy"] == pytest.approx(np.mean(truth == predicted), rel=1e-12)


def test_a_model_that_finds_nothing_is_told_without_an_interval(evaluation, monkeypatch):
    assert f"mean_iou {evaluation.metrics['mean_iou']:.4f} (95 % interval" in evaluation.summary()
    monkeypatch.setattr(evaluation, "intervals", {})
    monkeypatch.setattr(evaluation, "metrics", {"mean_iou": math.nan})
    assert "mean_iou nan (95 % interval nan to nan) on 11 samples" in evaluation.summary()
