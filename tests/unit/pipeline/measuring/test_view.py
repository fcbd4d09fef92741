"""`sightline view`: records as the shards have them, on one page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from contracts.annotations import Question, Segment, Sentence, Transcript
from contracts.errors import ConfigError, DataError
from contracts.records import Record
from pipeline.measuring.view import _facts, _pictures, write_view
from pipeline.system.project import Project

ASKED: dict[str, Any] = {"split": None, "num": 3, "seed": 0, "keys": (), "name": None}


def test_records_are_drawn_with_what_is_known_of_them(tiny_project: Project, tmp_path: Path):
    page = tmp_path / "view.html"
    shown = write_view(tiny_project, "coco", page, **ASKED)
    text = page.read_text()
    assert len(shown) == 3 and text.count("<article>") == 3 == text.count("data:image/jpeg;base64,")
    kinds = {what for one in shown for what, _ in one.facts}
    assert {"size", "objects", "caption", "question"} <= kinds
    assert all(one.key in text for one in shown) and "http" not in text
    assert [one.key for one in write_view(tiny_project, "coco", page, **ASKED)] == [one.key for one in shown]
    others = write_view(tiny_project, "coco", page, **ASKED | {"seed": 1})
    assert [one.key for one in others] != [one.key for one in shown]


def test_split_class_and_key_choose(tiny_project: Project, tmp_path: Path):
    page = tmp_path / "view.html"
    shown = write_view(tiny_project, "voc", page, **ASKED | {"split": "val", "name": "ring", "num": 5})
    assert {one.split for one in shown} == {"val"}
    assert all("ring" in dict(one.facts)["objects"] for one in shown)
    assert max(len(one.pictures) for one in shown) == 2, "objects, and the label map"
    keys = (shown[1].key, shown[0].key)
    assert tuple(one.key for one in write_view(tiny_project, "voc", page, **ASKED | {"keys": keys})) == keys


@pytest.mark.parametrize(
    ("asked", "error", "message"),
    [
        ({"split": "none"}, ConfigError, r"(?s)no such split.*train, val"),
        ({"name": "unicorn"}, ConfigError, r"(?s)no such class.*ring"),
        ({"keys": ("unknown",)}, DataError, r"(?s)no record has this key.*train"),
    ],
)
def test_what_is_not_there_is_told(tiny_project: Project, tmp_path: Path, asked, error, message):
    with pytest.raises(error, match=message):
        write_view(tiny_project, "coco", tmp_path / "view.html", **ASKED | asked)
    assert not list(tmp_path.iterdir())


def test_clips_and_texts_are_shown_too():
    frame = cv2.imencode(".jpg", np.zeros((32, 48, 3), np.uint8))[1].tobytes()
    clip = Record(
        key="a", image_id="a", group="g", width=48, height=32, frames=(frame,) * 20,
        times_s=tuple(i / 10 for i in range(20)), segments=(Segment(start_s=0, end_s=1, label="run"),),
        transcript=Transcript(text="hello"),
    )  # fmt: skip
    assert len(_pictures(clip, ())) == 2, "eight frames in two rows"
    assert _facts(clip, ()) == [
        ("size", "48 x 32 px"), ("group", "g"), ("frames", "20, to 1.90 s"), ("segment", "0.00 to 1.00 s: run"),
        ("transcript", "hello"),
    ]  # fmt: skip
    asked = Question(question_id=1, text="Who?", candidates=("he", "she"), answer_index=1)
    text = Record(key="b", image_id="b", sentences=(Sentence(role="source", text="ja", language="de"),))
    assert _pictures(text, ()) == [] and _facts(text, ()) == [("source de", "ja")]
    question = Record(key="c", image_id="c", questions=(asked,), sentences=text.sentences)
    assert _facts(question, ())[0] == ("question", "Who? - he; she (right)")
