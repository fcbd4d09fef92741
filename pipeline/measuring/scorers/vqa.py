"""VQA v2: question and annotation JSON (https://visualqa.org/download.html), results `[{question_id, answer}]`.

The official evaluator stops unless the results answer exactly the questions of the split; so does this one.
"""

from __future__ import annotations

from collections.abc import Container, Hashable
from pathlib import Path

from contracts.errors import DataError
from lightning_modules.metrics.vqa_accuracy import Answered, measure_vqa
from pipeline.ingest.sources._files import find_id
from pipeline.ingest.sources.vqa import answer_text
from pipeline.measuring.scorers import Inputs, Scores
from pipeline.measuring.scorers._files import Entries, check_same_ids, read_entries


def score(inputs: Inputs) -> Scores:
    """`overall`, `perAnswerType/..` and `perQuestionType/..` in percent, not rounded.

    Raises:
        DataError: a file that cannot be read, or three files that do not have the same questions.
    """
    assert inputs.questions is not None, "the command line asks for it"
    questions = read_entries(inputs.questions, id_name="question_id", name="questions")
    annotations = read_entries(inputs.truth, id_name="question_id", name="annotations")
    results = read_entries(inputs.predictions, id_name="question_id")
    question_ids = questions.ids()
    if not question_ids:
        raise DataError("this file lists no questions", where=f"{questions.path}: questions")
    images = {number: questions.id(i, "image_id") for i, number in enumerate(question_ids)}
    annotation_ids, result_ids = _joined_ids(annotations, images), _joined_ids(results, images)
    for given, ids in ((annotations, annotation_ids), (results, result_ids)):
        check_same_ids(question_ids, ids, name="question_id", truth_file=questions.path, given_file=given.path)
    answers = {number: _answer(results, i) for i, number in enumerate(result_ids)}
    items: list[Answered] = []
    groups: list[Hashable] = []
    for i, number in enumerate(annotation_ids):
        _check_image(annotations, i, images[number], questions.path)
        items.append(
            Answered(
                answer=answers[number],
                annotations=_answers(annotations, i),
                answer_type=_type(annotations, i, "answer_type"),
                question_type=_type(annotations, i, "question_type"),
            )
        )
        groups.append(images[number])
    return Scores(measurements=[measure_vqa(items, groups)])


def _joined_ids(entries: Entries, known: Container[int | str]) -> list[int | str]:
    """The id of every entry as the question file writes it: "25" is its 25."""
    ids = [(find_id(own, known), own) for own in entries.ids()]
    joined = [own if found is None else found for found, own in ids]
    if len(set(joined)) != len(joined):
        twice = next(own for i, own in enumerate(joined) if own in joined[:i])
        raise DataError("question_id is there twice, as a number and as a text", value=twice, where=str(entries.path))
    return joined


def _check_image(annotations: Entries, position: int, image: int | str, question_file: Path) -> None:
    """An annotation may leave its image out, but not name another one than its question."""
    if annotations.items[position].get("image_id") is None:
        return
    if find_id(annotations.id(position, "image_id"), (image,)) is None:
        raise DataError(
            "the annotations name another image than the question",
            value=annotations.id(position, "image_id"),
            where=annotations.where(position),
            allowed=f"{image!r}, as in {question_file}",
        )


def _type(annotations: Entries, position: int, key: str) -> str:
    """A type that sets without types leave out."""
    value = annotations.items[position].get(key)
    return "" if value is None else annotations.text(position, key)


def _answer(results: Entries, position: int) -> str:
    text = answer_text(results.get(position, "answer", "a text"))
    if text is None:
        raise results.wrong(position, "answer", "a text")
    return text


def _answers(annotations: Entries, position: int) -> list[str]:
    """What the annotators said."""
    allowed = 'a list of {"answer": text} that is not empty'
    answers = annotations.get(position, "answers", allowed)
    listed = answers if isinstance(answers, list) else []
    found = [answer_text(a.get("answer")) if isinstance(a, dict) else None for a in listed]
    texts = [text for text in found if text is not None]
    if not texts or len(texts) != len(found):
        raise annotations.wrong(position, "answers", allowed)
    return texts
