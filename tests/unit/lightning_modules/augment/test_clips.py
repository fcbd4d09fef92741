"""Which frames are looked at, and what a mirror does to names."""

import numpy as np
import pytest

from lightning_modules.augment.clips import choose_frames, shuffled, window
from lightning_modules.augment.mirror_motion import mirror_motion, mirrored_classes


def test_frames_are_taken_of_equal_stretches() -> None:
    assert choose_frames(5, 8, 3).tolist() == [0, 1, 2, 3, 4], "a short clip keeps its frames"
    assert choose_frames(12, 4, None).tolist() == [1, 4, 7, 10]
    drawn = np.array([choose_frames(12, 4, seed) for seed in range(60)])
    assert (drawn // 3 == np.arange(4)).all() and set(drawn[:, 0].tolist()) == {0, 1, 2}
    assert choose_frames(12, 4, 5).tolist() == choose_frames(12, 4, 5).tolist()


def test_a_window_is_consecutive_and_anywhere() -> None:
    spans = {(s.start, s.stop) for s in (window(6, 4, seed) for seed in range(40))}
    assert spans == {(0, 4), (1, 5), (2, 6)} and window(3, 4, 0) == slice(0, 3)


def test_the_order_is_taken_away_alike_in_every_validation() -> None:
    places = np.arange(8)
    first = shuffled(places, "a", None)
    assert sorted(first.tolist()) == list(range(8)) and first.tolist() != list(range(8))
    assert first.tolist() == shuffled(places, "a", None).tolist() != shuffled(places, "b", None).tolist()
    assert shuffled(places, "a", 1).tolist() != shuffled(places, "a", 2).tolist()


@pytest.mark.parametrize(
    ("text", "mirrored"),
    [
        ("MoveLeft", "MoveRight"),
        ("a circle turns clockwise to the left", "a circle turns counterclockwise to the right"),
        ("TurnCounterclockwise", "TurnClockwise"),
        ("anticlockwise", "clockwise"),
        ("turn_RIGHT counter-clockwise", "turn_LEFT clockwise"),
        ("grows", "grows"),
    ],
)
def test_names_are_mirrored(text: str, mirrored: str) -> None:
    assert mirror_motion(text) == mirrored


def test_only_a_class_that_is_there_is_exchanged() -> None:
    assert mirrored_classes(["MoveLeft", "Grow", "MoveRight", "BrightLight"]) == [2, 1, 0, 3]
    assert mirrored_classes(["OnlyLeft", "Bright"]) == [0, 1]
