"""Captions, questions and answers without control characters and stray white space."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

from contracts.records import Caption, ItemKind, Problem, Question, RawRecord

NUM_ANSWERS = 10
# Control, surrogate (cannot be encoded) and unassigned characters, and the two Unicode line separators.
_SPACE_LIKE = {"Cc", "Cs", "Cn", "Zl", "Zp"}


def normalised(text: str) -> str:
    """Control characters, line ends and runs of white space become one space; the ends are stripped."""
    if text.isascii() and text.isprintable():
        return " ".join(text.split())
    plain = (" " if unicodedata.category(c) in _SPACE_LIKE else c for c in text if c != "\ufeff")
    return " ".join("".join(plain).split())


def clean_captions(raw: RawRecord, problems: list[Problem], fixes: Counter[str]) -> tuple[Caption, ...]:
    def kept() -> Iterator[Caption]:
        for caption in raw.captions:
            text = normalised(caption.text)
            if not text:
                problems.append(_problem(raw, "empty_caption", "caption", caption.caption_id))
                continue
            fixes["caption_normalised"] += text != caption.text
            yield replace(caption, text=text)

    return tuple(kept())


def clean_questions(raw: RawRecord, problems: list[Problem], fixes: Counter[str]) -> tuple[Question, ...]:
    def kept() -> Iterator[Question]:
        for question in raw.questions:
            text = normalised(question.text)
            if not text:
                problems.append(_problem(raw, "empty_question", "question", question.question_id))
                continue
            answers = tuple(normalised(answer) for answer in question.answers)
            given = most_common = normalised(question.multiple_choice_answer)
            if answers and not given:
                most_common = Counter(answers).most_common(1)[0][0]  # of equally frequent ones the first
                fixes["most_frequent_answer"] += 1
            fixes["question_normalised"] += text != question.text
            fixes["answer_normalised"] += answers != question.answers or given != question.multiple_choice_answer
            fixes["answers_not_ten"] += len(answers) not in (0, NUM_ANSWERS)
            yield replace(question, text=text, answers=answers, multiple_choice_answer=most_common)

    return tuple(kept())


def _problem(raw: RawRecord, reason: str, kind: ItemKind, item_id: int | str) -> Problem:
    return Problem(reason=reason, kind=kind, file=raw.annotation_file, item_id=str(item_id), key=raw.key)
