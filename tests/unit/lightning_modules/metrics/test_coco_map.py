"""COCO AP and AR against the official numbers, and what pycocotools gets wrong on odd input."""

import json

import numpy as np
import pytest

from lightning_modules.metrics.coco_map import CocoEvaluation

BOX = (
    0.5045806987249628, 0.6969727247299577, 0.5729816669904824, 0.5856257209410443, 0.5193996948036719,
    0.5013978986347466, 0.38681277964578054, 0.5936795762842003, 0.595352982877607, 0.6398109626113442,
    0.5664205978994309, 0.5642905982905982,
)  # fmt: skip
SEGM = (
    0.3195452758576433, 0.5622883972521636, 0.29892653412086784, 0.3873740315997838, 0.31018272403369485,
    0.3269339071005138, 0.2682297225711534, 0.41544868114906375, 0.4168394992198818, 0.4694498622754236,
    0.37675922666197265, 0.3814715099715099,
)  # fmt: skip


@pytest.mark.parametrize(("iou_type", "expected"), [("bbox", BOX), ("segm", SEGM)])
def test_equals_the_official_numbers(shared_dir, iou_type, expected):
    folder = shared_dir / "golden/coco_bbox_segm_val2014_100"
    truth = json.loads((folder / "instances_val2014_100.json").read_text())
    found = json.loads((folder / f"instances_val2014_fake{iou_type}100_results.json").read_text())
    categories = [c["id"] for c in truth["categories"]]
    images = {i["id"]: (i["height"], i["width"]) for i in truth["images"]}
    evaluation = CocoEvaluation(images, truth["annotations"], found, categories, iou_type=iou_type)
    np.testing.assert_allclose(list(evaluation.stats().values()), expected, atol=1e-9)
    per_class = evaluation.class_ap()
    assert np.nanmean(list(per_class.values())) == pytest.approx(expected[0], abs=1e-9)


def perfect(num_images: int = 3, area: float = 400.0):
    images = {f"k{i}": (50, 50) for i in range(num_images)}
    annotations = [
        {"image_id": k, "category_id": 1, "bbox": [5.0, 5.0, 20.0, 20.0], "area": area, "iscrowd": 0} for k in images
    ]
    results = [{"image_id": k, "category_id": 1, "bbox": [5.0, 5.0, 20.0, 20.0], "score": 0.9} for k in images]
    return images, annotations, results


def test_perfect_detections_score_one_whatever_the_ids():
    images, annotations, results = perfect()
    for a in annotations:
        a["id"] = 0
    stats = CocoEvaluation(images, annotations, results, [1, 2], iou_type="bbox").stats()
    assert stats["AP"] == stats["AP50"] == stats["AR100"] == pytest.approx(1.0)
    assert np.isnan(stats["APl"])  # no object of that size


def test_an_image_without_detections_counts():
    images, annotations, results = perfect(4)
    stats = CocoEvaluation(images, annotations, results[:2], [1], iou_type="bbox").stats()
    assert stats["AR100"] == pytest.approx(0.5)


def test_no_detections_at_all_score_zero():
    images, annotations, _ = perfect()
    evaluation = CocoEvaluation(images, annotations, [], [1], iou_type="bbox")
    stats = evaluation.stats()
    assert stats["AP"] == stats["AR1"] == stats["APs"] == 0.0
    assert np.isnan(stats["APm"])  # as when something was detected
    assert evaluation.class_ap() == {1: 0.0}
    assert len(evaluation.pr_points(1)[0]) == 0


def test_no_objects_at_all():
    images, _, results = perfect()
    evaluation = CocoEvaluation(images, [], results, [1], iou_type="bbox")
    assert evaluation.stats()["AP"] == 0.0
    crowd = [{**a, "iscrowd": 1} for a in perfect()[1]]
    assert CocoEvaluation(images, crowd, results, [1], iou_type="bbox").stats()["AP"] == 0.0


def test_foreign_images_are_refused():
    images, annotations, results = perfect()
    results[0]["image_id"] = "elsewhere"
    with pytest.raises(KeyError):
        CocoEvaluation(images, annotations, results, [1], iou_type="bbox")
