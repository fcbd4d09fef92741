"""Captions in other scripts: learned, written and measured in their own words or characters."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from contracts.records import DataSpec
from lightning_modules.reports.captioning import Report
from lightning_modules.tasks.captioning import CaptioningConfig, Task
from tests.command import sightline

COCO = {"coco": {"instances": ""}}
NAMES = ["t01-captions-de", "t01-captions-zh"]


@pytest.mark.parametrize(
    ("name", "expected"),
    [("t01-captions-de", {"mädchen", "läuft", "über", "grüne"}), ("t01-captions-zh", {"猫", "坐", "在", "桌", "子"})],
)
def test_captions_are_read_and_written(prepare: Callable, name: str, expected: set[str]) -> None:
    found = prepare(name, COCO)
    assert not found.lost()
    assert expected <= {word for word, _ in found.vocabulary["captions"]}
    data = DataSpec(dataset="data", classes=(), vocabulary=found.vocabulary)
    task = Task(CaptioningConfig(image_size=32, min_word_count=1), data)
    truths = {record.key: task.truths(record)[0] for record in found.records["val"]}
    for record in found.records["val"]:
        for caption in record.captions:
            ids = task.vocabulary.encode(caption.text)
            assert 1 not in ids, "no word is unknown"
    constant = Report(task).constant(truths)
    values = {name: value for m in task.measure(constant, truths) for name, value in m.values.items()}
    assert values["Bleu_4"] > 0.99, "one of the references, word by word"
    (caption,) = {prediction["caption"] for prediction in constant.values()}
    assert (" " in caption) == (name == "t01-captions-de")
    picture = Report(task).picture(found.records["val"][0], list(constant.values())[:1], None)
    assert picture.any()


@pytest.mark.parametrize("name", NAMES)
def test_the_scorer_tells_right_from_wrong(field: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    scores = {}
    for results in ("results", "results_wrong"):
        files = ["--truth", str(field / name / "annotations/captions_val2017.json")]
        assert (
            sightline(
                "score", ["captions", "--no-java", *files, "--predictions", str(field / name / f"{results}.json")]
            )
            == 0
        )
        scores[results] = json.loads(capsys.readouterr().out)
    assert scores["results"]["Bleu_4"] > 0.99
    assert scores["results"]["ROUGE_L"] == 1
    assert scores["results_wrong"]["Bleu_1"] < 0.01
