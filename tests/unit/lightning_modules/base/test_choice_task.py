"""How one of several candidates is chosen, and what ties are worth."""

from __future__ import annotations

import numpy as np

from contracts.records import Question
from lightning_modules.base.choice_task import choice, mirrored_question, shown, ties


def test_the_best_is_chosen() -> None:
    assert choice(np.array([-3.0, -0.5, -0.6, -9.0], np.float32), 7) == 1
    assert ties(np.array([-3.0, -0.5, -0.6, -9.0], np.float32)).tolist() == [1]


def test_who_says_the_same_of_four_is_right_in_one_of_four() -> None:
    """In the released code such a model is right always: the right one stands first."""
    scores = np.zeros(4, np.float32)
    for right in range(4):
        share = np.mean([choice(scores, qa_id) == right for qa_id in range(4000)])
        assert abs(share - 0.25) < 0.03
    pair = np.array([0.5, 0.5, -1, -2], np.float32)
    share = np.mean([choice(pair, qa_id) == 0 for qa_id in range(4000)])
    assert abs(share - 0.5) < 0.03


def test_rounding_makes_no_difference_between_equals() -> None:
    scores = np.array([-12.000001, -12.0, -12.0, -11.999999], np.float32)
    assert ties(scores).tolist() == [0, 1, 2, 3]
    assert choice(scores, 5) == choice(np.zeros(4, np.float32), 5)
    assert choice(scores, 5) == choice(scores, 5), "the id alone decides"


def test_mirrored_texts_say_the_other_side() -> None:
    question = Question(
        question_id=1, text="Who is on the left?", candidates=("The left one.", "No one."), answer_index=0
    )
    mirrored = mirrored_question(question)
    assert (mirrored.text, mirrored.candidates) == ("Who is on the right?", ("The right one.", "No one."))


def test_boxes_without_names_are_counted() -> None:
    boxes = ((0.0, 0, 1, 1), (1.0, 0, 2, 1))
    assert shown(Question(question_id=1, text="which?", candidate_boxes=boxes)) == ("0", "1")
