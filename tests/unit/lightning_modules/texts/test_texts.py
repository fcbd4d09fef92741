"""What is counted of records, by kind of text, and what a task may ask for."""

from __future__ import annotations

import pytest

from contracts.errors import DataError
from contracts.records import Caption, Question, Record
from contracts.text import TOKENIZERS
from lightning_modules.texts import answers, captions, questions
from lightning_modules.texts._base import BaseText


def asked(number: int, most: str, *given: str, text: str = "Größe?") -> Question:
    return Question(question_id=number, text=text, answers=given, multiple_choice_answer=most)


def record(*questions: Question, captions: tuple[str, ...] = ()) -> Record:
    written = tuple(Caption(caption_id=i, text=text) for i, text in enumerate(captions))
    return Record(
        key="a", image_id=1, width=1, height=1, image=b"", image_format="png", captions=written, questions=questions
    )


def counted(text: BaseText, *records: Record) -> list[tuple[str, int]]:
    for one in records:
        text.add(one)
    text.check("texts", "d", "data/shards/d")
    return text.counted()


def test_words_and_answers_are_counted_answers_in_their_usual_form() -> None:
    first = record(asked(1, "1 way", "one way", "one way"), asked(2, "Yes", "Yes"), captions=("A cup.", "no cup"))
    second = record(asked(3, "yes", "Yes", "yes", "Yes"), asked(4, "", text="unanswered"), captions=("b",))
    assert counted(captions.Text(), first, second) == [("cup", 2), ("a", 1), ("b", 1), ("no", 1)]
    assert counted(questions.Text(), first, second) == [("größe", 3), ("unanswered", 1)]
    assert counted(answers.Text(), first, second) == [("Yes", 2), ("one way", 1)]


def test_nothing_to_count_is_nothing() -> None:
    for kind in (answers, captions, questions):
        assert counted(kind.Text(), record()) == []


def test_texts_without_words_and_questions_without_answers_are_refused() -> None:
    empty = record(asked(1, "", text="?!"), captions=("...", "--"))
    for name, kind in (("captions", captions), ("questions", questions)):
        text = kind.Text()
        text.add(empty)
        with pytest.raises(DataError, match=rf"(?s)the {name} of d hold no word.*{text.num_texts} {name}.*shards/d"):
            text.check(name, "d", "data/shards/d")
    text = answers.Text()
    text.add(empty)
    with pytest.raises(DataError, match=r"(?s)no question of d has an answer.*1 questions.*sources\.vqa\.annotations"):
        text.check("answers", "d", "data/shards/d")


@pytest.mark.parametrize(
    ("tokenizer", "expected"),
    [("words", {"it's", "a"}), ("characters", {"I", "'", "s", " ", "a", "!"}), ("pieces", {"It", "'", "s", "▁a", "!"})],
)
def test_a_kind_is_cut_as_it_says(tokenizer: str, expected: set[str]) -> None:
    class Text(captions.Text):
        pass

    Text.tokenizer = tokenizer
    found = {token for token, _ in counted(Text(), record(captions=("It's a!",)))}
    assert expected <= found and found == set(TOKENIZERS[tokenizer].split("It's a!"))
