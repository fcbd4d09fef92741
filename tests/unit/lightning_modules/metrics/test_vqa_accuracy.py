"""VQA accuracy against two sets computed by the official evaluator, question by question."""

import json

import pytest

from lightning_modules.metrics.vqa_accuracy import (
    Answered,
    answer_scores,
    leave_one_out,
    normalise_answer,
    question_accuracy,
    vqa_accuracy,
)


@pytest.fixture(scope="module")
def golden(shared_dir):
    path = shared_dir / "golden/official/vqa/golden_vqa.json"
    if not path.is_file():
        pytest.skip(f"no golden answers: {path}")
    return json.loads(path.read_text())


@pytest.fixture(scope="module")
def real_questions(shared_dir):
    folder = shared_dir / "golden/vqa_accuracy_official"
    if not folder.is_dir():
        pytest.skip(f"no golden questions: {folder}")
    annotations = json.loads((folder / "v2_mscoco_train2014_annotations.json").read_text())["annotations"]
    return folder, {a["question_id"]: a for a in annotations}


def test_normaliser_equals_the_official_one(golden):
    assert len(golden["normalise"]) == 122
    wrong = [case for case in golden["normalise"] if normalise_answer(case["in"]) != case["out"]]
    assert wrong == []


def test_every_question_equals_the_official_accuracy(golden):
    expected = golden["expected_per_question"]
    assert len(golden["items"]) == 245
    for item in golden["items"]:
        accuracy = 100 * question_accuracy(item["answer"], item["answers"])
        assert accuracy == pytest.approx(expected[str(item["question_id"])], abs=1e-9), item


def test_overall_and_by_type_equal_the_official_accuracy(golden):
    result = vqa_accuracy(
        Answered(
            answer=item["answer"],
            annotations=item["answers"],
            answer_type=item["answer_type"],
            question_type=item["question_type"],
        )
        for item in golden["items"]
    )
    expected = golden["expected"]
    assert result.num_questions == 245
    assert 100 * result.overall == pytest.approx(expected["overall"], abs=1e-9)
    for ours, official in (
        (result.per_answer_type, expected["perAnswerType"]),
        (result.per_question_type, expected["perQuestionType"]),
    ):
        assert {k: 100 * v for k, v in ours.items()} == pytest.approx(official, abs=1e-9)


@pytest.mark.parametrize("name", ["always_yes", "most_common_answer", "first_annotator"])
def test_real_questions_equal_the_official_accuracy(real_questions, name):
    folder, annotations = real_questions
    expected = json.loads((folder / "expected.json").read_text())[name]
    results = json.loads((folder / f"v2_OpenEnded_mscoco_train2014_{name}_results.json").read_text())
    items = {}
    for result in results:
        annotation = annotations[result["question_id"]]
        items[str(result["question_id"])] = Answered(
            answer=result["answer"],
            annotations=[a["answer"] for a in annotation["answers"]],
            answer_type=annotation["answer_type"],
            question_type=annotation["question_type"],
        )
    ours = {key: round(100 * question_accuracy(i.answer, i.annotations), 2) for key, i in items.items()}
    assert ours == expected["perQuestion"]
    total = vqa_accuracy(items.values())
    assert round(100 * total.overall, 2) == expected["accuracy"]["overall"]
    by_type = {k: round(100 * v, 2) for k, v in total.per_answer_type.items()}
    assert by_type == expected["accuracy"]["perAnswerType"]
    by_question = {k: round(100 * v, 2) for k, v in total.per_question_type.items()}
    assert by_question == expected["accuracy"]["perQuestionType"]


@pytest.mark.parametrize(("matches", "accuracy"), [(0, 0), (1, 0.3), (2, 0.6), (3, 0.9), (4, 1), (10, 1)])
def test_leave_one_out_of_ten(matches, accuracy):
    assert leave_one_out(matches, 10) == pytest.approx(accuracy)


def test_unanimous_answers_are_not_normalised():
    assert question_accuracy("Yes", ["yes"] * 10) == 0
    assert question_accuracy("yes", ["yes"] * 10) == 1
    assert question_accuracy("Yes", ["yes"] * 9 + ["no"]) == 1
    assert question_accuracy("yes\n", ["yes"] * 10) == 1  # blanks at the ends go in any case


def test_answer_scores_are_the_accuracies_of_the_normalised_answers():
    annotations = ["Two", "2", "two.", "2", "3", "3", "a dog", "four", "four", "four"]
    scores = answer_scores(annotations)
    assert scores == {answer: question_accuracy(answer, annotations) for answer in ("2", "3", "dog", "4")}
    assert scores["3"] == pytest.approx(0.6)


def test_no_question_gives_zero():
    assert vqa_accuracy([]).overall == 0
