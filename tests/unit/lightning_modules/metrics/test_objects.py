"""The confusion matrix of objects, by boxes and by masks."""

import numpy as np
import pytest

from lightning_modules.metrics.objects import coco_evaluation, object_confusion, voc_curves
from lightning_modules.ops.masks import encode_masks, fill_boxes

SIZE = (60, 80)


def objects(boxes, labels, **flags):
    boxes, count = np.array(boxes, np.float32).reshape(-1, 4), len(labels)
    return {
        "boxes": boxes,
        "labels": np.array(labels, np.int64),
        "areas": (boxes[:, 2:] - boxes[:, :2]).prod(axis=1).astype(float),
        "is_crowd": np.array(flags.get("crowd", [False] * count), bool),
        "is_difficult": np.array(flags.get("difficult", [False] * count), bool),
        "scores": np.array(flags.get("scores", [0.9] * count), np.float32),
        "size": SIZE,
        "masks": encode_masks(fill_boxes(boxes, SIZE)),
    }


A, B, CROWD = [0, 0, 20, 20], [30, 0, 50, 20], [0, 30, 80, 60]


@pytest.mark.parametrize("iou_type", ["bbox", "segm"])
def test_every_kind_of_outcome(iou_type):
    truth = objects([A, B, CROWD], [1, 2, 1], crowd=[False, False, True])
    found = objects(
        [A, [1, 0, 20, 20], [31, 0, 50, 20], [5, 35, 15, 45], [60, 0, 70, 10], B],
        [1, 1, 1, 2, 2, 2],
        scores=[0.9, 0.8, 0.7, 0.6, 0.55, 0.1],
    )
    matrix = object_confusion({"k": found}, {"k": truth}, 2, iou_type, min_score=0.5)
    # One right; B taken for class 1; a second find of A and one of nothing; what lies in the crowd does not count.
    assert matrix.tolist() == [[0, 1, 1], [0, 1, 0], [0, 1, 0]]


def test_a_difficult_object_is_neither_missed_nor_invented():
    truth = objects([A], [1], difficult=[True])
    nothing, it = objects([], []), objects([A], [1])
    for found in (nothing, it):
        assert not object_confusion({"k": found}, {"k": truth}, 1, "bbox", min_score=0.5).any()


def test_an_object_without_a_mask_is_not_measured_by_masks():
    truth = objects([A, B], [1, 1])
    truth["masks"][1] = ""
    found = objects([A], [1])
    assert object_confusion({"k": found}, {"k": truth}, 1, "segm", min_score=0.5).tolist() == [[0, 0], [0, 1]]
    assert coco_evaluation({"k": found}, {"k": truth}, ["a"], "segm").stats["AR100"] == 1
    assert coco_evaluation({"k": found}, {"k": truth}, ["a"], "bbox").stats["AR100"] == 0.5


def test_curves_are_by_class_name():
    curves = voc_curves({"k": objects([A], [2])}, {"k": objects([A, B], [1, 2])}, ["a", "b", "c"])
    assert list(curves) == ["a", "b", "c"] and curves["c"].num_objects == 0
    assert curves["a"].ap_all_points() == 0 and curves["b"].precision.tolist() == [0]
