"""The VQA v2 source: questions and answers that go together, and those that do not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from contracts.errors import ConfigError, DataError
from contracts.raw import Problem, RawRecord
from pipeline.ingest.door import RULES
from pipeline.ingest.sources import vqa
from pipeline.ingest.sources._files import record_key


def question(number: Any, image_id: Any = 25, **changes: Any) -> dict[str, Any]:
    return {"question_id": number, "image_id": image_id, "question": f"What is {number}?", **changes}


def answer(number: Any, image_id: Any = 25, **changes: Any) -> dict[str, Any]:
    answers = [{"answer": "a dog", "answer_confidence": "yes", "answer_id": i} for i in range(1, 11)]
    known = {"answers": answers, "multiple_choice_answer": "a dog", "question_type": "what is", "answer_type": "other"}
    return {"question_id": number, "image_id": image_id, **known, **changes}


def write(root: Path, questions: list, annotations: list | None, split: str = "train") -> None:
    (root / "vqa").mkdir(exist_ok=True)
    document = {"info": {}, "questions": questions}
    (root / f"vqa/v2_OpenEnded_mscoco_{split}2014_questions.json").write_text(json.dumps(document))
    if annotations is not None:
        text = json.dumps({"info": {}, "annotations": annotations})
        (root / f"vqa/v2_mscoco_{split}2014_annotations.json").write_text(text)


def read(root: Path, split: str = "train", **config: Any) -> tuple[list[RawRecord], list[tuple[str, str]]]:
    items = list(vqa.read(root, split, vqa.Config(**config)))
    problems = [item for item in items if isinstance(item, Problem)]
    assert {p.kind for p in problems} <= {"question", "answer"}
    assert {p.reason for p in problems} <= RULES.keys()
    return [i for i in items if isinstance(i, RawRecord)], [(p.reason, p.item_id) for p in problems]


def test_questions_get_their_answers(tmp_path: Path) -> None:
    write(
        tmp_path, [question(25001), question(9000, 9), question(25000)], [answer(25000), answer(9000, 9), answer(25001)]
    )
    records, problems = read(tmp_path)
    assert problems == []
    assert [(r.key, r.image_id) for r in records] == [("train2017-000000000009", 9), ("train2017-000000000025", 25)]
    assert records[1].image == tmp_path / "train2017/000000000025.jpg"
    assert [q.question_id for q in records[1].questions] == [25001, 25000]
    first = records[1].questions[0]
    assert first.answers == ("a dog",) * 10
    assert (first.multiple_choice_answer, first.question_type, first.answer_type) == ("a dog", "what is", "other")
    assert vqa.classes(tmp_path, vqa.Config()) == ()
    assert vqa.splits(tmp_path, vqa.Config()) == ("train",)


def test_every_question_is_kept_or_told_once(tmp_path: Path) -> None:
    good = [question(1), question(2), question(3), question(4)]
    bad = [
        question(-1),
        question(""),
        question(6, True),
        question(7, -1),
        question(8, question=None),
        "text",
        question(1, question="again"),
        question(9, "../25"),
    ]
    answers = [
        answer(1),
        answer(2, 26),
        answer(4, answers=[]),
        answer(99),
        answer(None),
        answer(3, answers=["a dog"]),
        7,
        answer(1),
        answer(6),  # of a question that was told
        answer(9),
    ]
    write(tmp_path, good + bad, answers)
    items = list(vqa.read(tmp_path, "train", vqa.Config(images="{split}2017/{image_id}.jpg")))
    (record,) = [item for item in items if isinstance(item, RawRecord)]
    problems = [(p.kind, p.reason, p.item_id) for p in items if isinstance(p, Problem)]
    assert [q.question_id for q in record.questions] == [1]
    assert record.questions[0].text == "What is 1?"
    assert problems == [
        ("question", "bad_annotation_id", "-1"),
        ("question", "bad_annotation_id", ""),
        ("question", "bad_image_id", "6"),
        ("question", "bad_image_id", "7"),
        ("question", "bad_question", "8"),
        ("question", "not_an_object", "questions[9]"),
        ("question", "duplicate_annotation_id", "1"),
        ("answer", "unknown_question", "99"),
        ("answer", "bad_annotation_id", "None"),
        ("answer", "not_an_object", "annotations[6]"),
        ("answer", "duplicate_annotation_id", "1"),
        ("question", "bad_image_id", "9"),
        ("question", "question_image_mismatch", "2"),
        ("question", "bad_answers", "3"),
        ("question", "question_without_answers", "4"),
    ]
    told = sum(kind == "question" for kind, _, _ in problems)
    assert told + len(record.questions) == len(good + bad), "questions of the file = kept + dropped"


def test_ids_are_numbers_or_texts_and_answers_may_be_numbers(tmp_path: Path) -> None:
    numbers = {"answers": [{"answer": value} for value in (2, 2.0, 2.5, "two")], "multiple_choice_answer": 2}
    questions = [question(0, "25"), question("7", 25), question("007", "cat"), question("x y", "dog")]
    answers = [answer("0", 25), answer(7), answer("007", "cat", **numbers), answer("x y", None)]
    write(tmp_path, questions, answers)
    records, problems = read(tmp_path, images="{split}2017/{image_id}.jpg")
    assert problems == []
    assert {r.image_id: [q.question_id for q in r.questions] for r in records} == {
        25: [0, 7],
        "cat": ["007"],
        "dog": ["x y"],
    }
    (record,) = [r for r in records if r.image_id == "cat"]
    assert record.image == tmp_path / "train2017/cat.jpg"
    assert record.questions[0].answers == ("2", "2", "2.5", "two")
    assert record.questions[0].multiple_choice_answer == "2"
    (record,), problems = read(tmp_path)  # "cat" has no place in {image_id:012d}
    assert record.image_id == 25
    assert sorted(problems) == [("bad_image_id", "007"), ("bad_image_id", "x y")]


def test_a_split_without_annotations_is_unlabelled(tmp_path: Path) -> None:
    write(tmp_path, [question(1)], None, "test")
    (record,), problems = read(tmp_path, "test")
    assert problems == []
    assert record.questions[0].answers == ()


def test_official_image_names(tmp_path: Path) -> None:
    write(tmp_path, [question(1)], [answer(1)])
    (record,), _ = read(tmp_path, images="{split}2014/COCO_{split}2014_{image_id:012d}.jpg")
    assert record.image == tmp_path / "train2014/COCO_train2014_000000000025.jpg"
    assert record.key == record_key("train2014/COCO_train2014_000000000025.jpg")
    write(tmp_path, [question(1, 1), question(2, 2)], None)
    records, _ = read(tmp_path, images="{image_id}/photo.jpg")
    assert [r.key for r in records] == ["1-photo", "2-photo"]


def test_mistakes_stop(tmp_path: Path) -> None:
    write(tmp_path, [], [])
    with pytest.raises(DataError, match="no questions"):
        read(tmp_path)
    with pytest.raises(ConfigError, match="same file"):
        vqa.Config(images="x.jpg")
    with pytest.raises(ConfigError, match="filled in"):
        vqa.Config(images="{image_id:zz}.jpg")
