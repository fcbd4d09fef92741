"""Sentences to sentences: what is read and written, how long, what is measured, and what is drawn."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from contracts.annotations import Alignment, Sentence
from contracts.errors import ConfigError
from contracts.records import DataSpec, Record
from contracts.text import BEGIN, END, PAD, UNKNOWN
from lightning_modules.metrics.measurement import values_of
from lightning_modules.models import attention_translator, vector_translator
from lightning_modules.reports.translation import Report
from lightning_modules.tasks.translation import Task, links_of, word_places

B = "\u2581"
DATA = DataSpec(
    dataset="d",
    classes=(),
    vocabulary={
        "sources": [["The", 4], [f"{B}law", 4], [f"{B}new", 3], [".", 4], ["rare", 1]],
        "targets": [["La", 4], [f"{B}loi", 4], [f"{B}neuve", 3], [".", 4], ["rare", 1]],
    },
)


def pair(key: str, source: str, target: str, *links: tuple[int, int]) -> Record:
    texts = [("source", source)] + ([("target", target)] if target else [])
    return Record(
        key=key, image_id=key, sentences=tuple(Sentence(role=role, text=text) for role, text in texts),
        alignment=Alignment(source="source", target="target", links=links) if links else None,
    )  # fmt: skip


PAIRS = [
    pair("a", "The new law.", "La loi neuve.", (0, 0), (1, 2), (2, 1)),
    pair("b", "The law.", "La loi.", (0, 0), (1, 1)),
    pair("c", "The law of rare .", "La loi rare ."),
]


@pytest.fixture
def task() -> Task:
    return Task(Task.Config(beam_size=2), DATA)


@pytest.fixture(params=["looks", "one vector"])
def model(request, task) -> nn.Module:
    torch.manual_seed(0)
    if request.param == "looks":
        config = attention_translator.Config(encoder_channels=4, decoder_channels=6, embedding_channels=5)
        return attention_translator.Model(config, task.spec()).eval()
    return vector_translator.Model(vector_translator.Config(hidden_channels=6), task.spec()).eval()


def test_sentences_become_padded_pieces_with_their_end(task):
    batch = task.collate([task.encode(record, None) for record in PAIRS[:2]])
    assert batch["sources"].tolist() == [[4, 6, 5, 7, END], [4, 5, 7, END, PAD]] and batch["lengths"] == [5, 4]
    assert batch["targets"].tolist() == [[BEGIN, 4, 5, 6, 7, END], [BEGIN, 4, 5, 7, END, PAD]]
    assert batch["counts"] == {"cross_entropy": 9}, "the token that begins a sentence is not predicted"
    alone = task.collate([task.encode(pair("x", "The law.", ""), None)])
    assert "targets" not in alone and "counts" not in alone, "a source alone can be asked"


def test_a_piece_is_known_with_or_without_its_blank(task):
    assert task.encode(pair("x", "law The .", ""), None)["source"].tolist() == [5, 4, 7, END]
    assert task.encode(pair("x", "rare, new", ""), None)["source"].tolist() == [UNKNOWN, UNKNOWN, 6, END]
    cut = Task(Task.Config(max_tokens=2), DATA).encode(PAIRS[0], None)
    assert cut["source"].tolist() == [4, 6, END] and cut["target"].tolist() == [BEGIN, 4, 5, END]


class Talker(nn.Module):
    """Always wants the same tokens: `<unk>` most, never the end."""

    def encode(self, sources, lengths):
        return (sources,), (torch.zeros(len(sources), 1),)

    def decode(self, memory, state, tokens):
        return torch.zeros(*tokens.shape, 8), torch.zeros(*tokens.shape, 0)

    def step(self, memory, state, tokens):
        logits = torch.tensor([0.0, 9, 0, -9, 1, 2, 0, 0]).repeat(len(tokens), 1)
        return logits, state, torch.zeros(len(tokens), 0)


def test_unknown_words_are_never_written_and_no_translation_is_endless():
    task = Task(Task.Config(beam_size=3, length_factor=2.5), DATA)
    batch = task.collate([task.encode(record, None) for record in (*PAIRS, pair("x", "The", "La"))])
    predictions = task.predict(Talker(), batch)
    assert [len(p["tokens"]) for p in predictions] == [12, 10, 15, 5], "2.5 times each source's tokens, its end counted"
    assert all(set(p["tokens"]) == {f"{B}loi"} for p in predictions)
    assert predictions[3]["text"] == "loi loi loi loi loi"


def test_a_batch_predicts_as_each_sentence_alone(task, model):
    with torch.inference_mode():
        _, together = task.evaluate_batch(model, task.collate([task.encode(record, None) for record in PAIRS]))
        for record, expected in zip(PAIRS, together, strict=True):
            _, (alone,) = task.evaluate_batch(model, task.collate([task.encode(record, None)]))
            assert (alone["text"], alone["tokens"]) == (expected["text"], expected["tokens"])
            assert alone["nll"] == pytest.approx(expected["nll"], abs=1e-4)
            np.testing.assert_allclose(alone["attention"], expected["attention"], atol=2e-3)
            if "links" in expected:
                np.testing.assert_array_equal(alone["links"], expected["links"])


def test_perplexity_counts_the_end_and_no_padding(task, model):
    batch = task.collate([task.encode(record, None) for record in PAIRS])
    with torch.inference_mode():
        losses, predictions = task.evaluate_batch(model, batch)
    assert [p["num_tokens"] for p in predictions] == [5, 4, 5]
    assert sum(p["nll"] for p in predictions) == pytest.approx(float(losses["cross_entropy"].total), rel=1e-6)
    truths = {record.key: task.truths(record)[0] for record in PAIRS}
    scores = task.score({r.key: p for r, p in zip(PAIRS, predictions, strict=True)}, truths)
    assert scores["perplexity"] == pytest.approx(math.exp(float(losses["cross_entropy"].value)), rel=1e-6)
    assert ("AER" in scores) == ("links" in predictions[0]), "a model that looks nowhere aligns nothing"


def test_words_of_pieces_and_their_links():
    pieces = ["L", "'", "accord", f"{B}a", f"{B}été", f"{B}signé", "."]
    assert word_places(pieces).tolist() == [0, -1, 0, 1, 2, 3, -1]
    assert word_places(["oh", f"{B},", f"{B}oh", f"{B}!"]).tolist() == [0, 1, 2, 3], "marks between blanks are words"
    weights = np.array([[0.1, 0.2, 0.7], [0.3, 0.6, 0.1], [0, 0.4, 0.6]])
    # Word 0 is "new", word 1 "law."; the stop at the end has 0.7 of the first row and yet aligns nothing.
    assert links_of(weights, ["new", f"{B}law", "."], ["loi", f"{B}neuve", "."]).tolist() == [[1, 0], [1, 1]]
    assert links_of(np.zeros((0, 0)), [], []).shape == (0, 2)


def test_measured_as_written(task):
    truths = {record.key: task.truths(record)[0] for record in PAIRS}
    assert truths["a"]["length"] == 4 and truths["a"]["num_words"] == (3, 3) and "links" not in truths["c"]
    turned = replace(PAIRS[0], alignment=Alignment(source="target", target="source", links=((2, 1),)))
    assert task.truths(turned)[0]["links"].tolist() == [[1, 2]], "places are (source, target), however they are kept"
    right = {
        key: {"text": truth["references"][0], "links": truth.get("links"), "nll": 1.0, "num_tokens": 2}
        for key, truth in truths.items()
    }
    scores = values_of(task.measure(right, truths, thorough=True))
    assert (
        scores["BLEU"] == pytest.approx(100)
        and scores["AER"] == 0
        and scores["perplexity"] == pytest.approx(1.6487, abs=1e-4)
    )
    assert {"BLEU/length 1-5"} == {name for name in scores if "length" in name}


def test_the_constant_predictor_reads_no_source(task):
    truths = {record.key: task.truths(record)[0] for record in PAIRS}
    constant = Report(task).constant(truths)
    assert len({p["text"] for p in constant.values()}) == 1 and constant["a"]["text"] in {
        "La loi.",
        "La loi neuve.",
        "La loi rare .",
    }
    scores = task.score(constant, truths)
    counts = [3, 3, 1, 3, 1, 3]  # La, loi, neuve, the stop, `<unk>` for " rare" and for " .", the end
    counts[4] = 2
    counts[3] = 2
    entropy = -sum(c / sum(counts) * math.log(c / sum(counts)) for c in counts)
    assert scores["perplexity"] == pytest.approx(math.exp(entropy))
    assert scores["AER"] == pytest.approx(1 - 2 * 3 / 10), "of a: 0-0 alone is right; of b both"


def test_the_map_is_drawn_with_and_without_a_truth(task, model):
    report = Report(task)
    batch = task.collate([task.encode(record, None) for record in PAIRS])
    with torch.inference_mode():
        _, predictions = task.evaluate_batch(model, batch)
    truths = [task.truths(record)[0] for record in PAIRS]
    without = report.picture(PAIRS[0], task.predict(model, batch)[:1], None)
    known = report.picture(PAIRS[0], predictions[:1], truths[:1])
    looks = predictions[0]["attention"].size > 0
    frame = (known == np.array([230, 120, 0], np.uint8)).all(axis=2)
    assert frame.any() == looks, "what people aligned has a frame"
    assert known.shape[0] > without.shape[0]
    keyed = {r.key: p for r, p in zip(PAIRS, predictions, strict=True)}
    plots = {plot.name: plot for plot in report.plots(keyed, {r.key: t for r, t in zip(PAIRS, truths, strict=True)})}
    assert ("attention" in plots) == looks
    if looks:
        cells = plots["attention"].rows
        assert len(cells) == 5 * 5, "rows the reference's tokens with their end, columns the source's with theirs"
        assert {cell[:2] for cell in cells if cell[3]} == {("1 La", "1 The"), ("2 loi", "3 law"), ("3 neuve", "2 new")}
        assert cells[-1][:2] == ("5 <eos>", "5 <eos>")


def test_what_cannot_be_learnt_is_told():
    with pytest.raises(ConfigError, match="no targets"):
        Task(Task.Config(), DataSpec(dataset="d", classes=(), vocabulary={"sources": [["a", 2]]}))
    with pytest.raises(ConfigError, match="must rise"):
        Task.Config(length_bins=(5, 5))
    with pytest.raises(ConfigError, match="length_factor"):
        Task.Config(length_factor=0.5)
