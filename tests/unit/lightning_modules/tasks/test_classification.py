"""Classification: labels by name, torchmetrics' numbers, the constant predictor, and a run from folders to scores."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from torchmetrics.functional.classification import multiclass_accuracy

from contracts.errors import ConfigError, DataError
from contracts.records import DataSpec
from lightning_modules.augment.augment import AugmentConfig
from lightning_modules.metrics.bootstrap import intervals
from lightning_modules.models import image_classifier
from lightning_modules.reports.classification import Report
from lightning_modules.tasks.classification import Task
from pipeline.measuring.evaluation import Evaluation
from pipeline.shards.reader import SplitReader
from pipeline.training.checkpoints import BEST
from pipeline.training.fit import fit
from pipeline.training.predictor import load_predictor
from tests.local_training import arguments

pytestmark = pytest.mark.usefixtures("one_thread")

NAMES = tuple("abcdefgh")


@pytest.fixture
def task():
    config = Task.Config(image_size=64, augment=AugmentConfig(brightness_contrast=0))
    return Task(config, DataSpec(dataset="letters", classes=NAMES))


@pytest.fixture
def records(make_record):
    return [dataclasses.replace(make_record(i), labels=(NAMES[label],)) for i, label in enumerate((0, 0, 7, 2))]


def test_batch_and_loss(task, records):
    batch = task.collate([task.encode(record, 5) for record in records])
    assert batch["images"].shape == (4, 3, 64, 64) and batch["images"].dtype == torch.uint8
    assert batch["labels"].tolist() == [0, 0, 7, 2]
    logits = torch.randn(4, 8, generator=torch.Generator().manual_seed(0))
    expected = -logits.log_softmax(1)[torch.arange(4), batch["labels"]].mean()
    torch.testing.assert_close(task.losses(lambda images: logits, batch)["cross_entropy"].value, expected)


def test_prediction_needs_no_label(task, records):
    batch = task.collate([task.encode(dataclasses.replace(record, labels=()), None) for record in records])
    assert "labels" not in batch
    model = image_classifier.Model(image_classifier.Config(), task.spec()).eval()
    with torch.inference_mode():
        predictions = task.predict(model, batch)
    np.testing.assert_allclose(predictions[0]["probs"], np.full(8, 1 / 8), rtol=1e-6)  # the last layer starts at zero


def test_scores_are_torchmetrics(task):
    generator = torch.Generator().manual_seed(1)
    logits, labels = torch.randn(200, 8, generator=generator), torch.randint(8, (200,), generator=generator)
    predictions = {f"{i:03d}": p for i, p in enumerate(task.predict(lambda images: logits, {"images": None}))}
    truths = {f"{i:03d}": {"label": int(label)} for i, label in enumerate(labels)}
    expected = {
        f"top{k}": multiclass_accuracy(logits, labels, num_classes=8, average="micro", top_k=k).item() for k in (1, 5)
    }
    assert task.score(predictions, truths) == pytest.approx(expected, abs=1e-6)
    for name, (low, high) in intervals(task.measure(predictions, truths)).items():
        assert low < expected[name] < high and high - low < 0.2


def test_constant_predictor_is_the_most_frequent_class(task):
    truths = {str(i): {"label": label} for i, label in enumerate([3] * 5 + [1] * 3 + [0, 2, 4, 5])}
    constant = Report(task).constant(truths)
    assert task.answer(constant["0"])["class"] == "d"
    assert task.score(constant, truths) == pytest.approx({"top1": 5 / 12, "top5": 11 / 12})


def test_answer_picture_and_plots(task, records):
    probs = np.array([0.1, 0.5, 0, 0, 0.25, 0.15, 0, 0], np.float32)
    answer = task.answer({"probs": probs})
    assert json.loads(json.dumps(answer))["top"][:2] == [
        {"class": "b", "probability": 0.5}, {"class": "e", "probability": 0.25},
    ]  # fmt: skip
    right, wrong = (Report(task).picture(records[0], [{"probs": probs}], [{"label": label}]) for label in (1, 0))
    assert right.shape == wrong.shape and (right != wrong).any()
    assert len(Report(task).picture(records[0], [{"probs": probs}], None)) < len(right)
    truths = {record.key: task.truths(record)[0] for record in records}
    confusion, accuracy = Report(task).plots({key: {"probs": probs} for key in truths}, truths)
    assert sorted(confusion.rows) == [("a", "(other)", 2), ("c", "(other)", 1), ("h", "(other)", 1)]
    assert sorted(accuracy.rows) == [("a", 0.0), ("c", 0.0), ("h", 0.0)]
    some = {key: {"probs": np.eye(8, dtype=np.float32)[0]} for key in truths}
    assert dict(Report(task).plots(some, truths)[1].rows) == {"a": 1.0, "c": 0.0, "h": 0.0}


def test_what_cannot_be_learnt_is_told(task, records):
    with pytest.raises(DataError, match="one label") as error:
        task.encode(dataclasses.replace(records[0], labels=("a", "b")), None)
    assert records[0].key in str(error.value)
    with pytest.raises(ConfigError, match="nothing to tell apart"):
        Task(Task.Config(), DataSpec(dataset="x", classes=("a",)))


@pytest.mark.filterwarnings("default")  # Lightning's own deprecations are not ours to fail on
def test_from_class_folders_to_a_score_above_the_constant_predictors(flags_project, tmp_path):
    started = arguments(flags_project, tmp_path, "classification", max_epochs=8)
    started["run"]["train"]["optimizer"]["lr"] = 0.003
    fit(**started)
    evaluation = Evaluation(tmp_path / BEST, flags_project.shards("flags"))
    assert evaluation.constant["top1"] == pytest.approx(0.4)
    low, high = evaluation.intervals["top1"]
    assert low <= evaluation.metrics["top1"] <= high and evaluation.metrics["top1"] > 0.6
    assert evaluation.metrics["top5"] == 1
    predictor = load_predictor(tmp_path / BEST)
    image = next((flags_project.root / "flags/val/lying").iterdir()).read_bytes()
    record = predictor.record({"image": image})
    (answer,) = predictor.answers(predictor.predict(record))
    assert answer["class"] in ("lying", "plain", "standing")
    assert predictor.picture(record, predictor.predict(record)).dtype == np.uint8


def test_labels_lie_in_the_shards_by_name_and_nowhere_else(flags_project, tiny_project):
    manifest = json.loads((flags_project.shards("flags") / "manifest.json").read_text())
    assert manifest["classes"] == ["lying", "plain", "standing"]
    assert {split: entry["totals"]["num_labels"] for split, entry in manifest["splits"].items()} == {
        "train": 60, "val": 20,
    }  # fmt: skip
    reader = SplitReader(flags_project.shards("flags"), manifest, "train")
    record = reader.read(0)
    assert json.loads(record.annotation_json())["labels"] == list(record.labels)
    assert record.labels[0] in str(record.image_id)
    manifest = json.loads((tiny_project.shards("voc") / "manifest.json").read_text())
    reader = SplitReader(tiny_project.shards("voc"), manifest, "train")
    assert "labels" not in json.loads(reader.read(0).annotation_json())
    assert not len(reader.select(["num_labels"]))
