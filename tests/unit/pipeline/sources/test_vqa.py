"""The VQA v2 source: questions and answers that go together, and those that do not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from contracts.errors import ConfigError, DataError
from contracts.records import Problem, RawRecord
from pipeline.door import RULES
from pipeline.sources import vqa
from pipeline.sources._files import record_key


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
    assert {p.kind for p in problems} <= {"question"}
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


def test_questions_and_answers_that_do_not_match(tmp_path: Path) -> None:
    good = [question(1), question(2), question(3), question(4)]
    bad = [
        question(0),
        question("5"),
        question(6, "25"),
        question(7, -1),
        question(8, question=None),
        "text",
        question(1, question="again"),
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
    ]
    write(tmp_path, good + bad, answers)
    (record,), problems = read(tmp_path)
    assert [q.question_id for q in record.questions] == [1]
    assert record.questions[0].text == "What is 1?"
    assert problems == [
        ("bad_annotation_id", "0"),
        ("bad_annotation_id", "5"),
        ("bad_image_id", "6"),
        ("bad_image_id", "7"),
        ("bad_question", "8"),
        ("not_an_object", "questions[9]"),
        ("duplicate_annotation_id", "1"),
        ("unknown_question", "99"),
        ("bad_annotation_id", "None"),
        ("bad_answers", "3"),
        ("not_an_object", "annotations[6]"),
        ("duplicate_annotation_id", "1"),
        ("question_image_mismatch", "2"),
        ("question_without_answers", "3"),
        ("question_without_answers", "4"),
    ]


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
