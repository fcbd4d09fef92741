"""Segmentation: ignored pixels, original size, scores, pictures."""

import dataclasses
import json

import cv2
import numpy as np
import pytest
import torch

from contracts.errors import ConfigError
from contracts.records import DataSpec
from lightning_modules.augment.augment import AugmentConfig
from lightning_modules.augment.images import decode_semantic
from lightning_modules.models.fcn import Config as FcnConfig
from lightning_modules.models.fcn import Model
from lightning_modules.reports.segmentation import Report
from lightning_modules.tasks.segmentation import Task


@pytest.fixture
def task(data):
    return Task(Task.Config(image_size=64, augment=AugmentConfig(brightness_contrast=0)), data)


def batch_of(task, records, seed=None):
    return task.collate([task.encode(r, seed) for r in records])


def test_batch(task, make_record):
    batch = batch_of(task, [make_record(0), make_record(1)], seed=3)
    assert batch["images"].shape == (2, 3, 64, 64) and batch["images"].dtype == torch.uint8
    assert batch["labels"].shape == (2, 64, 64) and batch["labels"].dtype == torch.uint8
    assert set(batch["labels"].unique().tolist()) <= {0, 1, 2, 255}
    assert (batch["labels"][:, 48:] == 255).all()  # padding


def test_loss_is_the_mean_over_counted_pixels(task, make_record):
    batch = batch_of(task, [make_record(0)])
    logits = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    counted = batch["labels"] != 255
    log_probs = logits.log_softmax(1).permute(0, 2, 3, 1)[counted]
    expected = -log_probs[torch.arange(len(log_probs)), batch["labels"][counted].long()].mean()
    loss = task.losses(lambda images: logits, batch)["cross_entropy"]
    assert loss.count == counted.sum()
    torch.testing.assert_close(loss.value, expected)


def test_an_image_that_is_ignored_altogether_is_no_nan(task, make_record):
    record = make_record(0)
    ignored = np.full((record.height, record.width), 255, np.uint8)
    batch = batch_of(task, [dataclasses.replace(record, semantic_mask=cv2.imencode(".png", ignored)[1].tobytes())])
    assert batch["counts"] == {"cross_entropy": 0}
    model = Model(FcnConfig(), task.spec())
    loss = task.losses(model, batch)["cross_entropy"].value
    assert float(loss.detach()) == 0.0
    loss.backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


def test_predictions_have_the_labels_own_size(data, make_record):
    task = Task(Task.Config(image_size=128), data)
    record = make_record(5)
    batch = batch_of(task, [record])
    labels = batch["labels"].long().clamp(max=2)
    logits = torch.nn.functional.one_hot(labels, 3).permute(0, 3, 1, 2).float() * 10
    prediction = task.predict(lambda images: logits, batch)[0]
    label_map, truth = decode_semantic(prediction["label_map"]), decode_semantic(record.semantic_mask)
    assert label_map.shape == (48, 64)
    counted = truth != 255
    assert (label_map[counted] == truth[counted]).mean() > 0.98
    assert len(prediction["label_map"]) < 2000


def test_predict_needs_no_annotations(task, make_record):
    record = dataclasses.replace(make_record(0), semantic_mask=b"")
    batch = batch_of(task, [record])
    assert "labels" not in batch
    model = Model(FcnConfig(), task.spec()).eval()
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        assert decode_semantic(task.predict(model, batch)[0]["label_map"]).shape == (48, 64)


def test_scores_of_perfect_and_constant_predictions(task, make_record):
    truths = {r.key: task.truths(r)[0] for r in (make_record(i) for i in range(3))}
    maps = {key: decode_semantic(truth["label_map"]) for key, truth in truths.items()}
    perfect = {
        key: {"label_map": cv2.imencode(".png", np.where(m == 255, 0, m).astype(np.uint8))[1].tobytes()}
        for key, m in maps.items()
    }
    assert set(task.score(perfect, truths).values()) == {1.0}
    constant = task.score(Report(task).constant(truths), truths)
    background = np.mean([(m[m != 255] == 0).mean() for m in maps.values()])
    assert constant["pixel_accuracy"] == pytest.approx(background)
    assert constant["mean_iou"] == pytest.approx(background / 3)
    plots = Report(task).plots(perfect, truths)
    assert [p.kind for p in plots] == ["confusion", "bar", "bar"]
    assert sum(count for *_, count in plots[0].rows) == sum(int((m != 255).sum()) for m in maps.values())


def test_one_pass_equals_losses_and_predict(task, make_record):
    model = Model(FcnConfig(), task.spec()).eval()
    batch = batch_of(task, [make_record(0), make_record(1, empty=True)])
    with torch.no_grad():
        losses, predictions = task.evaluate_batch(model, batch)
        torch.testing.assert_close(losses, task.losses(model, batch))
        assert predictions == task.predict(model, batch)


def test_overfitting_four_images(task, make_record):
    torch.manual_seed(0)
    model = Model(FcnConfig(head_channels=32), task.spec())
    batch = batch_of(task, [make_record(i) for i in range(4)])
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    values = []
    for _ in range(15):
        loss = task.losses(model, batch)["cross_entropy"].value
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        values.append(float(loss.detach()))
    assert values[-1] < 0.4 * values[0]


def test_answer_and_picture(task, make_record):
    record = make_record(0)
    truth = task.truths(record)[0]
    prediction = Report(task).constant({record.key: truth})[record.key]
    assert json.loads(json.dumps(task.answer(prediction))) == {"size": [48, 64], "classes": {"background": 1.0}}
    picture = Report(task).picture(record, [prediction], [truth])
    assert picture.dtype == np.uint8 and picture.shape[1] > 3 * 300
    assert Report(task).picture(record, [prediction], None).shape[1] < picture.shape[1]


def test_settings_that_cannot_work(data):
    with pytest.raises(ConfigError, match="image_size"):
        Task.Config(image_size=16)
    with pytest.raises(ConfigError, match="classes"):
        Task(Task.Config(), DataSpec(dataset="x", classes=tuple(str(i) for i in range(255))))
