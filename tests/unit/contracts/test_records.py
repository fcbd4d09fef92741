"""Records of every kind: their JSON by name, what is counted of them, and what is no record."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest

from contracts.annotations import Alignment, Caption, Objects, Proposals, Question, Segment, Sentence, Transcript
from contracts.errors import ConfigError, DataError
from contracts.records import COUNTS, Record, check_counts, end_s

PAIR = Record(
    key="train-000000007",
    image_id="train:7",
    group="letter 3",
    sentences=(
        Sentence(role="source", language="de", text="Größe zählt"),
        Sentence(role="target", language="en", text="size counts"),
    ),
    alignment=Alignment(source="source", target="target", links=((0, 0), (1, 1)), possible_links=((0, 1),)),
)
CLIP = Record(
    key="c",
    image_id=4,
    width=8,
    height=6,
    frames=(b"one", b"two", b"three", b"four"),
    times_s=(0.0, 0.5, 1.0, 1.5),
    labels=("jump",),
    segments=(
        Segment(start_s=0.0, end_s=0.5, label="stand"),
        Segment(start_s=0.5, end_s=1.5, label="jump"),
        Segment(start_s=1.0, end_s=1.25, label="shout"),
    ),
    captions=(Caption(caption_id=1, text="a jump"),),
)
IMAGE = Record(
    key="i",
    image_id=9,
    width=30,
    height=20,
    image=b"jpeg",
    image_format="jpg",
    objects=Objects(
        ids=["1", "2", "3"],
        boxes=np.array([[0, 0, 1, 1.1], [0, 0, 2, 2], [1, 1, 3, 3]], np.float32),
        labels=np.array([1, 2, 1]),
        areas=np.array([1.0, 4.0, 4.0]),
        is_crowd=np.array([False, True, False]),
        is_difficult=np.zeros(3, bool),
        is_truncated=np.zeros(3, bool),
        masks=["abc", "abc", ""],
    ),
    questions=(
        Question(question_id=1, text="which?", candidates=("a", "b"), answer_index=0),
        Question(question_id="x", text="where is it?", candidate_boxes=((0.0, 0.0, 2.5, 3.0),) * 1),
        Question(question_id=3, text="who", answers=("me", ""), answer_type="other"),
    ),
    transcript=Transcript(text="سلام", language="ar", direction="rtl"),
    proposals=Proposals(boxes=np.array([[0, 0, 9, 9.3]], np.float32), scores=np.array([0.7], np.float32)),
    semantic_mask=b"png",
)


def again(record: Record) -> Record:
    return Record.from_parts(
        record.annotation_json(), record.image, record.image_format, record.semantic_mask, frames=record.frames
    )


@pytest.mark.parametrize("record", [PAIR, CLIP, IMAGE, Record(key="a", image_id=1)], ids=["pair", "clip", "image", "a"])
def test_a_record_comes_back_as_it_was(record: Record) -> None:
    found = again(record)
    for field in fields(Record):
        if field.name not in ("objects", "proposals"):
            assert getattr(found, field.name) == getattr(record, field.name), field.name
    assert found.annotation_json() == record.annotation_json()
    for part in ("boxes", "labels", "areas", "is_crowd"):
        one, other = getattr(found.objects, part), getattr(record.objects, part)
        assert one.dtype == other.dtype and np.array_equal(one, other)


def test_boxes_and_scores_of_proposals_keep_their_digits_and_none_is_not_no_one() -> None:
    found, wanted = again(IMAGE).proposals, IMAGE.proposals
    assert found is not None and wanted is not None
    assert found.boxes.dtype == found.scores.dtype == np.float32
    assert np.array_equal(found.boxes, wanted.boxes) and np.array_equal(found.scores, wanted.scores)
    looked = replace(IMAGE, proposals=Proposals(boxes=np.zeros((0, 4), np.float32), scores=np.zeros(0, np.float32)))
    assert again(looked).proposals is not None and again(PAIR).proposals is None


def test_json_is_by_name_in_a_fixed_order_without_what_is_absent() -> None:
    assert PAIR.annotation_json().decode() == (
        '{"schema":3,"key":"train-000000007","image_id":"train:7","group":"letter 3","sentences":[{'
        '"role":"source","text":"Größe zählt","language":"de"},{"role":"target","text":"size counts","language":"en"}],'
        '"alignment":{"source":"source","target":"target","links":[[0,0],[1,1]],"possible_links":[[0,1]]}}'
    )
    assert [*json.loads(CLIP.annotation_json())] == [
        "schema", "key", "image_id", "width", "height", "times_s", "captions", "labels", "segments",
    ]  # fmt: skip
    assert json.loads(IMAGE.annotation_json())["questions"][2] == {
        "question_id": 3, "text": "who", "answers": ["me", ""], "answer_type": "other",
    }  # fmt: skip


def test_what_is_counted() -> None:
    assert PAIR.counts() == {
        "num_sentences": 2, "num_sources": 1, "num_targets": 1, "has_alignment": 1, "length": 2,
    }  # fmt: skip
    assert CLIP.counts() == {
        "num_captions": 1, "num_labels": 1, "num_frames": 4, "num_segments": 3, "num_frame_labels": 3, "length": 4,
    }  # fmt: skip
    assert IMAGE.counts() == {
        "num_objects": 2, "num_masks": 1, "num_questions": 3, "num_choices": 1, "has_semantic": 1,
        "has_transcript": 1, "num_proposals": 1, "length": 4,
    }  # fmt: skip
    told = Record(key="t", image_id=1, sentences=(Sentence(role="text", text="abc"),)).counts()
    assert told == {"num_sentences": 1, "num_texts": 1, "length": 1}
    assert {*PAIR.counts(), *CLIP.counts(), *IMAGE.counts(), *told} == set(COUNTS), "each count is told by one of these"


def test_a_count_that_no_record_tells_is_refused_by_name() -> None:
    check_counts(COUNTS)
    with pytest.raises(ConfigError, match=r"(?s)\['num_frogs'\].*task x.*num_objects, num_masks"):
        check_counts(["num_objects", "num_frogs"], "task x")


def test_a_record_is_its_own_group_and_knows_what_it_is_made_of() -> None:
    assert (PAIR.group, CLIP.group) == ("letter 3", "c")
    assert (PAIR.media, CLIP.media, IMAGE.media) == ("text", "clip", "image")
    assert PAIR.sentence("target") == PAIR.sentences[1] and PAIR.sentence("text") is None


def test_a_frame_has_the_classes_of_the_segments_that_it_begins_in() -> None:
    assert CLIP.labels_by_frame() == (("stand",), ("jump",), ("jump", "shout"), ())
    given = replace(CLIP, frame_labels=((), ("jump",), (), ("a", "b")))
    assert given.labels_by_frame() == given.frame_labels == again(given).frame_labels
    assert given.counts()["num_frame_labels"] == 2


def test_a_clip_ends_where_its_last_frame_does() -> None:
    assert end_s(CLIP.times_s) == 2.0
    assert end_s([3.0]) == 4.0
    assert end_s([0.0, 0.1, 0.4]) == pytest.approx(0.6)


def changed(record: Record, **parts: Any) -> bytes:
    document = json.loads(record.annotation_json())
    return json.dumps({name: value for name, value in (document | parts).items() if value is not None}).encode()


SENTENCE = {"role": "source", "text": "a"}


@pytest.mark.parametrize(
    ("record", "parts", "said"),
    [
        (PAIR, {"schema": 2}, "schema 2 in place of 3"),
        (PAIR, {"sentence": []}, "KeyError: 'sentence'"),
        (PAIR, {"sentences": [SENTENCE | {"lang": "de"}]}, "KeyError: 'lang'"),
        (PAIR, {"sentences": [{"role": "source"}]}, "missing 1 required"),
        (PAIR, {"sentences": [SENTENCE | {"role": "sorce"}]}, "'sorce' is none of"),
        (PAIR, {"sentences": [SENTENCE | {"text": 1}]}, "1 is no text"),
        (PAIR, {"sentences": SENTENCE}, "is no list"),
        (PAIR, {"sentences": ["a"]}, "'a' is no Sentence"),
        (PAIR, {"alignment": {"source": "source", "target": "target", "links": [[1]]}}, "not enough values"),
        (PAIR, {"alignment": {"source": "source", "target": "target", "links": [[1, 0.5]]}}, "no whole number"),
        (PAIR, {"group": 3}, "3 is no text"),
        (PAIR, {"image_id": True}, "True is no whole number"),
        (PAIR, {"width": 3, "height": 2}, "kind text that is 3 x 2"),
        (PAIR, {"times_s": [0.0]}, "0 frames"),
        (CLIP, {"width": None}, "kind clip that is 0 x 6"),
        (CLIP, {"times_s": [0.0, 0.5, 1.0]}, "4 frames"),
        (CLIP, {"times_s": [0, 1, 2, float("nan")]}, "nan is no finite number"),
        (CLIP, {"frame_labels": [["a"]]}, "4 frames"),
        (CLIP, {"labels": "jump"}, "is no list"),
        (CLIP, {"segments": [{"start_s": True, "end_s": 1, "label": "a"}]}, "True is no finite number"),
        (IMAGE, {"transcript": {"text": "a", "direction": "up"}}, "'up' is none of"),
        (IMAGE, {"questions": [{"question_id": 1, "text": "a", "candidate_boxes": [[1, 2, 3]]}]}, "not enough values"),
        (IMAGE, {"proposals": {"boxes": [[1, 2, 3, 4]], "scores": []}}, "differ in length"),
        (IMAGE, {"proposals": {"boxes": [], "scores": [], "labels": []}}, "differ in length"),
    ],
)
def test_an_annotation_that_was_not_written_here_is_refused(record: Record, parts: dict[str, Any], said: str) -> None:
    with pytest.raises(DataError, match="not one that was written here") as caught:
        Record.from_parts(changed(record, **parts), record.image, record.image_format, frames=record.frames, where="at")
    assert said in str(caught.value) and caught.value.where == "at"
