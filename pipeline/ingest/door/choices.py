"""Questions: texts without stray characters, and candidates of which one can be right."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from contracts.raw import Problem, RawRecord
from contracts.records import Box, Question
from pipeline.ingest.door.objects import clean_box
from pipeline.ingest.door.rules import Refused
from pipeline.ingest.door.text import is_blank, normalised

NUM_ANSWERS = 10


def clean_questions(
    raw: RawRecord, size: tuple[int, int], problems: list[Problem], fixes: Counter[str]
) -> tuple[Question, ...]:
    """The questions that can be asked. `size` is (height, width) of image or clip, (0, 0) without one."""
    kept = []
    for question in raw.questions:
        try:
            kept.append(_clean(question, size, fixes))
        except Refused as refused:
            problems.append(
                Problem(
                    reason=refused.reason, kind="question", file=raw.annotation_file,
                    item_id=str(question.question_id), key=raw.key, detail=refused.detail,
                )
            )  # fmt: skip
    return tuple(kept)


def _clean(question: Question, size: tuple[int, int], fixes: Counter[str]) -> Question:
    text = normalised(question.text)
    if is_blank(text):
        raise Refused("empty_question")
    answers = tuple(normalised(answer) for answer in question.answers)
    given = most_common = normalised(question.multiple_choice_answer)
    candidates, boxes = _candidates(question, size, fixes)
    if answers and not given:
        most_common = Counter(answers).most_common(1)[0][0]  # of equally frequent ones the first
        fixes["most_frequent_answer"] += 1
    fixes["question_normalised"] += text != question.text
    fixes["answer_normalised"] += (
        answers != question.answers or given != question.multiple_choice_answer or candidates != question.candidates
    )
    fixes["answers_not_ten"] += not question.candidates and len(answers) not in (0, NUM_ANSWERS)
    return replace(
        question,
        text=text,
        answers=answers,
        multiple_choice_answer=most_common,
        candidates=candidates,
        candidate_boxes=boxes,
    )


def _candidates(
    question: Question, size: tuple[int, int], fixes: Counter[str]
) -> tuple[tuple[str, ...], tuple[Box, ...]]:
    texts, boxes = tuple(normalised(text) for text in question.candidates), question.candidate_boxes
    if texts and boxes and len(texts) != len(boxes):
        raise Refused("bad_candidates", f"{len(texts)} texts and {len(boxes)} boxes")
    if blank := sum(map(is_blank, texts)):
        raise Refused("empty_candidate", f"{blank} of {len(texts)}")
    clipped = tuple(clean_box(box, size, fixes) for box in boxes)
    for candidates in (() if boxes else texts, clipped):
        if len(set(candidates)) < len(candidates):
            raise Refused("duplicate_candidate", str(Counter(candidates).most_common(1)[0][0]))
    index, number = question.answer_index, max(len(texts), len(boxes))
    if index is not None and not 0 <= index < number:
        raise Refused("answer_out_of_range", f"{index} of {number} candidates")
    return texts, clipped
