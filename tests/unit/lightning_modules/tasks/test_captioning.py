from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch

from contracts.errors import ConfigError
from contracts.records import Caption, DataSpec, Record
from contracts.text import words
from lightning_modules.augment.augment import AugmentConfig
from lightning_modules.models import soft_attention
from lightning_modules.reports.captioning import Report
from lightning_modules.tasks.captioning import CaptioningConfig, Task

COLOURS = {"red": (200, 30, 30), "green": (30, 180, 40), "blue": (30, 60, 220), "white": (250, 250, 250)}
CONFIG = CaptioningConfig(image_size=64, captions_per_image=2, min_word_count=1, beam_size=2)


def _record(name, colour, captions):
    image = np.zeros((48, 60, 3), np.uint8)
    image[10:40, 12:44] = colour[::-1]
    return Record(
        key=name,
        image_id=name,
        width=60,
        height=48,
        image=cv2.imencode(".png", image)[1].tobytes(),
        image_format="png",
        captions=tuple(Caption(caption_id=i, text=text) for i, text in enumerate(captions)),
    )


RECORDS = [
    _record(name, colour, [f"A {name} box.", f"There is a big {name} box!", f"one {name} box in the dark"])
    for name, colour in COLOURS.items()
]
VOCABULARY = sorted({word for record in RECORDS for caption in record.captions for word in words(caption.text)})
DATA = DataSpec(dataset="boxes", classes=(), vocabulary={"captions": [[word, 1] for word in VOCABULARY]})


@pytest.fixture
def task():
    return Task(CONFIG, DATA)


@pytest.fixture
def model(task):
    torch.manual_seed(0)
    config = soft_attention.Config(embedding_channels=32, hidden_channels=48, attention_channels=16, dropout=0.0)
    return soft_attention.Model(config, task.spec())


def test_batch_holds_each_image_once_and_all_its_captions(task):
    batch = task.collate([task.encode(record, None) for record in RECORDS[:2]])
    assert batch["images"].shape == (2, 3, 64, 64)
    assert batch["images"].dtype == torch.uint8
    assert batch["caption_image"].tolist() == [0, 0, 0, 1, 1, 1]
    first = batch["tokens"][0].tolist()
    assert first[0] == 2
    assert first[1:4] == [task.vocabulary.ids[word] for word in ("a", "red", "box")]
    assert first[4] == 3
    assert set(first[5:]) <= {0}
    assert batch["tokens"].shape == (6, 8)


def test_training_draws_captions_by_seed(task):
    def drawn(seed):
        return [tuple(tokens) for tokens in task.encode(RECORDS[0], seed)["tokens"]]

    assert drawn(3) == drawn(3)
    assert len(set(drawn(3))) == 2
    assert len({frozenset(drawn(seed)) for seed in range(20)}) == 3  # all pairs of three


def test_a_mirrored_image_has_mirrored_captions():
    vocabulary = {"captions": [[word, 1] for word in ("box", "left", "right")]}
    config = CaptioningConfig(
        image_size=48, captions_per_image=1, min_word_count=1, mirror=1.0, augment=AugmentConfig()
    )
    task = Task(config, DataSpec(dataset="boxes", classes=(), vocabulary=vocabulary))
    record = _record("x", (200, 30, 30), ["box left"])
    plain, mirrored = task.encode(record, None), task.encode(record, 7)
    ids = task.vocabulary.ids
    assert plain["tokens"][0].tolist() == [2, ids["box"], ids["left"], 3]
    assert mirrored["tokens"][0].tolist() == [2, ids["box"], ids["right"], 3]
    columns = [np.flatnonzero((e["image"][24] > 100).any(-1)) for e in (plain, mirrored)]
    assert abs(columns[0][0] + columns[1][-1] - 47) <= 1


def test_long_captions_are_cut_and_unknown_words_marked():
    task = Task(CaptioningConfig(image_size=32, min_word_count=1, max_words=3), DATA)
    record = _record("x", (9, 9, 9), ["a zebra red box is here"])
    ids = task.vocabulary.ids
    assert task.encode(record, None)["tokens"][0].tolist() == [2, ids["a"], 1, ids["red"], 3]


def test_losses_equal_the_formulas_and_ignore_padding(task, model):
    model.eval()
    batch = task.collate([task.encode(record, None) for record in RECORDS[:2]])
    losses = task.losses(model, batch)
    features = model.encode(batch["images"])
    log_probs, squares = [], []
    for tokens, image in zip(batch["tokens"], batch["caption_image"], strict=True):
        tokens = tokens[tokens != 0][None]
        logits, attention = model.decode(features, tokens[:, :-1], image[None])
        log_probs += torch.log_softmax(logits[0], -1).gather(1, tokens[0, 1:, None]).flatten().tolist()
        squares.append((1 - attention[0].sum(0)).square().mean().item())
    cross_entropy, attention = losses["cross_entropy"], losses["attention"]
    assert (cross_entropy.count, attention.count) == (len(log_probs), len(squares))
    assert cross_entropy.value.item() == pytest.approx(-np.mean(log_probs), abs=1e-5)
    assert attention.value.item() == pytest.approx(CONFIG.attention_weight * np.mean(squares), abs=1e-5)
    wider = {**batch, "tokens": torch.nn.functional.pad(batch["tokens"], (0, 5))}
    for name, value in task.losses(model, wider).items():
        torch.testing.assert_close(value, losses[name])


def test_learns_four_images_by_heart(task, model):
    one_each = [replace(record, captions=record.captions[:1]) for record in RECORDS]
    batch = task.collate([task.encode(record, None) for record in one_each])
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    first = None
    for _ in range(60):
        losses = task.losses(model, batch)
        total = losses["cross_entropy"].value + losses["attention"].value
        first = total.item() if first is None else first
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
    assert total.item() < 0.1 * first
    model.eval()
    captions = [p["caption"] for p in task.predict(model, batch)]
    assert captions == [f"a {name} box" for name in COLOURS]


def test_one_pass_gives_the_same_as_losses_and_predict(task, model):
    model.eval()
    batch = task.collate([task.encode(record, None) for record in RECORDS])
    losses, predictions = task.evaluate_batch(model, batch)
    expected = task.losses(model, batch)
    assert losses.keys() == expected.keys() == {"cross_entropy", "attention"}
    for name in expected:
        torch.testing.assert_close(losses[name], expected[name])
    assert [p["caption"] for p in predictions] == [p["caption"] for p in task.predict(model, batch)]


def test_a_bare_image_gets_a_caption_with_a_map_per_word(task, model):
    model.eval()
    bare = _record("bare", (1, 2, 3), [])
    (prediction,) = task.predict(model, task.collate([task.encode(bare, None)]))
    assert prediction["caption"].split() == prediction["words"]
    assert prediction["attention"].shape == (len(prediction["words"]), 4, 4)
    assert prediction["attention"].dtype == np.float16
    np.testing.assert_allclose(prediction["attention"].sum((1, 2), dtype=np.float32), 1, atol=1e-2)
    assert task.answer(prediction) == {"caption": prediction["caption"], "log_prob": prediction["log_prob"]}


def _said(text):
    return {"words": text.split(), "caption": text}


def test_score_of_a_reference_is_one_and_of_silence_zero(task):
    truths = {record.key: task.truths(record)[0] for record in RECORDS}
    right = {key: _said(f"one {key} box in the dark") for key in truths}
    assert task.score(right, truths)["Bleu_4"] == pytest.approx(1)
    assert task.score(dict.fromkeys(truths, _said("")), truths)["Bleu_4"] == 0


def test_an_image_whose_captions_hold_no_word_does_not_break_the_score(task):
    records = [*RECORDS, _record("mute", (0, 0, 0), ["...", "!"])]
    truths = {record.key: task.truths(record)[0] for record in records}
    right = {key: _said(f"one {key} box in the dark") for key in truths}
    assert task.score(right, truths)["Bleu_4"] == pytest.approx(1)
    assert Report(task).constant(truths).keys() == truths.keys()


def test_constant_is_the_caption_that_scores_best_everywhere(task):
    truths = {
        "a": {"captions": ["A red box on a table.", "It is."]},
        "b": {"captions": ["A red box on a table.", "It is."]},
        "c": {"captions": ["A red box on a shelf.", "It is."]},
    }
    constant = Report(task).constant(truths)
    assert {p["caption"] for p in constant.values()} == {"a red box on a table"}  # not the more frequent "it is"
    assert task.score(constant, truths)["Bleu_4"] > 0.5


def test_plots_count_words(task):
    truths = {"a": task.truths(RECORDS[0])[0], "b": task.truths(RECORDS[1])[0]}
    predictions = {"a": _said("a red box"), "b": _said("a box")}
    length, recall = Report(task).plots(predictions, truths)
    assert (3, 0.5, "predicted") in length.rows
    assert dict(recall.rows) == {"box": 1.0, "red": 1.0, "green": 0.0}


def test_words_are_plotted_in_the_same_order_each_time(task):
    """Not in that of a set, which another process has otherwise."""
    truth = task.truths(_record("x", (0, 0, 0), ["zebra yak box ape", "ape box yak zebra"]))[0]
    _, recall = Report(task).plots({"x": _said("a box")}, {"x": truth})
    assert [word for word, _ in recall.rows] == ["ape", "box", "yak", "zebra"]


def test_picture_has_a_tile_per_word(task):
    prediction = {"words": ["a"] * 7, "caption": "a " * 7, "attention": np.full((7, 4, 4), 1 / 16, np.float16)}
    tall = Report(task).picture(RECORDS[0], [prediction], task.truths(RECORDS[0]))
    short = Report(task).picture(RECORDS[0], [{"words": [], "caption": "", "attention": np.zeros((0, 4, 4))}], None)
    assert tall.dtype == np.uint8
    assert tall.shape[2] == 3
    assert tall.shape[0] > short.shape[0] + 150  # two rows of tiles


@pytest.mark.parametrize(
    "wrong", [{"beam_size": 0}, {"attention_weight": -1.0}, {"length_power": float("nan")}, {"mirror": 1.5}]
)
def test_settings_out_of_range_are_refused(wrong):
    with pytest.raises(ConfigError, match=f"{next(iter(wrong))} must be"):
        CaptioningConfig(**wrong)


def test_a_data_set_without_captions_is_refused():
    with pytest.raises(ConfigError, match="no captions"):
        Task(CONFIG, DataSpec(dataset="voc", classes=("cat",), vocabulary={"captions": []}))
