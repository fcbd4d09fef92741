"""The confusion matrix and its metrics against the official kit and published small cases."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.errors import DataError
from lightning_modules.metrics.segmentation import (
    class_ious,
    count_errors,
    measure_segmentation,
    segmentation_metrics,
)
from lightning_modules.metrics.segmentation_scores import confusion_matrix


def test_equals_the_official_kit(shared_dir):
    folder = shared_dir / "golden/official/seg"
    case, expected = (json.loads((folder / name).read_text()) for name in ("seg.json", "expected.json"))
    matrix = np.zeros((5, 5), np.int64)
    for image in case["images"].values():
        prediction = next(image[name] for name in image if name != "gt")
        matrix += confusion_matrix(np.array(image["gt"]), np.array(prediction), 5)
    np.testing.assert_array_equal(matrix, expected["confusion_true_by_pred"])
    np.testing.assert_allclose(class_ious(matrix) * 100, expected["iou_percent"], atol=1e-11)
    metrics = segmentation_metrics(matrix)
    assert metrics["mean_iou"] * 100 == pytest.approx(expected["miou_percent"], abs=1e-11)
    assert metrics["pixel_accuracy"] == pytest.approx(expected["pixel_accuracy"], abs=1e-12)
    assert metrics["mean_class_accuracy"] == pytest.approx(expected["mean_class_accuracy"], abs=1e-12)


def test_equals_the_published_small_cases(shared_dir):
    document = json.loads((shared_dir / "golden/segmentation_small_arrays/cases.json").read_text())
    cases = document["cases"] if isinstance(document, dict) else document
    for case in cases:
        truth = np.array(case["gt"])
        predicted = np.array(case["pred"])
        size = int(max(truth.max(), predicted.max())) + 1
        matrix = confusion_matrix(truth, predicted, size)
        metrics = segmentation_metrics(matrix)
        assert metrics["pixel_accuracy"] == pytest.approx(case["pixel_accuracy"], abs=1e-12)
        assert metrics["mean_class_accuracy"] == pytest.approx(case["mean_accuracy"], abs=1e-12)
        assert metrics["frequency_weighted_iou"] == pytest.approx(case["frequency_weighted_IU"], abs=1e-12)
        # The FCN paper means over the classes of the truth only; VOC counts a class that is only predicted as 0.
        assert class_ious(matrix)[matrix.sum(1) > 0].mean() == pytest.approx(case["mean_IU"], abs=1e-12)


def test_absent_classes_are_left_out_and_invented_ones_count_zero():
    truth = np.array([[0, 0, 1, 1]])
    assert segmentation_metrics(confusion_matrix(truth, truth, 4))["mean_iou"] == 1.0
    invented = segmentation_metrics(confusion_matrix(truth, np.array([[0, 0, 1, 3]]), 4))
    assert invented["mean_iou"] == pytest.approx((1 + 0.5 + 0) / 3)


def test_ignored_pixels_do_not_count():
    truth = np.array([[255, 0, 1, 255]])
    assert confusion_matrix(truth, np.array([[1, 0, 1, 0]]), 2).tolist() == [[1, 0], [0, 1]]
    nothing = confusion_matrix(np.full((2, 2), 255), np.zeros((2, 2)), 2)
    assert set(segmentation_metrics(nothing).values()) == {0.0}


@pytest.mark.parametrize(
    ("truth", "predicted", "message"),
    [
        ([[0, 7]], [[0, 0]], "truth"),
        ([[0, 1]], [[0, 255]], "prediction"),
        ([[0, 1]], [[0, 1, 1]], "size"),
    ],
)
def test_labels_and_sizes_are_checked(truth, predicted, message):
    with pytest.raises(DataError, match=message):
        confusion_matrix(np.array(truth), np.array(predicted), 2)


def test_a_resample_is_the_measure_of_the_images_it_draws():
    rng = np.random.default_rng(0)
    matrices = rng.integers(0, 50, (6, 4, 4))
    matrices[:, 3] = matrices[:, :, 3] = 0  # a class that is nowhere
    weights = rng.multinomial(6, np.full(6, 1 / 6), size=5)
    measured = measure_segmentation(matrices)
    assert measured.resample(np.ones((1, 6), np.int64)) == pytest.approx(dict(measured.values), abs=1e-15)
    for b, row in enumerate(weights):
        expected = segmentation_metrics(np.repeat(matrices, row, axis=0).sum(axis=0))
        assert {name: v[b] for name, v in measured.resample(weights).items()} == pytest.approx(expected, abs=1e-12)


@settings(max_examples=30)
@given(st.integers(0, 10**6), st.permutations(range(4)))
def test_renaming_the_classes_changes_nothing(seed, order):
    truth, predicted = np.random.default_rng(seed).integers(0, 4, (2, 9, 11))
    renamed = np.array(order)
    base = segmentation_metrics(confusion_matrix(truth, predicted, 4))
    again = segmentation_metrics(confusion_matrix(renamed[truth], renamed[predicted], 4))
    assert again == pytest.approx(base, abs=1e-12)


def test_errors_are_counted_by_kind_and_place():
    truth = np.zeros((40, 40), np.int64)
    truth[:, 20:] = 1
    truth[0, 0] = 255
    predicted = truth.copy()
    predicted[truth == 255] = 1  # ignored
    predicted[5, 19] = 1  # an object where there is none, at the boundary
    predicted[5, 5] = 2  # and far from it
    predicted[10, 35:38] = 2  # wrong class
    predicted[20:24, 20] = 0  # missed
    assert count_errors(truth, predicted).tolist() == [[4, 0], [1, 1], [0, 3]]
