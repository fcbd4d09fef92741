"""`sightline view`: what is in the shards, on one page."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from contracts.annotations import Question, Segment, Sentence, Transcript
from contracts.errors import ConfigError, DataError
from contracts.records import Record
from pipeline.measuring.view import Page, Request, write_view
from pipeline.measuring.viewing.pictures import drawn
from pipeline.measuring.viewing.records import facts
from pipeline.shards.manifest import load_manifest
from pipeline.system.project import Project
from tests.command import sightline


@pytest.fixture(autouse=True)
def few_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of augmentation, whose pictures take most of the time."""
    monkeypatch.setattr("pipeline.measuring.viewing.augmentation.NUM_SAMPLES", 1)


def view(project: Project, dataset: str, page: Path, **asked: Any) -> Page:
    return write_view(project, Request(dataset=dataset, out=page, **{"num": 3, "duplicates": False, **asked}))


def section(page: Path, name: str) -> str:
    """The HTML of one section, without pictures."""
    found = re.search(rf'<section id="{name}">.*?</section>', page.read_text(), re.DOTALL)
    assert found
    return re.sub(r"data:image/jpeg;base64,[^\"]*", "data:", found[0])


def test_records_are_drawn_with_what_is_known_of_them(tiny_project: Project, tmp_path: Path):
    page = tmp_path / "view.html"
    shown = view(tiny_project, "coco", page).shown
    text = section(page, "records")
    assert len(shown) == 3 and text.count("<article") == 3 == text.count('src="data:"')
    kinds = {what for one in shown for what, _ in one.facts}
    assert {"size", "objects", "caption", "question"} <= kinds
    assert all(one.key in text for one in shown)
    assert [one.key for one in view(tiny_project, "coco", page).shown] == [one.key for one in shown]
    others = view(tiny_project, "coco", page, seed=1).shown
    assert [one.key for one in others] != [one.key for one in shown]


def test_the_page_asks_no_server_and_is_the_same_again(tiny_project: Project, tmp_path: Path):
    one, other = tmp_path / "one.html", tmp_path / "other.html"
    for page in (one, other):
        view(tiny_project, "voc", page, duplicates=True)
    text = one.read_text()
    assert not re.findall(r'(?:src|href)="(?!data:image/jpeg;base64,|#)', text) and "http:" not in text
    assert "url(" not in text and "<script" not in text and "default-src 'none'" in text
    assert text == other.read_text()


def test_split_class_and_key_choose(tiny_project: Project, tmp_path: Path):
    page = tmp_path / "view.html"
    shown = view(tiny_project, "voc", page, split="val", name="ring", num=5).shown
    assert {one.split for one in shown} == {"val"}
    assert all("ring" in dict(one.facts)["objects"] for one in shown)
    assert max(len(one.pictures) for one in shown) == 2, "objects, and the label map"
    keys = (shown[1].key, shown[0].key)
    assert tuple(one.key for one in view(tiny_project, "voc", page, keys=keys).shown) == keys


@pytest.mark.parametrize(
    ("asked", "error", "message"),
    [
        ({"split": "none"}, ConfigError, r"(?s)no such split.*train, val"),
        ({"name": "unicorn"}, ConfigError, r"(?s)no such class.*ring"),
        ({"keys": ("unknown",)}, DataError, r"(?s)no record has this key.*train"),
        ({"runs": ("unicorn",)}, ConfigError, r"(?s)no such run.*captioning"),
        ({"runs": ("vqa", "detection")}, ConfigError, r"(?s)another data set.*captioning, instances, vqa.*view voc"),
    ],
)
def test_what_is_not_there_is_told(tiny_project: Project, tmp_path: Path, asked, error, message):
    with pytest.raises(error, match=message):
        view(tiny_project, "coco", tmp_path / "view.html", **asked)
    assert not list(tmp_path.iterdir())


def test_the_command_says_what_is_on_the_page(tiny_project: Project, tmp_path: Path, monkeypatch, capsys):
    monkeypatch.chdir(tiny_project.root)
    page = tmp_path / "page.html"
    assert sightline("view", ["voc", "--num", "2", "--run", "detection", "--out", str(page)]) == 0
    said = capsys.readouterr().out
    assert re.search(r"view: 2 records of voc, 0 refused parts, \d+ near duplicates between splits: .*page.html", said)
    assert "<h3>detection</h3>" in section(page, "augmentation")
    assert "segmentation" not in section(page, "augmentation")
    assert sightline("view", ["voc", "--no-duplicates", "--num", "1", "--out", str(page)]) == 0
    assert "Not looked for" in section(page, "duplicates") and "duplicates" not in capsys.readouterr().out
    assert sightline("view", ["nothing", "--out", str(tmp_path / "other.html")]) == 2


def test_amounts_are_those_of_the_manifest(tiny_project: Project, tmp_path: Path):
    page = tmp_path / "view.html"
    view(tiny_project, "coco", page)
    rows = dict(re.findall(r"<tr><td>([^<]*)</td>(.*?)</tr>", section(page, "amounts")))
    told = {name: [int(n.replace(",", "")) for n in re.findall(r">([\d,]+)<", cells)] for name, cells in rows.items()}
    splits = load_manifest(tiny_project.shards("coco"))["splits"].values()
    assert told["records"] == [split["num_samples"] for split in splits] == [40, 11]
    assert told["shards"] == [len(split["shards"]) for split in splits]
    for what in ("objects", "masks", "captions", "questions"):
        assert told[what] == [split["totals"][f"num_{what}"] for split in splits], what
    assert told["answers"] == [10 * number for number in told["questions"]]


def test_clips_and_texts_are_shown_too():
    frame = cv2.imencode(".jpg", np.zeros((32, 48, 3), np.uint8))[1].tobytes()
    clip = Record(
        key="a", image_id="a", group="g", width=48, height=32, frames=(frame,) * 20,
        times_s=tuple(i / 10 for i in range(20)), segments=(Segment(start_s=0, end_s=1, label="run"),),
        transcript=Transcript(text="hello"),
    )  # fmt: skip
    assert len(drawn(clip, ())) == 2, "eight frames in two rows"
    assert facts(clip, ()) == [
        ("size", "48 x 32 px"), ("group", "g"), ("frames", "20, to 1.90 s"), ("segment", "0.00 to 1.00 s: run"),
        ("transcript", "hello"),
    ]  # fmt: skip
    asked = Question(question_id=1, text="Who?", candidates=("he", "she"), answer_index=1)
    text = Record(key="b", image_id="b", sentences=(Sentence(role="source", text="ja", language="de"),))
    assert drawn(text, ()) == [] and facts(text, ()) == [("source de", "ja")]
    question = Record(key="c", image_id="c", questions=(asked,), sentences=text.sentences)
    assert facts(question, ())[0] == ("question", "Who? - he; she (right)")
