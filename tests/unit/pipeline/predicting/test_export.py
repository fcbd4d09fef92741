"""`sightline export`: what it writes, compares, and refuses."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

from contracts.errors import ConfigError
from lightning_modules.base.families import ClassifierSpec
from pipeline.predicting import parity
from pipeline.predicting.conditions import export_worse
from pipeline.predicting.graphs._family import largest_difference
from pipeline.predicting.graphs._refused import reason_for
from pipeline.predicting.graphs.detector import detection_differences, detections_of
from pipeline.predicting.parity import Parity, compare, export_model, export_parity, read_records
from pipeline.settings.params import load_params
from pipeline.training import checkpoints
from pipeline.training.checkpoints import build_module, load_module, save_best
from pipeline.training.runs import load_run
from tests.command import sightline

NUM = 6  # samples: small ones take no time, fewer are a single batch


@pytest.fixture(scope="module")
def checkpoint(tiny_project, tmp_path_factory) -> Path:
    """An untrained segmentation run on the tiny project's data."""
    data = load_run(tiny_project, load_params(tiny_project.root), "segmentation")
    torch.manual_seed(0)
    weights = build_module(data.run.to_dict(), data.spec).state_dict()
    path = tmp_path_factory.mktemp("export") / "best.ckpt"
    save_best(path, run=data.run.to_dict(), data=data.spec, weights=weights, info={})
    return path


@pytest.fixture(scope="module")
def made(tiny_project, checkpoint, tmp_path_factory) -> tuple[int, Path]:
    """Exit code and folder of the command."""
    out = tmp_path_factory.mktemp("made") / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tiny_project.root)
        return sightline("export", [str(checkpoint), "--to", "onnx", "--out", str(out), "--samples", str(NUM)]), out


def test_it_writes_a_file_that_runs_alone_and_says_what_torch_says(made, checkpoint):
    code, out = made
    told = json.loads((out / "export.json").read_text())
    assert code == 0 and sorted(path.name for path in out.iterdir()) == ["export.json", "model.onnx"]
    session = onnxruntime.InferenceSession(str(out / "model.onnx"))
    images = np.random.default_rng(0).integers(
        0, 256, (3, 3, told["images"]["height"], told["images"]["width"]), np.uint8
    )
    (logits,) = session.run(None, {"images": images})
    module, _ = load_module(checkpoint)
    with torch.inference_mode():
        np.testing.assert_allclose(logits, module.model(torch.from_numpy(images)).numpy(), atol=1e-4)
    assert told["checkpoint_sha256"] == checkpoints.file_sha256(checkpoint)
    assert told["files"]["model.onnx"]["sha256"] == checkpoints.file_sha256(out / "model.onnx")
    assert told["files"]["model.onnx"]["inputs"][0]["shape"] == ["batch", *images.shape[1:]]
    assert told["classes"] == list(module.task.data.classes)


def test_it_tells_parity_and_latency(made):
    told = json.loads((made[1] / "export.json").read_text())
    parity = told["parity"]
    assert parity["num_samples"] == NUM and parity["split"] == "val" and parity["holds"]
    assert parity["metrics"][parity["metric"]]["torch"] == parity["metrics"][parity["metric"]]["onnx"]
    assert set(parity["largest_difference"]) == {"logits"} and parity["largest_difference"]["logits"] < 1e-3
    assert [row["batch"] for row in told["latency"]["rows"]] == [1, 8]
    assert all(row["torch_ms"] > 0 and row["onnx_ms"] > 0 for row in told["latency"]["rows"])


def test_a_graph_of_other_numbers_is_found_out(tiny_project, checkpoint, tmp_path):
    module, _ = load_module(checkpoint)
    exported = export_model(module, "fcn", tmp_path)
    right = exported.stand.run
    exported.stand.run = lambda *inputs: [-logits for logits in right(*inputs)]
    records = read_records(tiny_project.shards("voc"), "val", module.task, NUM)
    parity = compare(module, exported, records, "val")
    assert parity.differences["logits"] > 1e-2 and not parity.holds()


def test_a_gate_gets_both_values(tiny_project, checkpoint):
    own, other = export_parity(checkpoint, tiny_project.shards("voc"), "val", "pixel_accuracy", samples=NUM)
    assert 0 < own <= 1 and own == pytest.approx(other, abs=1e-4)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--split", "test"], "no such split"),
        (["--to", "tflite"], "'tflite' is not"),
        (["--out", "params.yaml"], "file"),
    ],
)
def test_what_cannot_be_done_is_told_with_2(tiny_project, checkpoint, monkeypatch, capsys, arguments, said):
    monkeypatch.chdir(tiny_project.root)
    before = sorted(tiny_project.root.iterdir())
    assert sightline("export", [str(checkpoint), *arguments]) == 2
    assert said in capsys.readouterr().err
    assert sorted(tiny_project.root.iterdir()) == before, "nothing is left behind"


def test_a_model_without_a_graph_says_why():
    assert "support vector machines" in str(reason_for("rcnn", ClassifierSpec))
    assert reason_for("image_classifier", ClassifierSpec) is None


def detections(*scores: float) -> dict[str, torch.Tensor]:
    boxes = torch.tensor([[10.0 * i, 0, 10 * i + 8, 8] for i in range(len(scores))])
    return {"boxes": boxes, "labels": torch.ones(len(scores), dtype=torch.int64), "scores": torch.tensor(scores)}


def test_detections_that_change_places_are_the_same():
    own = detections(0.9, 0.8)
    other = {name: value.flip(0) for name, value in own.items()}
    assert detection_differences([own], [other]) == {"boxes": 0, "scores": 0, "unmatched": 0}
    other["labels"] = torch.tensor([1, 2])
    assert detection_differences([own], [other])["unmatched"] == 0.5
    assert detection_differences([own], [detections(0.9)])["unmatched"] == pytest.approx(1 / 3)


def test_what_fills_up_is_no_detection():
    boxes = torch.zeros(2, 3, 4)
    found = detections_of([boxes, boxes[..., 0].long(), boxes[..., 0], torch.tensor([0, 2])])
    assert [len(one["scores"]) for one in found] == [0, 2]


def test_other_shapes_and_infinities_are_infinitely_apart():
    assert largest_difference(torch.zeros(2), torch.zeros(3)) == float("inf")
    assert largest_difference(torch.tensor([float("inf"), 1]), torch.tensor([float("inf"), 1.5])) == 0.5
    assert largest_difference(torch.tensor([float("nan")]), torch.zeros(1)) == float("inf")


@pytest.mark.parametrize(
    ("own", "other", "holds"), [(0.5, 0.5009, True), (0.5, 0.502, False), (60, 60.05, True), (60, 60.1, False)]
)
def test_tolerance_is_a_share_of_large_metrics(own, other, holds):
    numbers = {"split": "val", "num_samples": 1, "num_items": 1, "metric": "m", "differences": {}}
    assert Parity(**numbers, metrics={"m": (own, other)}).holds() == holds
    assert Parity(**numbers, metrics={"other": (0, 0)}).holds() is False


def test_the_gate_asks_whether_the_file_is_as_good(tiny_project, checkpoint, monkeypatch):
    shards = tiny_project.shards("voc")
    assert export_worse(checkpoint, shards, "val", 1e-3) == ""
    monkeypatch.setattr(parity, "export_parity", lambda *_: (0.5, 0.4))
    told = export_worse(checkpoint, shards, "val", 0.05)
    assert told == "the exported file has mean_iou 0.4, not 0.5: registry.max_export_loss is 0.05"
    assert export_worse(checkpoint, shards, "val", 0.15) == ""

    def refuse(*_):
        raise ConfigError("the model rcnn cannot be exported to ONNX: it is a pipeline")

    monkeypatch.setattr(parity, "export_parity", refuse)
    assert "cannot be exported to ONNX: it is a pipeline" in export_worse(checkpoint, shards, "val", 0.05)
