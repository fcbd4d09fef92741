"""The Visual7W source: both official files, and what is wrong in them."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from contracts.errors import ConfigError, DataError
from contracts.raw import Problem, RawRecord
from pipeline.ingest.door import RULES, admit
from pipeline.ingest.sources import visual7w
from tests.pictures import encode, scene


def pair(qa_id: Any, answer: Any = "A dog.", wrong: Any = ("A cat.", "A cow.", "A hen."), **changes: Any) -> dict:
    known = {"qa_id": qa_id, "question": f"What is {qa_id}?", "answer": answer, "type": "what"}
    return {**known, "multiple_choices": list(wrong) if isinstance(wrong, tuple) else wrong, **changes}


def image(number: int, *pairs: Any, split: Any = "train", **changes: Any) -> dict:
    return {"image_id": number, "filename": f"v7w_{number}.jpg", "split": split, "qa_pairs": list(pairs), **changes}


def box(box_id: Any, x: Any, y: Any, width: Any = 10, height: Any = 10) -> dict:
    return {"box_id": box_id, "image_id": 1, "name": "dog", "x": x, "y": y, "width": width, "height": height}


def write(root: Path, images: list, boxes: list | None = None, name: str = "dataset.json") -> Path:
    document = {"dataset": "visual7w", "images": images} | ({} if boxes is None else {"boxes": boxes})
    (root / name).write_text(json.dumps(document))
    return root


def read(root: Path, split: str = "train", **config: Any) -> tuple[list[RawRecord], list[tuple[str, str]]]:
    items = list(visual7w.read(root, split, visual7w.Config(**config)))
    problems = [item for item in items if isinstance(item, Problem)]
    assert {p.reason for p in problems} <= RULES.keys()
    return [i for i in items if isinstance(i, RawRecord)], [(p.reason, p.item_id) for p in problems]


def test_telling_has_the_right_text_among_the_wrong_ones(tmp_path: Path) -> None:
    write(tmp_path, [image(20, pair(4), pair(3)), image(3, pair(9, "Two."), split="val")])
    assert visual7w.splits(tmp_path, visual7w.Config()) == ("train", "val")
    assert visual7w.classes(tmp_path, visual7w.Config()) == ()
    (record,), problems = read(tmp_path)
    assert problems == [] and record.image == tmp_path / "images/v7w_20.jpg" and record.image_id == 20
    first = record.questions[0]
    assert (first.question_id, first.question_type, first.answers) == (4, "what", ("A dog.",))
    assert set(first.candidates) == {"A dog.", "A cat.", "A cow.", "A hen."} and not first.candidate_boxes
    assert first.candidates[first.answer_index] == "A dog."


def test_candidates_are_shuffled_by_the_number_alone(tmp_path: Path) -> None:
    write(tmp_path, [image(1, *map(pair, range(400)))])
    (record,), _ = read(tmp_path)
    places = Counter(question.answer_index for question in record.questions)
    assert places.keys() == {0, 1, 2, 3} and min(places.values()) > 70
    write(tmp_path, [image(1, pair(7))])
    assert read(tmp_path)[0][0].questions[0] == record.questions[7]


def test_pointing_has_boxes_as_they_are_written_and_the_door_clips(tmp_path: Path) -> None:
    """x and y of -1, and boxes that reach outside."""
    boxes = [box(11, -1, -1), box(12, 20, 5), box(13, "30", 10), box(14, 35, 25, 40, 40)]
    write(tmp_path, [image(1, pair(5, 12, (11, 13, 14), type=None, question="Which dog?"))], boxes)
    (tmp_path / "images").mkdir()
    (tmp_path / "images/v7w_1.jpg").write_bytes(encode(scene(40, 48)))
    (record,), problems = read(tmp_path)
    (question,) = record.questions
    assert problems == [] and question.question_type == "which" and question.answers == ()
    right = question.candidate_boxes[question.answer_index]
    assert right == (20, 5, 30, 15) and question.candidates[question.answer_index] == "12"
    assert (-1, -1, 9, 9) in question.candidate_boxes
    admitted = admit(record, ())
    assert admitted.problems == [] and admitted.fixes["box_clipped"] == 2
    assert admitted.record is not None
    assert {(0, 0, 9, 9), (35, 25, 48, 40)} < set(admitted.record.questions[0].candidate_boxes)


def test_a_candidate_equal_to_the_answer_is_refused_at_the_door(tmp_path: Path) -> None:
    write(tmp_path, [image(1, pair(1), pair(2, wrong=("A cat.", "A  dog.", "A hen.")))])
    (tmp_path / "images").mkdir()
    (tmp_path / "images/v7w_1.jpg").write_bytes(encode(scene(40, 48)))
    admitted = admit(read(tmp_path)[0][0], ())
    assert [(p.reason, p.item_id) for p in admitted.problems] == [("duplicate_candidate", "2")]


def test_each_bad_part_is_told_once(tmp_path: Path) -> None:
    bad = [
        pair("x"), "text", pair(1, question=None), pair(2, answer=5), pair(3, wrong=[]), pair(4), pair(4), pair(-6),
        pair(5, wrong="A cat."),
    ]  # fmt: skip
    images = [image(1, *bad), image(2, filename="../up.jpg"), image(3, qa_pairs=None), image(4, split=None), "no image"]
    write(tmp_path, [*images, image(9, pair(8), split="val")])
    records, problems = read(tmp_path)
    assert [question.question_id for record in records for question in record.questions] == [4]
    assert Counter(problems) == Counter([
        ("bad_annotation_id", "x"), ("not_an_object", "images[0].qa_pairs[1]"), ("bad_question", "1"),
        ("bad_choices", "2"), ("bad_choices", "3"), ("duplicate_annotation_id", "4"), ("bad_annotation_id", "-6"),
        ("bad_choices", "5"), ("unsafe_path", "images[1]"), ("bad_image_entry", "images[2]"),
        ("bad_image_entry", "images[3]"), ("bad_image_entry", "images[4]"),
    ])  # fmt: skip
    assert read(tmp_path, "val")[1] == []


def test_boxes_that_are_none_or_not_there(tmp_path: Path) -> None:
    boxes = [box(1, 0, 0), box(2, 5, 5), {"box_id": 3}, "box", box(None, 1, 1)]
    write(tmp_path, [image(1, pair(1, 1, (2, 99)), pair(2, 1, (2,)), pair(3, "text", (1,)))], boxes)
    (record,), problems = read(tmp_path)
    assert [question.question_id for question in record.questions] == [2]
    assert problems == [
        ("bad_box", "3"), ("bad_box", "boxes[3]"), ("bad_box", "boxes[4]"), ("bad_choices", "1"), ("bad_choices", "3"),
    ]  # fmt: skip


def test_numbers_are_unique_in_one_file_only_so_one_is_read(tmp_path: Path) -> None:
    write(tmp_path, [image(1, pair(1))], name="dataset_v7w_telling.json")
    write(tmp_path, [image(1, pair(1, 1, (2,)))], [box(1, 0, 0), box(2, 5, 5)], name="dataset_v7w_pointing.json")
    with pytest.raises(ConfigError, match=r"(?s)several files.*two data sets"):
        visual7w.splits(tmp_path, visual7w.Config())
    for name, has_boxes in (("telling", False), ("pointing", True)):
        (record,), _ = read(tmp_path, questions=f"dataset_v7w_{name}.json")
        assert bool(record.questions[0].candidate_boxes) == has_boxes


def test_splits_by_other_names_and_files_that_are_none(tmp_path: Path) -> None:
    write(tmp_path, [image(1, pair(1), split="dev")])
    assert visual7w.splits(tmp_path, visual7w.Config(splits={"val": "dev"})) == ("val",)
    assert visual7w.splits(tmp_path, visual7w.Config(questions="absent.json")) == ()
    with pytest.raises(ConfigError, match="below the data set's folder"):
        visual7w.Config(questions="../x.json")
    write(tmp_path, [])
    with pytest.raises(DataError, match="lists no images"):
        visual7w.splits(tmp_path, visual7w.Config())


def test_real_telling_questions(shared_dir: Path) -> None:
    root = shared_dir / "data/visual7w_telling"
    if not root.is_dir():
        pytest.skip(f"no real data: {root}")
    config = {"questions": "derived/dataset.json", "images": "visual7w-images"}
    found = {split: read(root, split, **config) for split in visual7w.splits(root, visual7w.Config(**config))}
    assert all(not problems for _, problems in found.values())
    counts = {split: sum(len(r.questions) for r in records) for split, (records, _) in found.items()}
    assert counts == {"train": 363, "val": 10, "test": 9}
    kinds = Counter(q.question_type for records, _ in found.values() for r in records for q in r.questions)
    assert kinds == {"when": 160, "where": 143, "who": 79}
    assert all(
        record.image is not None and record.image.is_file() for records, _ in found.values() for record in records
    )
