"""Texts to classes: what is read, what padding does, and accuracy by length."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from contracts.annotations import Sentence
from contracts.errors import ConfigError, DataError
from contracts.records import DataSpec, Record
from contracts.text import UNKNOWN
from lightning_modules.models.recurrent_classifier import Config, Model
from lightning_modules.reports.text_classification import Report
from lightning_modules.tasks.text_classification import Task

DATA = DataSpec(dataset="d", classes=("sea", "sky"), vocabulary={"texts": [["the", 4], ["clouds", 2], ["ships", 1]]})


@pytest.fixture
def task() -> Task:
    return Task(Task.Config(), DATA)


def record(key: str, text: str, *labels: str) -> Record:
    return Record(key=key, image_id=key, sentences=(Sentence(role="text", text=text),), labels=labels)


RECORDS = [record("a", "the clouds", "sky"), record("b", "ships", "sea"), record("c", "The CLOUDS, the boats", "sky")]


def test_texts_become_padded_tokens(task):
    batch = task.collate([task.encode(r, None) for r in RECORDS])
    assert batch["tokens"].tolist() == [[4, 5, 0, 0], [6, 0, 0, 0], [4, 5, 4, UNKNOWN]]
    assert batch["lengths"] == [2, 1, 4] and batch["labels"].tolist() == [1, 0, 1]
    assert task.encode(record("d", "!", "sea"), None)["tokens"].tolist() == [UNKNOWN], "never empty"
    assert "label" not in task.encode(record("d", "the"), None), "a text alone can be asked"
    assert len(Task(Task.Config(max_tokens=2), DATA).encode(RECORDS[2], None)["tokens"]) == 2


@pytest.mark.parametrize("config", [Config(cell="elman", orthogonal=True), Config(forget_bias=1.0)])
def test_a_batch_predicts_as_each_text_alone(task, config):
    torch.manual_seed(0)
    model = Model(config, task.spec()).eval()
    with torch.inference_mode():
        together = task.predict(model, task.collate([task.encode(r, None) for r in RECORDS]))
        for one, expected in zip(RECORDS, together, strict=True):
            (alone,) = task.predict(model, task.collate([task.encode(one, None)]))
            np.testing.assert_allclose(alone["probs"], expected["probs"], atol=1e-6)


def test_the_start_of_the_cells():
    torch.manual_seed(0)
    spec = Task(Task.Config(), DATA).spec()
    elman = Model(Config(cell="elman", orthogonal=True), spec).encoder.rnn.weight_hh_l0.detach()
    torch.testing.assert_close(elman @ elman.T, torch.eye(48), atol=1e-5, rtol=0)
    lstm = Model(Config(forget_bias=1.0), spec).encoder.rnn
    assert (lstm.bias_ih_l0 + lstm.bias_hh_l0)[48:96].tolist() == [1.0] * 48, "in one of torch's two biases"
    with pytest.raises(ConfigError, match="no forget gate"):
        Config(cell="elman", forget_bias=1.0)


def test_accuracy_is_told_apart_by_length(task):
    predictions = {"a": [0.2, 0.8], "b": [0.1, 0.9], "c": [0.3, 0.7], "d": [0.6, 0.4]}
    records = [*RECORDS, record("d", "ships the", "sky")]
    truths = {r.key: task.truths(r)[0] for r in records}
    given = {key: {"probs": np.array(probs, np.float32)} for key, probs in predictions.items()}
    measured = {name: m for m in task.measure(given, truths, thorough=True) for name in m.values}
    values = {name: m.values[name] for name, m in measured.items()}
    assert values == {"top1": 0.5, "top5": 1.0, "top1/length 1": 0.0, "top1/length 2": 0.5, "top1/length 4": 1.0}
    by_length = measured["top1/length 2"]
    assert by_length.num_clusters == 2 and by_length.resample is not None
    assert by_length.resample(np.array([[2.0, 0.0], [0.0, 2.0]]))["top1/length 2"].tolist() == [1.0, 0.0]
    assert "top1/length 1" not in task.score(given, truths), "only where it is asked for"
    constant = Report(task).constant(truths)
    assert constant["a"]["probs"].tolist() == [0.25, 0.75]


def test_a_text_of_two_classes_and_data_of_one_are_told(task):
    with pytest.raises(DataError, match="has one label"):
        task.truths(record("x", "the", "sea", "sky"))
    with pytest.raises(ConfigError, match="nothing to tell apart"):
        Task(Task.Config(), DataSpec(dataset="d", classes=("sea",), vocabulary=DATA.vocabulary))
