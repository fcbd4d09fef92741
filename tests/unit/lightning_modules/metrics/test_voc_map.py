"""VOC average precision against the official MATLAB kit and published small cases."""

import json

import numpy as np
import pytest

from lightning_modules.metrics.voc_map import mean_ap, measure_voc, pr_curve, pr_curve_of_rows


def curve_of(rows_truth, rows_found, iou):
    """Rows are (image, x1, y1, x2, y2, difficult) and (image, score, x1, y1, x2, y2), corners inclusive."""
    objects, detections = {}, {}
    for image, *box, difficult in rows_truth:
        objects.setdefault(image, []).append((*box, difficult))
    for image, *row in rows_found:
        detections.setdefault(image, []).append(row)
    to_edges = np.array([0, 0, 1, 1])
    return pr_curve(
        {k: (np.array(v)[:, 1:] + to_edges, np.array(v)[:, 0]) for k, v in detections.items()},
        {k: (np.array(v)[:, :4] + to_edges, np.array(v)[:, 4].astype(bool)) for k, v in objects.items()},
        iou_threshold=iou,
    )


def test_equals_the_official_kit(shared_dir):
    folder = shared_dir / "golden/official/voc"
    expected = json.loads((folder / "expected.json").read_text())["results"]
    assert len(expected) >= 9
    for row in expected:
        case = json.loads((folder / f"{row['set']}.json").read_text())
        truth = [(image, *rest) for image, name, *rest in case["gt"] if name == row["class"]]
        found = [(image, *rest) for image, name, *rest in case["dt"] if name == row["class"]]
        curve = curve_of(truth, found, row["iou"])
        if row["ap_allpoint_voc2010"] is None:  # 0 / 0 in the kit: nothing to find
            assert np.isnan(curve.ap_all_points()) and np.isnan(curve.ap_11_points())
            continue
        assert curve.ap_all_points() == pytest.approx(row["ap_allpoint_voc2010"], abs=1e-12)
        assert curve.ap_11_points() == pytest.approx(row["ap_11point_voc2007"], abs=1e-12)


@pytest.mark.parametrize(
    ("iou", "ap_11", "ap_all"),
    [(0.1, 1 / 3, 0.3371980676), (0.3, 0.2683982683, 0.2456866804), (0.5, 0.0303030303, 0.0222222222), (0.75, 0, 0)],
)
def test_equals_the_published_case(shared_dir, iou, ap_11, ap_all):
    folder = shared_dir / "golden/voc_ap_toy/case_1"
    truth, found = [], []
    for path in sorted((folder / "groundtruths").glob("*.txt")):
        for line in path.read_text().splitlines():
            x, y, w, h = (float(v) for v in line.split()[1:])
            truth.append((path.stem, x, y, x + w, y + h, 0))
    for path in sorted((folder / "detections").glob("*.txt")):
        for line in path.read_text().splitlines():
            score, x, y, w, h = (float(v) for v in line.split()[1:])
            found.append((path.stem, score, x, y, x + w, y + h))
    curve = curve_of(truth, found, iou)
    assert curve.ap_11_points() == pytest.approx(ap_11, abs=1e-9)
    assert curve.ap_all_points() == pytest.approx(ap_all, abs=1e-9)


def test_second_detection_is_wrong_and_difficult_ones_do_not_count():
    truth = [("a", 0, 0, 9, 9, 0), ("a", 50, 50, 59, 59, 1)]
    found = [("a", 0.9, 0, 0, 9, 9), ("a", 0.8, 0, 0, 9, 9), ("a", 0.7, 50, 50, 59, 59)]
    curve = curve_of(truth, found, 0.5)
    assert curve.num_objects == 1
    np.testing.assert_allclose(curve.precision, [1, 0.5])


def test_equal_scores_keep_the_order_of_keys():
    truth = [("a", 0, 0, 9, 9, 0)]
    right, wrong = ("a", 0.5, 0, 0, 9, 9), ("b", 0.5, 0, 0, 9, 9)
    assert curve_of(truth, [wrong, right], 0.5).ap_all_points() == 1.0  # "a" comes first, whatever the input order


def test_nothing_detected_and_nothing_to_find():
    assert curve_of([("a", 0, 0, 9, 9, 0)], [], 0.5).ap_all_points() == 0.0
    empty = curve_of([], [("a", 0.9, 0, 0, 9, 9)], 0.5)
    assert np.isnan(empty.ap_all_points())
    assert mean_ap([float("nan"), 0.5]) == 0.5 and mean_ap([float("nan")]) == 0.0


def test_equal_scores_keep_the_order_of_the_file():
    objects = {"a": (np.array([[0.0, 0, 10, 10]]), np.zeros(1, bool))}
    boxes, scores = np.array([[0.0, 0, 10, 10]] * 2), np.array([0.5, 0.5])
    assert pr_curve_of_rows(["b", "a"], boxes, scores, objects).precision.tolist() == [0, 0.5]
    assert pr_curve_of_rows(["a", "b"], boxes, scores, objects).precision.tolist() == [1, 0.5]


def random_case(seed):
    rng = np.random.default_rng(seed)
    truth, found = [], []
    for image in "abcdefgh":
        for _ in range(rng.integers(0, 4)):
            x, y = rng.integers(0, 80, 2)
            truth.append((image, x, y, x + 19, y + 19, int(rng.random() < 0.2)))
            for _ in range(rng.integers(0, 3)):
                dx, dy = rng.integers(-9, 9, 2)
                found.append((image, rng.random(), x + dx, y + dy, x + dx + 19, y + dy + 19))
        found.append((image, rng.random() / 2, 0, 0, 9, 9))
    return truth, found


@pytest.mark.parametrize("seed", range(4))
def test_a_resample_is_the_measure_of_the_images_it_draws(seed):
    truth, found = random_case(seed)
    measured = measure_voc({"car": curve_of(truth, found, 0.5)}, list("abcdefgh"))
    same = measured.resample(np.ones((1, 8), np.int64))
    assert {name: v[0] for name, v in same.items()} == pytest.approx(dict(measured.values), abs=1e-12)
    weights = np.random.default_rng(seed).multinomial(8, np.full(8, 1 / 8), size=4)
    drawn = measured.resample(weights)
    for b, row in enumerate(weights):
        copies = [(key, f"{key}{n}") for key, count in zip("abcdefgh", row, strict=True) for n in range(count)]
        again = [[(new, *rest) for old, new in copies for key, *rest in rows if key == old] for rows in (truth, found)]
        curve = curve_of(*again, 0.5)
        assert drawn["mAP_2010"][b] == pytest.approx(curve.ap_all_points(), abs=1e-12)
        assert drawn["mAP_2007"][b] == pytest.approx(curve.ap_11_points(), abs=1e-12)


@pytest.mark.parametrize("seed", range(4))
def test_a_right_detection_never_lowers_recall_nor_a_wrong_last_one_raises_ap(seed):
    truth, found = random_case(seed)
    base = curve_of(truth, found, 0.5)
    image, *box, _ = next(row for row in truth if not row[-1])
    assert curve_of(truth, [*found, (image, 2.0, *box)], 0.5).recall[-1] >= base.recall[-1]
    assert curve_of(truth, [*found, ("a", -1.0, 300, 300, 310, 310)], 0.5).ap_all_points() <= base.ap_all_points()


def test_a_class_without_objects_is_left_out_of_every_mean():
    there = curve_of([("a", 0, 0, 9, 9, 0)], [("a", 0.9, 0, 0, 9, 9)], 0.5)
    absent = curve_of([("b", 0, 0, 9, 9, 1)], [("a", 0.9, 0, 0, 9, 9)], 0.5)
    measured = measure_voc({"car": there, "cat": absent}, ["a", "b"])
    assert measured.values["mAP_2007"] == pytest.approx(1) and measured.values["mAP_2010"] == 1
    np.testing.assert_allclose(measured.resample(np.array([[1, 1], [0, 2]]))["mAP_2010"], [1, 0])
