"""Which classes an image shows: labels of objects and of names, what counts for nothing, and a run on both kinds."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import numpy as np
import pytest
import torch

from contracts.errors import ConfigError
from contracts.records import DataSpec, Objects, Record
from lightning_modules.augment.augment import AugmentConfig
from lightning_modules.drawing import text as draw
from lightning_modules.models import image_classifier
from lightning_modules.reports.multilabel_classification import Report
from lightning_modules.tasks.multilabel_classification import Task
from pipeline.ingest.found import find
from pipeline.measuring.evaluation import Evaluation
from pipeline.shards.manifest import load_manifest
from pipeline.shards.reader import SplitReader
from pipeline.training.checkpoints import BEST
from pipeline.training.fit import fit
from pipeline.training.predictor import load_predictor
from tests.local_training import arguments

pytestmark = pytest.mark.usefixtures("one_thread")

NAMES = ("cat", "dog", "cow", "bird")


def task(**settings: Any) -> Task:
    plain = {"image_size": 64, "augment": AugmentConfig(brightness_contrast=0)}
    return Task(Task.Config(**{**plain, **settings}), DataSpec(dataset="farm", classes=NAMES))


def objects(*labels: int, difficult: tuple[int, ...] = (), crowd: tuple[int, ...] = ()) -> Objects:
    """Objects of these labels, 1..4; `difficult` and `crowd` are places in the list."""
    number, places = len(labels), np.arange(len(labels))
    return Objects(
        ids=[str(i) for i in places], boxes=np.tile(np.array([[1, 1, 9, 9]], np.float32), (number, 1)),
        labels=np.array(labels, np.int64), areas=np.full(number, 64.0), is_crowd=np.isin(places, crowd),
        is_difficult=np.isin(places, difficult), is_truncated=np.zeros(number, bool), masks=[""] * number,
    )  # fmt: skip


@pytest.fixture
def record(make_record):
    def make(*labels: int, names: tuple[str, ...] = (), index: int = 0, **flags: Any) -> Record:
        return dataclasses.replace(make_record(index), objects=objects(*labels, **flags), labels=names)

    return make


def test_labels_of_objects(record) -> None:
    t = task()
    assert t.labels(record(1, 3, 1)).tolist() == [1, -1, 1, -1] and t.labels(record(1)).dtype == np.int8
    assert t.labels(record(1, 2, difficult=(0,))).tolist() == [0, 1, -1, -1]
    one_easy = [t.labels(record(1, 1, difficult=(place,))).tolist() for place in (0, 1)]
    assert one_easy == [[1, -1, -1, -1]] * 2, "one object that is not difficult is enough, wherever it stands"
    assert t.labels(record(4, crowd=(0,))).tolist() == [-1, -1, -1, 1], "a crowd shows its class"
    assert t.labels(record()).tolist() == [-1] * 4


def test_labels_of_names(record) -> None:
    both = record(1, 2, difficult=(1,), names=("cow", "dog"))
    assert task().labels(both).tolist() == [1, 1, 1, -1], "a name beside a difficult object says that it is there"
    assert task(labels_from="labels").labels(both).tolist() == [-1, 1, 1, -1]


def test_which_images_are_used() -> None:
    def used(**settings: Any) -> tuple[Any, Any]:
        return task(**settings).requires, task(**settings).eval_requires

    assert used() == (("num_objects",), ())
    assert used(empty_images=True) == ((), ())
    assert used(labels_from="labels") == (("num_labels",), ("num_labels",))
    assert used(labels_from="labels", empty_images=True) == ((), ())
    assert Task.requires == ("num_objects",) and Task.eval_requires == ()


def test_loss_is_the_classes_sum_without_what_counts_for_nothing(record) -> None:
    t = task()
    records = [record(1, 2, difficult=(1,)), record(3, index=1)]
    batch = t.collate([t.encode(one, 5) for one in records])
    assert batch["images"].shape == (2, 3, 64, 64) and batch["images"].dtype == torch.uint8
    assert batch["labels"].tolist() == [[1, 0, -1, -1], [-1, -1, 1, -1]] and batch["labels"].dtype == torch.int8
    zero = t.losses(lambda images: torch.zeros(2, 4), batch)
    assert list(zero) == ["binary_cross_entropy"] and zero["binary_cross_entropy"].count == 2
    assert float(zero["binary_cross_entropy"].total) == pytest.approx(7 * np.log(2)), "seven of eight labels count"
    logits = torch.randn(2, 4, generator=torch.Generator().manual_seed(0)).requires_grad_()
    p = torch.sigmoid(logits.detach())
    expected = -(p[0, 0].log() + (1 - p[0, 2:]).log().sum() + p[1, 2].log() + (1 - p[1, [0, 1, 3]]).log().sum())
    loss = t.losses(lambda images: logits, batch)["binary_cross_entropy"]
    torch.testing.assert_close(loss.total.detach(), expected)
    loss.value.backward()
    gradient = logits.grad
    assert gradient is not None and gradient[0, 1] == 0, "what counts for nothing moves nothing"
    torch.testing.assert_close(gradient[1], (p[1] - torch.tensor([0.0, 0, 1, 0])) / 2)  # mean over two images


def test_predictions_are_each_classes_own_and_need_no_label(record) -> None:
    t = task()
    batch = t.collate([t.encode(record(), None)] * 2)
    logits = torch.tensor([[0.0, 2, -2, 8], [1, 1, 1, 1]])
    probs = [one["probs"] for one in t.predict(lambda images: logits, batch)]
    np.testing.assert_allclose(probs, 1 / (1 + np.exp(-logits.numpy())), rtol=1e-6)
    assert probs[0].dtype == np.float32 and probs[0].sum() > 1
    losses, same = t.evaluate_batch(lambda images: logits, batch)
    assert losses["binary_cross_entropy"].count == 2 and np.array_equal(same[1]["probs"], probs[1])
    model = image_classifier.Model(image_classifier.Config(), t.spec()).eval()
    with torch.inference_mode():
        np.testing.assert_allclose(t.predict(model, batch)[0]["probs"], 0.5)  # the last layer starts at zero


def test_scores_and_the_constant_predictor() -> None:
    t, rng = task(), np.random.default_rng(0)
    labels = rng.choice([1, 0, -1], (40, 4), p=[0.3, 0.1, 0.6]).astype(np.int8)
    labels[:, 3] = -1
    truths = {f"{i:02d}": {"labels": row} for i, row in enumerate(labels)}
    perfect = {key: {"probs": truth["labels"].astype(np.float32)} for key, truth in truths.items()}
    assert t.score(perfect, truths) == {"mAP_2010": 1.0, "mAP_2007": 1.0}
    constant = Report(t).constant(truths)
    shares = [(column > 0).sum() / (column != 0).sum() for column in labels.T[:3]]
    np.testing.assert_allclose(constant["00"]["probs"], [*shares, 0], rtol=1e-6)
    measured = {name: v for m in t.measure(constant, truths, thorough=True) for name, v in m.values.items()}
    assert [measured[f"AP/{name}"] for name in NAMES[:3]] == pytest.approx(shares)
    assert [measured["mAP_2007"], measured["mAP_2010"]] == pytest.approx([np.mean(shares)] * 2)
    assert t.metric == "mAP_2010" and t.score(constant, truths)[t.metric] < 0.5


def test_answer_has_every_class_and_names_those_that_are_probable() -> None:
    probs = np.array([0.5, 0.123456789, 0.9, 0.49], np.float32)
    answer = json.loads(json.dumps(task().answer({"probs": probs})))
    assert answer["classes"] == ["cow", "cat"]
    assert list(answer["probabilities"].items()) == [("cow", 0.9), ("cat", 0.5), ("bird", 0.49), ("dog", 0.123457)]
    assert task(picture_score=0.95).answer({"probs": probs})["classes"] == []


def test_picture_shows_what_is_found_and_what_is_there(record, monkeypatch: pytest.MonkeyPatch) -> None:
    t, told, whole = task(), [], draw.bars
    monkeypatch.setattr(draw, "bars", lambda values, width: told.append(list(values)) or whole(values, width))
    report, shown = Report(t), record(1, 2, 4, difficult=(1,))
    prediction = {"probs": np.array([0.9, 0.1, 0.6, 0.2], np.float32)}
    known, unknown = (report.picture(shown, [prediction], truths) for truths in (t.truths(shown), None))
    assert [(name, color) for name, _, color in told[0]] == [
        ("cat", draw.GREEN), ("cow", draw.RED), ("bird", draw.RED), ("dog", draw.GREY),
    ], "found, found where it is not, missed, difficult"  # fmt: skip
    assert [(name, color) for name, _, color in told[1]] == [("cat", draw.BLUE), ("cow", draw.BLUE)]
    assert [value for _, value, _ in told[1]] == pytest.approx([0.9, 0.6])
    assert len(known) > len(unknown), "what is true is written, too"
    nothing = {"probs": np.array([0.1, 0.2, 0, 0], np.float32)}
    for truths, color in ((t.truths(record()), draw.GREEN), (None, draw.GREY)):
        picture = report.picture(record(), [nothing], truths)
        assert picture.dtype == np.uint8 and picture.shape[1:] == (420, 3)
        assert told.pop() == [("dog", pytest.approx(0.2), color)], "the best one, where there is nothing to show"


def test_plots() -> None:
    report = Report(task())
    truths = {"a": {"labels": np.array([1, -1, 0, -1])}, "b": {"labels": np.array([-1, 1, -1, -1])}}
    predictions = {
        "a": {"probs": np.array([0.9, 0.1, 0.6, 0.2], np.float32)},
        "b": {"probs": np.array([0.95, 0.5, 0, 0], np.float32)},
    }
    curve, bars = report.plots(predictions, truths)
    assert curve.rows == [("cat", 0.0, 0.0), ("cat", 1.0, 0.5), ("dog", 1.0, 1.0), ("dog", 1.0, 0.5)]
    assert bars.rows == [("cat", 0.5), ("dog", 1.0)] and curve.series == "class"


def test_a_data_set_without_classes_is_refused() -> None:
    with pytest.raises(ConfigError, match="nothing to find"):
        Task(Task.Config(), DataSpec(dataset="texts", classes=()))
    one = Task(Task.Config(), DataSpec(dataset="faces", classes=("face",)))
    assert one.spec().num_classes == 1, "one class is shown or not"


def test_labels_of_a_world_of_objects(tiny_project) -> None:
    shards = tiny_project.shards("voc")
    manifest = load_manifest(shards)
    t = Task(Task.Config(image_size=64), DataSpec(dataset="voc", classes=tuple(manifest["classes"])))
    reader = SplitReader(shards, manifest, "train")
    positions = reader.select(t.requires)
    assert len(positions) == 40
    for one in (reader.read(int(i)) for i in positions[:8]):
        names = {t.data.classes[label - 1] for label in one.objects.labels}
        assert {t.data.classes[i] for i in np.flatnonzero(t.labels(one) >= 0)} == names
    assert find(tiny_project.root / "data/raw/voc", "multilabel_classification", None).document["datasets"]


@pytest.mark.filterwarnings("default")  # Lightning's own deprecations are not ours to fail on
def test_from_class_folders_to_a_score_above_the_constant_predictors(flags_project, tmp_path) -> None:
    started = arguments(flags_project, tmp_path, "multilabel", max_epochs=4)
    started["run"]["train"]["optimizer"]["lr"] = 0.003
    fit(**started)
    evaluation = Evaluation(tmp_path / BEST, flags_project.shards("flags"))
    assert evaluation.constant["mAP_2010"] == pytest.approx((0.4 + 0.4 + 0.2) / 3)
    low, high = evaluation.intervals["mAP_2010"]
    assert low <= evaluation.metrics["mAP_2010"] <= high and evaluation.metrics["mAP_2010"] > 0.6
    assert {"AP/lying", "AP/plain", "AP/standing"} <= evaluation.metrics.keys()
    predictor = load_predictor(tmp_path / BEST)
    image = next((flags_project.root / "flags/val/lying").iterdir()).read_bytes()
    (answer,) = predictor.answers(predictor.predict(predictor.record({"image": image})))
    assert answer["probabilities"].keys() == {"lying", "plain", "standing"}
