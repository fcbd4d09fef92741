"""What `evaluate` reports: every number with what it is and how sure it is, the same in JSON and for MLflow."""

from __future__ import annotations

import json
import math

import pytest

from pipeline.checkpoints import BEST, load_best
from pipeline.evaluation import Evaluation
from pipeline.params import load_params
from pipeline.resume import decided
from pipeline.runs import load_run
from pipeline.training import fit
from tests.local_training import arguments

pytestmark = pytest.mark.filterwarnings("default")  # Lightning's own deprecations are not ours to fail on


@pytest.fixture(scope="module")
def evaluation(tiny_project, tmp_path_factory) -> Evaluation:
    data = load_run(tiny_project, load_params(tiny_project.root), "segmentation")
    plain = data.run.to_dict()
    plain["train"]["max_epochs"] = 1
    state, shards = tmp_path_factory.mktemp("state"), tiny_project.shards("voc")
    fit(run=plain, data=data.spec.to_dict(), shards=str(shards), state=str(state))
    return Evaluation(state / BEST, shards)


def test_a_run_keeps_the_precision_that_it_began_with(tiny_project, tmp_path, monkeypatch):
    """Trained where bf16 is fast, gone on with and measured where it is not."""
    from pipeline import training

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


def test_numbers_are_computed_in_float64_from_the_gathered_predictions(evaluation):
    module = evaluation.module
    assert evaluation.metrics == module.task.score(module.predictions, module.truths)


def test_mlflow_gets_the_same_numbers(evaluation):
    logged, document = evaluation.logged(), evaluation.document("seg")
    for entry in document["measured"]:
        name = entry["name"]
        shown = [logged[f"{kind}/{name}"] for kind in ("eval", "eval_low", "eval_high", "constant")]
        assert shown == [entry["value"], *entry["interval_95"], document["constant"][name]]


def test_a_model_that_finds_nothing_is_told_without_an_interval(evaluation, monkeypatch):
    assert f"mean_iou {evaluation.metrics['mean_iou']:.4f} (95 % interval" in evaluation.summary()
    monkeypatch.setattr(evaluation, "intervals", {})
    monkeypatch.setattr(evaluation, "metrics", {"mean_iou": math.nan})
    assert "mean_iou nan (95 % interval nan to nan) on 11 images" in evaluation.summary()
