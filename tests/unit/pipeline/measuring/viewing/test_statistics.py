"""What is counted of records, by values that a person worked out."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np

from contracts.annotations import Caption, Objects, Question, Sentence, Transcript
from contracts.records import IGNORE_INDEX, Record
from pipeline.measuring.viewing.statistics import (
    SIZES,
    SplitStatistics,
    class_rows,
    histograms,
    usual_answer,
    word_tables,
)

CLASSES = ("cat", "dog", "fish", "yak")


def record(**given: Any) -> Record:
    pixels = {"width": 200, "height": 100, "image": b"-", "image_format": "jpg"}
    return Record(**{"key": "a", "image_id": "a", **(pixels if "sentences" not in given else {}), **given})


def objects(labels: list[int], boxes: list[tuple[int, int, int, int]], crowds: int = 0) -> Objects:
    """The last `crowds` are crowds."""
    array = np.array(boxes, np.float32).reshape(-1, 4)
    none = np.zeros(len(labels), bool)
    return Objects(
        ids=list(map(str, labels)), boxes=array, labels=np.array(labels), masks=[""] * len(labels),
        areas=((array[:, 2] - array[:, 0]) * (array[:, 3] - array[:, 1])).astype(np.float64),
        is_crowd=np.arange(len(labels)) >= len(labels) - crowds, is_difficult=none, is_truncated=none,
    )  # fmt: skip


def counted(*records: Record) -> SplitStatistics:
    statistics = SplitStatistics()
    for one in records:
        statistics.add(one, CLASSES)
    return statistics


def test_objects_are_counted_by_class_and_by_cocos_sizes():
    one = counted(
        record(objects=objects([1, 1, 2, 2], [(0, 0, 31, 33), (0, 0, 32, 32), (0, 0, 96, 96), (0, 0, 9, 9)], crowds=1)),
        record(objects=objects([1], [(10, 0, 200, 100)])),
        record(),
    )
    assert one.amounts["objects"] == 4 and one.amounts["crowds beside them"] == 1 and one.amounts["images"] == 3
    assert one.classes == {"cat": 3, "dog": 1} and one.with_class == {"cat": 2, "dog": 1}
    assert [one.box_sizes[size] for size in SIZES] == [1, 1, 2], "31 x 33 = 1023, 32 x 32, and 96 x 96 is large"
    assert one.numbers["objects"] == {3: 1, 1: 1, 0: 1}
    assert one.numbers["side"] == {0.15: 2, 0.45: 1, 0.95: 1}, "33, 32, 96 and 190 of 200"


def test_classes_that_a_split_lacks_are_marked():
    splits = {
        "train": counted(record(labels=("dog",)), record(labels=("dog",)), record(labels=("cat",))),
        "val": counted(record(labels=("dog",)), record(labels=("fish",))),
    }
    rows, left = class_rows(splits, CLASSES)
    assert left == 0 and [row.name for row in rows] == ["dog", "cat", "fish", "yak"]
    assert [row.remark for row in rows] == [
        "", "not in val: is not measured there", "not in train: cannot be learned", "nowhere",
    ]  # fmt: skip
    assert rows[0].share == [1.0, 1.0] and rows[1].share == [0.5, 0.0]


def test_pixels_have_their_share_of_those_with_a_class():
    labels = np.array([[0, 1, 1, 2], [IGNORE_INDEX, 1, 0, 0]], np.uint8)
    one = counted(record(semantic_mask=cv2.imencode(".png", labels)[1].tobytes()))
    rows, _ = class_rows({"train": one}, CLASSES)
    assert [(row.name, row.cells) for row in rows[:2]] == [("cat", [(0, 1, 0.75)]), ("dog", [(0, 1, 0.25)])]
    assert one.amounts["pixels"] == 8 and one.amounts["pixels with a class"] == 4


def test_words_and_answers_that_train_lacks_are_told():
    question = Question(question_id=1, text="What is it?", answers=("a cat", "a cat", "dog"))
    train = counted(record(captions=(Caption(caption_id=1, text="A red, red cat."),), questions=(question,)))
    val = counted(record(captions=(Caption(caption_id=2, text="Red yak yak"),)))
    tables = {table.kind: table for table in word_tables({"train": train, "val": val})}
    assert tables["captions"].rows[0] == ("red", [2, 1]) and tables["captions"].num_different == [3, 2]
    assert tables["captions"].unknown == ["66.7% of those of val are never in train"]
    assert tables["answers"].rows == [("a cat", [1, 0])] and tables["answers"].unknown == []
    assert train.amounts["answers"] == 3 and train.numbers["captions"] == {4: 1}


def test_the_usual_answer_is_the_right_candidate_or_what_most_say():
    assert usual_answer(Question(question_id=1, text="?", candidates=("x", "y"), answer_index=1)) == "y"
    assert usual_answer(Question(question_id=1, text="?", answers=("b", "a", "a"))) == "a"
    assert usual_answer(Question(question_id=1, text="?")) == ""
    boxes = Question(question_id=1, text="?", candidate_boxes=((0, 0, 1, 1),), answer_index=0)
    assert usual_answer(boxes) == ""


def test_texts_alone_and_transcripts():
    pair = (Sentence(role="source", text="ein Hund", language="de"), Sentence(role="target", text="a big dog"))
    one = counted(record(sentences=pair), record(transcript=Transcript(text="abca")))
    assert one.numbers["source de sentences"] == {2: 1} and one.numbers["target sentences"] == {3: 1}
    assert one.numbers["transcripts"] == {4: 1} and one.words["transcripts"]["a"] == 2
    assert one.amounts["texts"] == 1 and one.amounts["images"] == 1


def test_what_is_the_same_everywhere_is_told_in_words():
    splits = {"train": counted(record(), record(width=300)), "val": counted(record(height=100))}
    charts, constant = histograms(splits)
    assert [chart.title for chart in charts] == ["Width", "Width / height"] and constant == [
        "Height: 100 px everywhere."
    ]
