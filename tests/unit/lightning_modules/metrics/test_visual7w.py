"""Visual7W's multiple choice against the official script's output, and what its denominator hides."""

import json
import math
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.errors import DataError
from lightning_modules.metrics.visual7w import measure_visual7w

QUESTIONS = st.lists(
    st.tuples(
        st.sampled_from(["what", "who", "how"]), st.sampled_from("abA"), st.sampled_from("abA "), st.integers(0, 2)
    ),
    min_size=1,
    max_size=12,
)


def _measure(questions, **options):
    truth = {i: (kind, answer) for i, (kind, answer, _, _) in enumerate(questions)}
    return measure_visual7w(truth, {i: question[2] for i, question in enumerate(questions)}, **options)


def test_equals_the_official_output(shared_dir):
    path = shared_dir / "golden/official/v7w/golden_visual7w.json"
    if not path.is_file():
        pytest.skip(f"no golden answers: {path}")
    golden = json.loads(path.read_text())
    measured = measure_visual7w(
        {pair["qa_id"]: (pair["type"], pair["answer"]) for pair in golden["pairs"]},
        {result["qa_id"]: result["candidates"][0]["answer"] for result in golden["results"]},
    )
    printed = golden["official_output"]["mc"]
    expected = {name: float(value) for name, value in re.findall(r'type "(\w+)" accuracy = ([\d.]+)', printed)}
    expected["overall"] = float(re.search(r"Overall accuracy = ([\d.]+)", printed)[1])
    assert len(expected) == 6
    assert measured.values == expected
    assert (measured.num_items, measured.unit) == (6, "questions")


def test_case_is_ignored_and_blanks_are_not():
    truth = {1: ("what", "A dog."), 2: ("what", "A dog."), 3: ("where", "ÉCOLE")}
    values = measure_visual7w(truth, {1: "a DOG.", 2: "A dog. ", 3: "école"}).values
    assert values == {"overall": pytest.approx(2 / 3), "what": 0.5, "where": 1.0}


def test_missing_and_unknown_questions_are_refused_by_name():
    truth = dict.fromkeys(range(10), ("what", "a"))
    with pytest.raises(DataError, match=r"questions without an answer: 7\n  where: qa_id 3, 4, 5, 6, 7, \.\.\n"):
        measure_visual7w(truth, {0: "a", 1: "a", 2: "a"})
    with pytest.raises(DataError, match=r"unknown questions: 1\n  where: qa_id 12\n"):
        measure_visual7w(truth, dict.fromkeys([*truth, 12], "a"))


def test_no_question_is_nan():
    assert math.isnan(measure_visual7w({}, {}).values["overall"])


@given(QUESTIONS, st.randoms(use_true_random=False))
@settings(max_examples=50)
def test_order_does_not_matter_and_types_add_up(questions, random):
    values = _measure(questions).values
    assert values == _measure(random.sample(questions, len(questions))).values
    counts = {kind: sum(question[0] == kind for question in questions) for kind in values.keys() - {"overall"}}
    parts = sum(values[kind] * count for kind, count in counts.items())
    assert values["overall"] == pytest.approx(parts / len(questions))


@given(QUESTIONS, st.booleans(), st.data())
@settings(max_examples=80)
def test_resample_is_the_accuracy_of_the_questions_drawn(questions, by_image, data):
    images = {i: question[3] for i, question in enumerate(questions)} if by_image else None
    measured = _measure(questions, images=images)
    clusters = sorted(set(images.values())) if by_image else list(range(len(questions)))
    assert measured.num_clusters == len(clusters)
    times = data.draw(st.lists(st.integers(0, 3), min_size=len(clusters), max_size=len(clusters)))
    drawn = measured.resample(np.array([[1] * len(clusters), times]))
    of_question = [times[clusters.index(images[i] if by_image else i)] for i in range(len(questions))]
    again = [question for question, weight in zip(questions, of_question, strict=True) for _ in range(weight)]
    expected = _measure(again).values
    for name, values in drawn.items():
        assert values[0] == pytest.approx(measured.values[name], abs=1e-12)
        assert values[1] == pytest.approx(expected.get(name, math.nan), abs=1e-12, nan_ok=True)
