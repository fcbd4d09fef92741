"""Video captioning: clips with captions to batches, mirrored words, and captions written by beam."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch

from contracts.annotations import Caption
from contracts.records import DataSpec
from contracts.text import BEGIN, END
from lightning_modules.augment.config import AugmentConfig
from lightning_modules.models.s2vt import Config, Model
from lightning_modules.reports.video_captioning import Report
from lightning_modules.tasks.video_captioning import Task, VideoCaptioningConfig
from tests.clips import clip_record

WORDS = ["a", "bar", "moves", "left", "right", "then", "waits"]
DATA = DataSpec(dataset="d", classes=(), vocabulary={"captions": [[word, 5] for word in WORDS]})


def task(**settings: Any) -> Task:
    plain = {"image_size": 24, "augment": AugmentConfig(brightness_contrast=0.0), "mirror": 0.0}
    return Task(VideoCaptioningConfig(**{**plain, **settings}), DATA)


def captions(*texts: str) -> tuple[Caption, ...]:
    return tuple(Caption(caption_id=i, text=text) for i, text in enumerate(texts))


RECORDS = [
    clip_record("a", range(5), captions=captions("A bar moves right.", "a bar moves right then waits")),
    clip_record("b", [3, 2], captions=captions("a bar moves left")),
]


def test_batches() -> None:
    t = task()
    batch = t.collate([t.encode(record, None) for record in RECORDS])
    assert batch["lengths"] == [5, 2] and batch["caption_clip"].tolist() == [0, 0, 1]
    assert batch["tokens"].tolist() == [
        [BEGIN, 4, 5, 6, 8, END, 0, 0], [BEGIN, 4, 5, 6, 8, 9, 10, END], [BEGIN, 4, 5, 6, 7, END, 0, 0],
    ]  # fmt: skip
    assert batch["counts"] == {"cross_entropy": 5 + 7 + 5}
    assert len(task(captions_per_clip=1).encode(RECORDS[0], 3)["tokens"]) == 1
    asked = t.collate([t.encode(clip_record("c", [1, 2]), None)])
    assert asked["tokens"].shape == (0, 2) and asked["lengths"] == [2], "a clip alone can be asked"


def test_a_mirrored_clip_has_mirrored_words() -> None:
    (tokens,) = task(mirror=1.0).encode(RECORDS[1], 3)["tokens"]
    assert task().vocabulary.text(tokens.tolist()) == "a bar moves right"


def test_losses_and_captions_of_a_batch_are_those_of_each_clip_alone() -> None:
    t = task(max_words=6)
    torch.manual_seed(1)
    net = Model(Config(backbone="tiny", features=8, embedding=6, hidden=7, dropout=0.0), t.spec()).eval()
    batch = t.collate([t.encode(record, None) for record in RECORDS])
    losses, together = t.evaluate_batch(net, batch)
    total = 0.0
    for record, expected in zip(RECORDS, together, strict=True):
        one = t.collate([t.encode(record, None)])
        total += t.losses(net, one)["cross_entropy"].total.item()
        (alone,) = t.predict(net, one)
        assert alone["caption"] == expected["caption"] and alone["log_prob"] == pytest.approx(
            expected["log_prob"], abs=1e-4
        )
        assert len(alone["words"]) <= 6 and json.dumps(t.answer(alone))
    assert losses["cross_entropy"].total.item() == pytest.approx(total, rel=1e-5)
    assert losses["cross_entropy"].count == 17


def test_scores_constants_and_pictures() -> None:
    t = task()
    truths = {record.key: t.truths(record)[0] for record in RECORDS}
    said = {"a": "a bar moves right then waits", "b": "a bar moves left"}
    predictions = {key: {"caption": text, "words": text.split(), "log_prob": -1.0} for key, text in said.items()}
    values = {name: value for m in t.measure(predictions, truths, thorough=True) for name, value in m.values.items()}
    assert values["Bleu_4"] == pytest.approx(1.0) and values["then_order"] == 1.0
    report = Report(t)
    constant = report.constant(truths)
    assert len({one["caption"] for one in constant.values()}) == 1 and "CIDEr" in t.score(constant, truths)
    for known in (None, t.truths(RECORDS[0])):
        picture = report.picture(RECORDS[0], [predictions["a"]], known)
        assert picture.dtype == np.uint8 and picture.shape[1:] == (640, 3)
    assert report.plots(predictions, truths)
