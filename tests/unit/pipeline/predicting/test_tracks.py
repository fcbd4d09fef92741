"""Tracks of drawn motion: objects keep their numbers where boxes are noisy, missing, unsure, or cross."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.predicting.tracks import Tracker

SIDE = 20.0


def box(x: float, y: float) -> list[float]:
    return [x, y, x + SIDE, y + SIDE]


def follow(tracker: Tracker, frame: int, *found: tuple[float, float, float, int]) -> list[int]:
    """Numbers of detections given as x, y, score, label."""
    boxes = np.array([box(x, y) for x, y, _, _ in found]).reshape(-1, 4)
    scores, labels = np.array([f[2] for f in found]), np.array([f[3] for f in found], np.int64)
    return tracker.follow(frame, boxes, scores, labels).tolist()


def test_two_that_cross_keep_their_numbers_though_boxes_are_noisy():
    """They pass through the same place at once; only where they go tells them apart."""
    noise = np.random.default_rng(0)
    tracker = Tracker(sure=0.5, max_gap=10)
    seen = []
    for frame in range(60):
        jitter = noise.normal(0, 0.5, (2, 2))
        first = (5 * frame + jitter[0, 0], 100 + jitter[0, 1], 0.9, 1)
        second = (300 - 5 * frame + jitter[1, 0], 103 + jitter[1, 1], 0.9, 1)
        order = [first, second] if frame % 2 else [second, first]  # a detector's order says nothing
        numbers = follow(tracker, frame, *order)
        seen.append(numbers if frame % 2 else numbers[::-1])
    assert {tuple(pair) for pair in seen} == {(2, 1)}


def test_one_that_is_gone_for_a_while_comes_back_as_itself_and_after_long_as_another():
    tracker = Tracker(sure=0.5, max_gap=10)
    for frame in range(10):
        assert follow(tracker, frame, (4 * frame, 50, 0.8, 1)) == [1]
    assert follow(tracker, 16, (4 * 16, 50, 0.8, 1)) == [1], "where it was going, six frames later"
    assert follow(tracker, 40, (4 * 40, 50, 0.8, 1)) == [2]


def test_an_unsure_detection_continues_a_track_and_begins_none():
    tracker = Tracker(sure=0.5, max_gap=10)
    assert follow(tracker, 0, (0, 0, 0.9, 1), (100, 0, 0.3, 1)) == [1, 0]
    assert follow(tracker, 1, (2, 0, 0.2, 1), (102, 0, 0.3, 1)) == [1, 0], "half hidden"
    assert follow(tracker, 2, (4, 0, 0.05, 1)) == [0], "this says nothing"
    assert follow(tracker, 3, (6, 0, 0.3, 1)) == [0], "once lost, it waits for a sure one"
    assert follow(tracker, 4, (8, 0, 0.9, 1)) == [1]


def test_another_class_in_the_same_place_is_another_object():
    tracker = Tracker(sure=0.5, max_gap=10)
    assert follow(tracker, 0, (0, 0, 0.9, 1)) == [1]
    assert follow(tracker, 1, (0, 0, 0.9, 2)) == [2]
    assert follow(tracker, 2, (0, 0, 0.9, 1), (0, 0, 0.9, 2)) == [1, 2]


@pytest.mark.parametrize("every", [1, 3])
def test_frames_that_are_left_out_are_counted(every):
    """The prediction is over as many frames as have passed."""
    tracker = Tracker(sure=0.5, max_gap=30)
    for frame in range(0, 60, every):
        assert follow(tracker, frame, (3 * frame, 2 * frame, 0.9, 1)) == [1], frame


def test_frames_without_anything():
    tracker = Tracker(sure=0.5, max_gap=3)
    assert follow(tracker, 0) == [] and follow(tracker, 1, (0, 0, 0.9, 1)) == [1]
    assert follow(tracker, 2) == [] and follow(tracker, 3, (0, 0, 0.9, 1)) == [1]
