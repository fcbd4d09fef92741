"""Texts to classes: what is read, what padding does, and accuracy by length."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from contracts.annotations import Sentence
from contracts.errors import ConfigError, DataError
from contracts.records import DataSpec, Record
from contracts.text import UNKNOWN
from lightning_modules.blocks.recurrent import LSTMCell, layers_of
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
    elman = Model(Config(cell="elman", orthogonal=True), spec).network.reader.rnn.weight_hh_l0.detach()
    torch.testing.assert_close(elman @ elman.T, torch.eye(48), atol=1e-5, rtol=0)
    lstm = Model(Config(forget_bias=1.0), spec).network.reader.rnn
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


@pytest.mark.parametrize("layers", [1, 2])
def test_gates_come_with_an_lstms_predictions(task, layers):
    """Of the top layer, as the explicit cell has them, each cut to its own text."""
    torch.manual_seed(0)
    model = Model(Config(forget_bias=1.0, layers=layers), task.spec()).eval()
    batch = task.collate([task.encode(r, None) for r in RECORDS])
    with torch.inference_mode():
        predictions = task.predict(model, batch)
        _, again = task.evaluate_batch(model, batch)
    assert [p["gates"].shape for p in predictions] == [(2, 3, 2), (2, 3, 1), (2, 3, 4)]
    for one, other in zip(predictions, again, strict=True):
        np.testing.assert_array_equal(one["gates"], other["gates"])
    steps = model.embed(batch["tokens"])[2:3]
    for layer in layers_of(model.network.reader.rnn):
        cell = LSTMCell.of(layer)
        state, seen, outputs = cell.start(1), [], []
        for inputs in steps.unbind(dim=1):
            gates = cell.look(inputs, state)
            output, state = cell(inputs, state)
            seen.append(torch.stack([gates.input, gates.forget, gates.output], dim=1)[0])
            outputs.append(output)
        steps = torch.stack(outputs, dim=1)
    gates = torch.stack(seen, dim=2)  # (3, H, T)
    np.testing.assert_allclose(predictions[2]["gates"][1], gates.mean(dim=1).detach(), atol=1e-6)
    head, best = model.network.head.weight, int(predictions[2]["probs"].argmax())
    said = ((head[best] - head.mean(dim=0)) * steps[0, -1]).clamp(min=0)
    weighed = (gates * (said / said.sum()).view(1, -1, 1)).sum(dim=1)
    np.testing.assert_allclose(predictions[2]["gates"][0], weighed.detach(), atol=1e-6)
    elman = Model(Config(cell="elman"), task.spec()).eval()
    with torch.inference_mode():
        assert "gates" not in task.predict(elman, batch)[0], "an Elman network has none"


def test_the_report_shows_the_gates_at_each_word(task):
    report = Report(task)
    gates = np.full((2, 3, 2), 0.5, np.float32)
    predictions = {r.key: {"probs": np.array([0.1, 0.9], np.float32)} for r in RECORDS}
    truths = {r.key: task.truths(r)[0] for r in RECORDS}
    assert [plot.name for plot in report.plots(predictions, truths)] == ["confusion", "accuracy_by_length"]
    without = report.picture(RECORDS[0], [predictions["a"]], None)
    predictions["a"]["gates"] = gates
    with_gates = report.picture(RECORDS[0], [predictions["a"]], None)
    assert with_gates.shape[0] == without.shape[0] + 4 * 17, "a head, and a line for each of two words"
    predictions["b"]["gates"], predictions["c"]["gates"] = gates[..., :1], np.full((2, 3, 4), 0.25, np.float32)
    (plot,) = [plot for plot in report.plots(predictions, truths) if plot.name == "gates"]
    assert len(plot.rows) == 2 * 3 * 4 and {row[2] for row in plot.rows} == {0.25}, "of equally many the longest"
    assert plot.rows[5][0] == "forget, units of the answer" and plot.rows[5][1] == 2


def test_the_start_of_deeper_networks():
    spec = Task(Task.Config(), DATA).spec()
    torch.manual_seed(0)
    plain = Model(Config(cell="elman", layers=2), spec).network.reader.rnn
    torch.manual_seed(0)
    grown = Model(Config(cell="elman", layers=2, recurrent_gain=3.0), spec).network.reader.rnn
    for layer in range(2):
        torch.testing.assert_close(
            getattr(grown, f"weight_hh_l{layer}"), 3 * getattr(plain, f"weight_hh_l{layer}"), msg="W_hh alone"
        )
        torch.testing.assert_close(getattr(grown, f"weight_ih_l{layer}"), getattr(plain, f"weight_ih_l{layer}"))
    with pytest.raises(ConfigError, match="between layers"):
        Config(dropout=0.5)
    with pytest.raises(ConfigError, match="recurrent_gain must be more than 0"):
        Config(recurrent_gain=0.0)
