"""Classes of frames: average precision worked out by hand, and errors after a change."""

from __future__ import annotations

import numpy as np
import pytest

from lightning_modules.metrics.frame_level import FrameAccuracy, FrameMeanAP, after_change, average_precision


def item(key: str, probs: list, labels: list) -> tuple:
    return key, key, {"probs": np.array(probs, np.float32)}, {"labels": np.array(labels, bool)}


def test_average_precision_by_hand() -> None:
    scores, true = np.array([0.9, 0.8, 0.7, 0.6]), np.array([True, False, True, False])
    column = np.array([0, 0, 1, 1])
    weights = np.array([[1.0, 1], [2, 0], [0, 2], [0, 0]])
    values = average_precision(scores, true, column, weights)
    # 1/2 * 1/1 + 1/2 * 2/3; twice the first clip: 1; twice the second: 1, nothing before its true frame; none
    assert values[:3].tolist() == pytest.approx([5 / 6, 1.0, 1.0]) and np.isnan(values[3])
    tied = average_precision(np.array([0.5, 0.5, 0.5, 0.1]), true, column, weights[:1])
    assert tied.tolist() == pytest.approx([2 / 3]), "equal scores come together, in whatever order they lie"


def test_it_is_scikit_learns() -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(0)
    scores, true = rng.integers(0, 12, 200) / 12, rng.random(200) < 0.3
    (value,) = average_precision(scores, true, np.zeros(200, int), np.ones((1, 1)))
    assert value == pytest.approx(metrics.average_precision_score(true, scores))


def test_the_mean_is_over_classes_that_are_there() -> None:
    items = [
        item("a", [[0.9, 0.1, 0.0], [0.2, 0.8, 0.0]], [[1, 0, 0], [0, 1, 0]]),
        item("b", [[0.7, 0.3, 0.0]], [[0, 1, 0]]),
    ]
    (measured,) = FrameMeanAP(["x", "y", "never"], each=True).measure_items(items)
    # x: first of three. y: .8 true, .3 true, .1
    assert measured.values["AP/x"] == 1.0 and measured.values["AP/y"] == 1.0 and measured.values["mAP"] == 1.0
    assert np.isnan(measured.values["AP/never"]) and measured.num_clusters == 2 and measured.num_items == 3
    worse = [item("a", [[0.9, 0.1, 0.0], [0.95, 0.8, 0.0]], [[1, 0, 0], [0, 1, 0]]), items[1]]
    (measured,) = FrameMeanAP(["x", "y", "never"]).measure_items(worse)
    assert measured.values["mAP"] == pytest.approx((0.5 + 1.0) / 2)
    assert measured.resample is not None
    np.testing.assert_allclose(measured.resample(np.array([[1.0, 1], [0, 3]]))["mAP"], [0.75, 1.0])


def test_frames_are_told_apart_by_how_long_ago_the_class_changed() -> None:
    labels = np.array([[1, 0], [1, 0], [0, 1], [0, 1], [0, 0], [1, 0]], bool)
    assert after_change(labels).tolist() == [-1, -1, 0, 1, 0, 0]
    assert after_change(np.repeat(np.eye(2, dtype=bool), [1, 12], axis=0))[-1] == 7, "the last stands for all further"
    probs = [[0.9, 0.1], [0.1, 0.9], [0.9, 0.1], [0.1, 0.9], [0.5, 0.5], [0.5, 0.5]]
    (measured,) = FrameAccuracy(by_distance=True).measure_items([item("a", probs, labels.tolist())])
    # frames with a class: 0 right, 1 wrong, 2 wrong, 3 right, 5 right (the first class of equal ones)
    assert measured.values["frame_accuracy"] == pytest.approx(3 / 5) and measured.num_items == 5
    assert measured.values["error/after 0"] == pytest.approx(1 / 2) and measured.values["error/after 1"] == 0.0
    assert np.isnan(measured.values["error/after 2"])
    assert measured.resample is not None
    assert measured.resample(np.array([[3.0]]))["error/after 0"].tolist() == [0.5]
