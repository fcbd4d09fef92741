"""Classes of images: the devkit's average precision worked out by hand, what counts for nothing, ties and resamples."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from contracts.errors import DataError
from lightning_modules.metrics.bootstrap import intervals
from lightning_modules.metrics.measurement import Measurement
from lightning_modules.metrics.multilabel import ClassRanking, MultilabelMeanAP
from lightning_modules.metrics.voc_map import pr_curve_of_rows


def measured(scores: Any, labels: Any, groups: Any = None, names: Any = None) -> Measurement:
    """Of (I, C) scores and labels; ids are the rows, as text."""
    scores, labels = np.array(scores, np.float32), np.array(labels, np.int8)
    names = names or [f"c{i}" for i in range(labels.shape[1])]
    items = [
        (f"{i:04d}", f"{i:04d}" if groups is None else groups[i], {"probs": row}, {"labels": labels[i]})
        for i, row in enumerate(scores)
    ]
    (one,) = MultilabelMeanAP(names, each=True).measure_items(items)
    return one


def column(values: list) -> list:
    return [[value] for value in values]


def test_both_integrals_by_hand() -> None:
    # right, wrong, right, wrong: precision 1 at recall 1/2, 2/3 at recall 1
    found = measured(column([0.9, 0.8, 0.7, 0.6]), column([1, -1, 1, -1])).values
    assert found["mAP_2010"] == found["AP/c0"] == pytest.approx(1 / 2 * 1 + 1 / 2 * 2 / 3)
    assert found["mAP_2007"] == pytest.approx((6 * 1 + 5 * 2 / 3) / 11)  # 0, .1 .. .5, then .6 .. 1


def test_difficult_only_is_neither_right_nor_wrong() -> None:
    scores, labels = [0.9, 0.8, 0.7, 0.6, 0.5], [0, 1, 0, -1, 1]
    left_out = measured(column([0.8, 0.6, 0.5]), column([1, -1, 1])).values
    assert measured(column(scores), column(labels)).values == left_out
    assert measured(column(scores), column([-1, 1, -1, -1, 1])).values["mAP_2010"] < left_out["mAP_2010"]
    assert measured(column(scores), column([1, 1, 1, -1, 1])).values["mAP_2010"] > left_out["mAP_2010"]


def test_classes_that_no_image_shows_are_left_out_of_the_mean() -> None:
    found = measured([[0.9, 0.1, 0.4], [0.2, 0.8, 0.3]], [[1, -1, 0], [1, -1, -1]]).values
    assert found["mAP_2010"] == found["mAP_2007"] == found["AP/c0"] == 1.0
    assert np.isnan(found["AP/c1"]) and np.isnan(found["AP/c2"])
    assert np.isnan(measured([[0.9]], [[-1]]).values["mAP_2010"]), "nothing to find is no score"
    assert np.isnan(measured(np.zeros((0, 2)), np.zeros((0, 2))).values["mAP_2010"])


def test_without_ties_it_is_the_boxes_rule_where_every_image_is_one_box() -> None:
    """VOCevaldet's ranking, which is held to the official kit, with one detection an image."""
    rng = np.random.default_rng(0)
    scores, labels = rng.permutation(80) / 80, rng.choice([1, 0, -1], 80, p=[0.3, 0.2, 0.5])
    keys, box = [f"{i:04d}" for i in range(80)], np.array([[0.0, 0, 9, 9]])
    there = {key: (box, np.array([labels[i] == 0])) for i, key in enumerate(keys) if labels[i] >= 0}
    curve = pr_curve_of_rows(keys, np.repeat(box, 80, axis=0), scores, there)
    found = measured(column(scores.tolist()), column(labels.tolist())).values
    assert found["mAP_2010"] == pytest.approx(curve.ap_all_points(), abs=1e-12)
    assert found["mAP_2007"] == pytest.approx(curve.ap_11_points(), abs=1e-12)


def test_equal_scores_come_together_in_whatever_order_the_images_lie() -> None:
    scores, labels = np.array([0.5, 0.5, 0.5, 0.1]), np.array([1, -1, 1, -1])
    # two of three at recall 1, where the order of the file would get 5/6, and with luck 1
    found = [
        measured(column(scores[o].tolist()), column(labels[o].tolist())).values
        for o in ([0, 1, 2, 3], [1, 0, 2, 3], [3, 2, 0, 1])
    ]
    assert [one["mAP_2010"] for one in found] == pytest.approx([2 / 3] * 3)
    assert found[0] == found[1] == found[2]
    rng = np.random.default_rng(1)
    rough, shown = rng.integers(0, 5, 200) / 5, rng.choice([1, 0, -1], 200)
    order = rng.permutation(200)
    before, after = (
        measured(column(rough.tolist()), column(shown.tolist())),
        measured(column(rough[order].tolist()), column(shown[order].tolist())),
    )
    assert before.values == after.values


def test_it_is_scikit_learns_where_precision_only_falls() -> None:
    """Which takes no envelope, but lets equal scores come together, too."""
    metrics = pytest.importorskip("sklearn.metrics")
    scores, labels = [0.9, 0.9, 0.6, 0.6, 0.6, 0.1], [1, 1, 1, -1, -1, -1]
    expected = metrics.average_precision_score(np.array(labels) > 0, scores)
    assert measured(column(scores), column(labels)).values["mAP_2010"] == pytest.approx(expected)


def test_saying_the_same_of_every_image_gets_the_classes_share() -> None:
    found = measured(
        [[0.3, 0.9]] * 8, [[1, 0], [1, 1], [1, -1], [-1, -1], [-1, -1], [-1, -1], [-1, -1], [-1, -1]]
    ).values
    assert found["AP/c0"] == pytest.approx(3 / 8) and found["AP/c1"] == pytest.approx(1 / 7)
    assert found["mAP_2007"] == found["mAP_2010"] == pytest.approx((3 / 8 + 1 / 7) / 2)


def test_a_resample_is_the_split_with_its_images_repeated() -> None:
    rng = np.random.default_rng(2)
    scores, labels = rng.integers(0, 9, (30, 3)) / 9, rng.choice([1, 0, -1], (30, 3), p=[0.2, 0.2, 0.6])
    one = measured(scores, labels)
    assert one.resample is not None and one.num_items == 30
    weights = np.stack([np.bincount(rng.integers(30, size=30), minlength=30) for _ in range(6)]).astype(float)
    weights[0], weights[1] = 1, 2
    drawn = one.resample(weights)
    for b, row in enumerate(weights):
        kept = np.repeat(np.arange(30), row.astype(int))
        expected = measured(scores[kept], labels[kept]).values
        for name, value in expected.items():
            np.testing.assert_allclose(drawn[name][b], value, rtol=1e-12, err_msg=name)
    without = one.resample((~(labels > 0).any(axis=1)).astype(float)[None])
    assert np.isnan(without["mAP_2010"]).all(), "a resample without any true image has no score"
    for low, high in (intervals([one])[name] for name in ("mAP_2010", "mAP_2007")):
        assert 0 < low < high < 1


def test_groups_are_drawn_as_wholes() -> None:
    scores, labels = [[0.9], [0.8], [0.7], [0.6]], [[1], [-1], [-1], [1]]
    one = measured(scores, labels, groups=["x", "y", "y", "x"])
    assert one.num_clusters == 2 and one.resample is not None
    # twice x: its two true images alone; twice y: none; both
    drawn = one.resample(np.array([[2.0, 0], [0, 2], [1, 1]]))["mAP_2010"]
    assert drawn[0] == 1.0 and np.isnan(drawn[1]) and drawn[2] == pytest.approx(1 / 2 * 1 + 1 / 2 * 1 / 2)


def test_curves_of_the_report() -> None:
    ranking = ClassRanking.of(np.array([0.2, 0.9, 0.9, 0.5]), np.array([1, 1, -1, 0]))
    recall, precision = ranking.curves(np.ones((1, 4)))
    assert recall.tolist() == [[0.5, 1.0]] and precision[0].tolist() == pytest.approx([1 / 2, 2 / 3])
    assert not len(ClassRanking.of(np.zeros(2), np.zeros(2)).ends)


@pytest.mark.parametrize("labels", [np.array([True, False]), np.array([1, 2]), np.array([1.0, 0.5])])
def test_labels_of_another_kind_are_refused(labels: np.ndarray) -> None:
    """0 and false for what is not shown would be left out in silence."""
    with pytest.raises(DataError, match="labels of a truth") as error:
        MultilabelMeanAP(["a", "b"]).update([{"id": "x", "probs": np.zeros(2)}], [{"id": "x", "labels": labels}])
    assert "'x'" in str(error.value) and "-1" in str(error.value)
    with pytest.raises(DataError, match="another shape"):
        MultilabelMeanAP(["a", "b", "c"]).update([{"id": "x", "probs": np.zeros(3)}], [{"id": "x", "labels": labels}])
