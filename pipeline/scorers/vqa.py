"""VQA v2: question and annotation JSON (https://visualqa.org/download.html), results `[{question_id, answer}]`.

The official evaluator stops unless the results answer exactly the questions of the split; so does this one.
"""

from __future__ import annotations

from collections.abc import Hashable

from contracts.errors import DataError
from lightning_modules.metrics.vqa_accuracy import Answered, measure_vqa
from pipeline.scorers import Inputs, Scores
from pipeline.scorers._files import Entries, check_same_ids, read_entries


def score(inputs: Inputs) -> Scores:
    """`overall`, `perAnswerType/..` and `perQuestionType/..` in percent, not rounded.

    Raises:
        DataError: a file that cannot be read, or three files that do not have the same questions.
    """
    assert inputs.questions is not None, "the command line asks for it"
    questions = read_entries(inputs.questions, id_name="question_id", name="questions")
    annotations = read_entries(inputs.truth, id_name="question_id", name="annotations")
    results = read_entries(inputs.predictions, id_name="question_id")
    question_ids, annotation_ids, result_ids = questions.ids(), annotations.ids(), results.ids()
    if not question_ids:
        raise DataError("this file lists no questions", where=f"{questions.path}: questions")
    for given, ids in ((annotations, annotation_ids), (results, result_ids)):
        check_same_ids(question_ids, ids, name="question_id", truth_file=questions.path, given_file=given.path)
    images = {number: questions.id(i, "image_id") for i, number in enumerate(question_ids)}
    answers = {number: results.text(i, "answer") for i, number in enumerate(result_ids)}
    items: list[Answered] = []
    groups: list[Hashable] = []
    for i, number in enumerate(annotation_ids):
        if annotations.id(i, "image_id") != images[number]:
            raise DataError(
                "the annotations name another image than the question",
                value=annotations.id(i, "image_id"),
                where=annotations.where(i),
                allowed=f"{images[number]!r}, as in {questions.path}",
            )
        items.append(
            Answered(
                answer=answers[number],
                annotations=_answers(annotations, i),
                answer_type=annotations.text(i, "answer_type"),
                question_type=annotations.text(i, "question_type"),
            )
        )
        groups.append(images[number])
    return Scores(measurements=[measure_vqa(items, groups)])


def _answers(annotations: Entries, position: int) -> list[str]:
    """What the annotators said."""
    allowed = 'a list of {"answer": text} that is not empty'
    answers = annotations.get(position, "answers", allowed)
    found = [a.get("answer") if isinstance(a, dict) else None for a in answers] if isinstance(answers, list) else []
    texts = [text for text in found if isinstance(text, str)]
    if not texts or len(texts) != len(found):
        raise annotations.wrong(position, "answers", allowed)
    return texts
