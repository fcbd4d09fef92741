"""VQA accuracy against two sets computed by the official evaluator, question by question."""

import json
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_modules.metrics.vqa_accuracy import (
    Answered,
    answer_scores,
    leave_one_out,
    measure_vqa,
    most_frequent_form,
    normalise_answer,
    question_accuracy,
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
    items = [
        Answered(
            answer=item["answer"],
            annotations=item["answers"],
            answer_type=item["answer_type"],
            question_type=item["question_type"],
        )
        for item in golden["items"]
    ]
    result = measure_vqa(items, range(len(items)))
    assert result.num_items == 245
    assert flat(golden["expected"]) == pytest.approx(dict(result.values), abs=1e-9)


def flat(expected):
    """The official accuracies by our names."""
    nested = {f"{kind}/{k}": v for kind in ("perAnswerType", "perQuestionType") for k, v in expected[kind].items()}
    return {"overall": expected["overall"], **nested}


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
    total = measure_vqa(list(items.values()), list(items))
    assert {name: round(value, 2) for name, value in total.values.items()} == flat(expected["accuracy"])


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


@pytest.mark.parametrize(
    ("answers", "given", "accuracy"),
    [
        (["yes"], "yes", 1),  # by the official formula 0: nobody else said so
        (["yes"], "no", 0),
        (["Yes"], "yes", 1),  # always normalised: there is no official number to keep
        (["one way"], "1 way", 1),
        (["2", "two", "3"], "2", 1),
        (["2", "two", "3"], "3", 1),
        (["yes"] * 9, "yes", 1),
        (["yes"] * 9 + ["no"], "no", 0.3),  # ten: official
        (["yes"] * 11 + ["no"], "no", 11 / 12 / 3),
    ],
)
def test_fewer_than_ten_answers_count_by_the_answer(answers, given, accuracy):
    assert question_accuracy(given, answers) == pytest.approx(accuracy)
    assert answer_scores(answers).get(normalise_answer(given), 0) == pytest.approx(accuracy)


def test_the_variant_tells_where_our_own_rule_counted():
    ten, one = Answered(answer="a", annotations=["yes"] * 10), Answered(answer="yes", annotations=["yes"])
    assert measure_vqa([ten], [0]).variant.startswith("official")
    assert measure_vqa([ten], [0]).values == {"overall": 0}, "no type, no group"
    assert "for 1 of 2 questions" in measure_vqa([ten, one], [0, 1]).variant
    assert "official" not in measure_vqa([one], [0]).variant
    assert measure_vqa([ten, one], [0, 1]).values == {"overall": 50}


def test_the_most_frequent_form():
    assert most_frequent_form(Counter({"one way": 3, "1 way": 2})) == "one way"
    assert most_frequent_form(Counter({"b": 1, "a": 1})) == "a"


def test_no_question_gives_zero():
    assert measure_vqa([], []).values == {"overall": 0} and measure_vqa([], []).resample is None


def test_an_image_is_drawn_with_all_its_questions():
    answers = [("a", "yes"), ("a", "no"), ("b", "2"), ("c", "yes")]
    items = [
        Answered(answer=given, annotations=["yes"] * 10, answer_type=kind, question_type=kind)
        for (_, given), kind in zip(answers, "xyxx", strict=True)
    ]
    measured = measure_vqa(items, [image for image, _ in answers])
    assert measured.num_clusters == 3
    drawn = measured.resample(np.array([[1, 1, 1], [2, 0, 1], [0, 3, 0]]))
    np.testing.assert_allclose(drawn["overall"], [50, 60, 0])
    np.testing.assert_allclose(drawn["perAnswerType/y"], [0, 0, np.nan])


@settings(max_examples=30)
@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(["yes", "2", "two"])), min_size=1), st.randoms())
def test_order_does_not_change_the_digits(answers, random):
    items = [
        (image, Answered(answer=given, annotations=["yes", "2", "2", "two", "no"] * 2)) for image, given in answers
    ]
    shuffled = random.sample(items, len(items))
    assert measure_vqa([i for _, i in items], [k for k, _ in items]).values == (
        measure_vqa([i for _, i in shuffled], [k for k, _ in shuffled]).values
    )
