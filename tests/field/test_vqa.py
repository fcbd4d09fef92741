"""VQA as people bring it, after public bug reports: the same is learned as of the control."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from contracts.records import DataSpec
from contracts.text import words
from lightning_modules.tasks.vqa import Task, VQAConfig
from pipeline.stages.evaluate import evaluate
from pipeline.stages.train import train
from tests.command import sightline

VQA: dict[str, Any] = {"vqa": {}}
RUN = {
    "dataset": "data",
    "task": {"name": "vqa", "image_size": 32},
    "model": {"name": "lstm_vqa", "embedding_channels": 8, "hidden_channels": 8, "fused_channels": 8},
}
ALL = ["q00-control", "q01-no-multiple-choice-answer", "q02-question-ids-text", "q03-answers-are-numbers"]
GERMAN = "q06b-german-questions"


@pytest.mark.parametrize("name", [*ALL, GERMAN, "q08-no-question-type"])
def test_every_picture_and_question_is_used(prepare: Callable, name: str) -> None:
    found = prepare(name, VQA)
    assert {split: len(records) for split, records in found.records.items()} == {"train": 12, "val": 4}
    assert not found.lost()
    questions = [q for split in found.records.values() for record in split for q in record.questions]
    assert len(questions) == 16 * 4
    assert all(len(q.answers) == 10 and q.multiple_choice_answer == q.answers[0] for q in questions)
    fixed = found.manifest["splits"]["train"]["fixed"]
    assert fixed == ({"most_frequent_answer": 48} if name.startswith("q01") else {})
    assert "4 of 4 images of split 'val' of data are in split 'train' too" in found.told
    if name == GERMAN:
        assert {"schüssel", "gläser", "straße"} <= {word for word, _ in found.vocabulary["questions"]}


@pytest.mark.parametrize("name", [*ALL[1:], "q08-no-question-type"])
def test_what_is_learned_is_what_the_control_teaches(prepare: Callable, name: str) -> None:
    control, found = prepare(ALL[0], VQA), prepare(name, VQA)
    assert found.vocabulary == control.vocabulary
    targets = []
    for one in (control, found):
        task = Task(VQAConfig(image_size=32), DataSpec(dataset="data", classes=(), vocabulary=one.vocabulary))
        batch = task.collate([task.encode(record, None) for record in one.records["train"]])
        targets.append((batch["questions"].tolist(), batch["targets"].tolist()))
    assert targets[0] == targets[1]
    assert max(map(max, targets[1][1])) == 1


@pytest.mark.filterwarnings("default")
def test_a_set_without_question_types_trains_and_is_evaluated(prepare: Callable) -> None:
    found = prepare("q08-no-question-type", VQA, {"job": RUN})
    train(found.project, found.params, "job")
    evaluate(found.project, found.params, "job")  # delivers all metrics to MLflow, by their names
    metrics = json.loads(found.project.measured("job").read_text())
    names = Counter(name.partition("/")[0] for name in metrics["metrics"])
    assert names["overall"] == 1
    assert not names["perQuestionType"]


@pytest.mark.parametrize("name", [*ALL, GERMAN, "q08-no-question-type"])
def test_the_scorer_takes_the_same_files(
    field: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    questions = field / name / "vqa/v2_OpenEnded_mscoco_val2014_questions.json"
    truth = field / name / "vqa/v2_mscoco_val2014_annotations.json"
    answers = json.loads(truth.read_text())["annotations"]
    results = [{"question_id": a["question_id"], "answer": a["answers"][0]["answer"]} for a in answers]
    (tmp_path / "results.json").write_text(json.dumps(results))
    files = ["--questions", str(questions), "--truth", str(truth), "--predictions", str(tmp_path / "results.json")]
    assert sightline("score", ["vqa", *files]) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["overall"], document["num_items"]) == (100, 16)


def test_words_of_german_questions_keep_their_umlauts() -> None:
    assert words("Welche Farbe hat die Schüssel?") == ["welche", "farbe", "hat", "die", "schüssel"]
