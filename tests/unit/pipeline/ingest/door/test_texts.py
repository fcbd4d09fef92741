"""Sentences, alignments, transcripts, candidates and proposals at the door."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from contracts.annotations import Alignment, Proposals, Question, Sentence, Transcript
from contracts.raw import RawRecord
from pipeline.ingest.door import RULES, Admission, admit
from tests.pictures import encode, scene

Door = Callable[..., Admission]


@pytest.fixture
def door(tmp_path: Path) -> Door:
    """A record with a picture of 30 x 20 pixels, and one without."""
    (tmp_path / "a.jpg").write_bytes(encode(scene()))

    def run(*, picture: bool = True, **fields: Any) -> Admission:
        image = tmp_path / "a.jpg" if picture else None
        return admit(RawRecord(key="a", image_id=1, image=image, annotation_file="a.txt", **fields), ())

    return run


def pair(source: str, target: str) -> tuple[Sentence, ...]:
    return Sentence(role="source", text=source), Sentence(role="target", text=target)


def reason(admission: Admission, kind: str) -> str:
    (problem,) = admission.problems
    assert (problem.kind, problem.file, problem.key) == (kind, "a.txt", "a") and problem.reason in RULES
    assert (admission.record is None) == (kind == "record")
    return problem.reason


def test_a_pair_needs_no_picture(door: Door) -> None:
    admission = door(picture=False, sentences=pair("ein Hund", "a dog"), group="story")
    assert admission.record is not None and not admission.problems and not admission.fixes
    assert (admission.record.media, admission.record.group) == ("text", "story")
    assert admission.record.sentences == pair("ein Hund", "a dog")


def test_nothing_at_all_is_no_record(door: Door) -> None:
    assert reason(door(picture=False), "record") == "empty_record"


def test_sentences_lose_stray_characters_and_are_composed(door: Door) -> None:
    written = pair("\ufeffein\u00a0Ma\u0308dchen\u2028 geht\x00", "a girl\twalks ")
    admission = door(picture=False, sentences=written)
    assert admission.record is not None and admission.fixes == {"sentence_normalised": 2}
    assert [s.text for s in admission.record.sentences] == ["ein M\u00e4dchen geht", "a girl walks"]


WORDS = "w " * 200


@pytest.mark.parametrize(
    ("source", "target", "said"),
    [
        ("a", "\u200b \x07\n", "empty_sentence"),
        ("", "b", "empty_sentence"),
        (WORDS + "w", WORDS, "long_sentence"),
        (WORDS, WORDS, None),
        ("w " * 10, "w", "uneven_pair"),
        ("w", "w " * 9, None),
        ("我" * 10, "one", "uneven_pair"),  # without blanks each character is a word
        ("我们都在这里", "we are all here", None),
    ],
)
def test_pairs_that_cannot_be_learned_from_are_refused(door: Door, source: str, target: str, said: str | None) -> None:
    admission = door(picture=False, sentences=pair(source, target))
    if said is None:
        assert admission.record is not None and len(admission.record.sentences) == 2
        return
    assert reason(admission, "record") == said
    beside = door(sentences=pair(source, target))
    assert reason(beside, "sentence") == said
    assert beside.record is not None and beside.record.sentences == (), "the picture stays, without half a pair"


def test_a_text_of_its_own_may_be_long(door: Door) -> None:
    admission = door(picture=False, sentences=(Sentence(role="text", text=WORDS * 5), *pair("a", "b")))
    assert admission.record is not None and len(admission.record.sentences) == 3


@pytest.mark.parametrize(
    ("links", "possible", "fits"),
    [
        (((0, 0), (1, 2)), (), True),
        ((), ((1, 0),), True),
        (((2, 0),), (), False),
        (((0, 3),), (), False),
        (((0, 0),), ((-1, 0),), False),
    ],
)
def test_links_join_words_that_are_there(door: Door, links: Any, possible: Any, fits: bool) -> None:
    alignment = Alignment(source="source", target="target", links=links, possible_links=possible)
    admission = door(picture=False, sentences=pair("zwei Worte", "there are three"), alignment=alignment)
    assert admission.record is not None and (admission.record.alignment == alignment) is fits
    assert fits or reason(admission, "alignment") == "bad_alignment"


def test_an_alignment_goes_with_its_words(door: Door) -> None:
    first = Alignment(source="source", target="target", links=((0, 0),))
    split = door(picture=False, sentences=pair("zwei\x07Worte", "two words"), alignment=first)
    assert reason(split, "alignment") == "bad_alignment", "what was one word is two now"
    other = Alignment(source="text", target="target", links=())
    assert reason(door(picture=False, sentences=pair("a", "b"), alignment=other), "alignment") == "bad_alignment"
    lost = door(sentences=pair("a", ""), alignment=first)
    assert lost.record is not None and lost.record.alignment is None
    assert reason(lost, "sentence") == "empty_sentence"


def test_transcripts(door: Door) -> None:
    admission = door(transcript=Transcript(text=" سلام\u0651\n", language="ar", direction="rtl"))
    assert admission.record is not None and admission.fixes == {"transcript_normalised": 1}
    assert admission.record.transcript == Transcript(text="سلام\u0651", language="ar", direction="rtl")
    assert reason(door(transcript=Transcript(text=" \x00")), "transcript") == "empty_transcript"
    assert door(picture=False, transcript=Transcript(text="a")).record is not None


def asked(**fields: Any) -> dict[str, Any]:
    return {"questions": (Question(question_id=7, text="which?", **fields),)}


def test_candidates_are_texts_or_boxes(door: Door) -> None:
    texts = door(**asked(candidates=("a  dog", "a cat"), answer_index=1))
    assert texts.record is not None and texts.fixes == {"answer_normalised": 1}
    assert texts.record.questions[0].candidates == ("a dog", "a cat") and texts.record.questions[0].answer_index == 1
    boxes = door(**asked(candidate_boxes=((-1, 0, 9, 9), (1, 1, 2, 2)), answer_index=0))
    assert boxes.record is not None and boxes.fixes == {"box_clipped": 1}
    assert boxes.record.questions[0].candidate_boxes == ((0, 0, 9, 9), (1, 1, 2, 2))
    same_name = door(**asked(candidates=("dog", "dog"), candidate_boxes=((0, 0, 9, 9), (1, 1, 2, 2))))
    assert same_name.record is not None and len(same_name.record.questions) == 1, "two dogs in two places"
    assert door(**asked(candidates=("a", "b"))).problems == [], "nobody says which is right"


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"candidates": ("a", " a")}, "duplicate_candidate"),
        ({"candidate_boxes": ((-3, 0, 9, 9), (0, 0, 9, 9))}, "duplicate_candidate"),
        ({"candidates": ("a", "")}, "empty_candidate"),
        ({"candidates": ("a", "b"), "answer_index": 2}, "answer_out_of_range"),
        ({"candidates": ("a", "b"), "answer_index": -1}, "answer_out_of_range"),
        ({"answer_index": 0}, "answer_out_of_range"),
        ({"candidates": ("a",), "candidate_boxes": ((0, 0, 9, 9), (0, 0, 8, 9))}, "bad_candidates"),
        ({"candidate_boxes": ((0, 0, 9, 9), (40, 0, 49, 9))}, "box_outside"),
        ({"candidate_boxes": ((3, 0, 3, 9),)}, "zero_area_box"),
    ],
)
def test_a_question_that_no_candidate_answers_is_dropped(door: Door, fields: dict[str, Any], said: str) -> None:
    admission = door(**asked(**fields))
    assert reason(admission, "question") == said and admission.problems[0].item_id == "7"
    assert admission.record is not None and admission.record.questions == ()


def test_boxes_of_candidates_need_a_picture(door: Door) -> None:
    admission = door(picture=False, sentences=pair("a", "b"), **asked(candidate_boxes=((0, 0, 1, 1),)))
    assert reason(admission, "question") == "box_outside"


def test_proposals_are_clipped_in_their_order(door: Door) -> None:
    boxes = [(5, 5, 40, 30), (30, 0, 35, 5), (0, 0, 0, 9), (np.nan, 0, 1, 1), (0, 0, 1, 1), (1, 2, 3, 4)]
    scores = [0.5, 0.9, 0.8, 0.7, np.inf, 0.1]
    admission = door(proposals=Proposals(boxes=np.array(boxes, np.float32), scores=np.array(scores, np.float32)))
    assert admission.record is not None and admission.record.proposals is not None
    assert admission.fixes == {"proposal_dropped": 4} and not admission.problems
    assert admission.record.proposals.boxes.tolist() == [[5, 5, 30, 20], [1, 2, 3, 4]]
    assert admission.record.proposals.scores.tolist() == pytest.approx([0.5, 0.1])
