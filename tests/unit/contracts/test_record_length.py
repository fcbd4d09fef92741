"""What sequences are sorted by."""

from __future__ import annotations

from typing import Any

import pytest

from contracts.annotations import Sentence, Transcript
from contracts.records import Caption, Question, Record

LONG = Sentence(role="source", language="de", text="Ein Haus, zwei Häuser.")  # six pieces
SHORT = Sentence(role="target", language="en", text="Incomprehensibilities")


@pytest.mark.parametrize(
    ("parts", "length"),
    [
        ({}, None),
        ({"sentences": (SHORT, LONG)}, 6),
        ({"captions": (Caption(caption_id=1, text="A dog"), Caption(caption_id=2, text="A dog's bone"))}, 5),
        ({"questions": (Question(question_id=1, text="Is it so?"),), "sentences": (SHORT,)}, 4),
        ({"transcript": Transcript(text="STOP 1", language="en", direction="ltr")}, 6),
        ({"frames": (b"a", b"b"), "times_s": (0.0, 1.0), "sentences": (LONG,)}, 2),
    ],
)
def test_length_counts_frames_or_the_tokens_of_the_longest_text(parts: dict[str, Any], length: int | None) -> None:
    assert Record(key="a", image_id=1, **parts).counts().get("length") == length
