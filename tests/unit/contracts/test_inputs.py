"""Inputs: what is missing and what is too much is told by name; a record and its inputs say the same."""

import pytest

from contracts.errors import ConfigError
from contracts.inputs import OF_A_QUESTION, TEXT_INPUTS, check_inputs, inputs_of, text_parts
from contracts.records import Question, Record, Sentence


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"image": b"x"}, ["a question is missing", "run r", "--question"]),
        ({"image": b"x", "question": " "}, ["a question is missing"]),
        ({"question": "why?"}, ["an image is missing", "JPEG or PNG"]),
        ({"image": b"", "question": "why?"}, ["an image is missing"]),
        ({"image": b"x", "question": "why?", "source": "ja"}, ["takes no source: 'ja'", "image and question"]),
        ({"image": "photo.jpg", "question": "why?"}, ["an image is of the wrong kind: 'str'", "bytes"]),
        ({"image": b"x", "question": b"why?"}, ["a question is of the wrong kind: 'bytes'", "text"]),
    ],
)
def test_what_is_wrong_is_told_by_name(given, said):
    with pytest.raises(ConfigError) as error:
        check_inputs(given, ("image", "question"), "run r")
    assert all(text in str(error.value) for text in said), str(error.value)


def test_bytes_are_not_printed():
    with pytest.raises(ConfigError, match=r"^this model takes no image\n") as error:
        check_inputs({"image": b"xyz", "text": "a"}, ("text",), "run r")
    assert "xyz" not in str(error.value)


def test_a_record_is_asked_with_what_it_is_made_of():
    given = {"question": "why?", "text": "a text", "source": "ein Satz"}
    parts = text_parts(given)
    assert parts["questions"] == (Question(question_id=0, text="why?"),)
    assert parts["sentences"] == (Sentence(role="text", text="a text"), Sentence(role="source", text="ein Satz"))
    record = Record(key="a", image_id=0, image=b"jpeg", image_format="jpg", width=1, height=1, **parts)
    assert inputs_of(record, ("image", "question", "text", "source")) == {"image": b"jpeg", **given}
    assert {"question", "text", "source"} | OF_A_QUESTION.keys() == TEXT_INPUTS.keys()
    with pytest.raises(ConfigError, match=r"(?s)a source is missing.*record b"):
        inputs_of(Record(key="b", image_id=0), ("source",))


def test_candidates_belong_to_their_question():
    """Of a record with several questions the first one that has what is asked with."""
    boxes = ((1.0, 2, 30.5, 4), (5.0, 6, 7, 8))
    record = Record(
        key="a",
        image_id=0,
        questions=(
            Question(question_id=1, text="open?"),
            Question(question_id=2, text="which box?", candidates=("11", "12"), candidate_boxes=boxes),
            Question(question_id=3, text="which text?", candidates=("red", "dark blue")),
        ),
    )
    told, pointed = (inputs_of(record, ("question", name)) for name in ("candidates", "boxes"))
    assert told == {"question": "which text?", "candidates": "red | dark blue"}
    assert pointed == {"question": "which box?", "boxes": "1,2,30.5,4 | 5,6,7,8"}
    (question,) = text_parts(told)["questions"]
    assert question == Question(question_id=0, text="which text?", candidates=("red", "dark blue"))
    (question,) = text_parts(pointed)["questions"]
    assert question == Question(question_id=0, text="which box?", candidate_boxes=boxes)
    with pytest.raises(ConfigError, match="a question is missing"):
        inputs_of(Record(key="b", image_id=0), ("question", "boxes"))


def test_candidates_that_are_missing_or_no_boxes():
    with pytest.raises(ConfigError, match=r"(?s)^candidates are missing.*--candidates"):
        check_inputs({"question": "why?"}, ("question", "candidates"), "run r")
    for text in ("1,2,3", "1,2,3,4 | x", "1,2,3,4 |"):
        with pytest.raises(ConfigError, match=r"(?s)a box is four numbers.*x1,y1,x2,y2 in pixels"):
            text_parts({"question": "why?", "boxes": text})
