"""SSD's matching by hand, and against torchvision's where no two objects want one box."""

from __future__ import annotations

import torch
from torchvision.models.detection._utils import SSDMatcher
from torchvision.ops import box_iou

from lightning_modules.ops.matching import BACKGROUND, NEITHER
from lightning_modules.ops.one_to_one import assign_one_to_one, match_one_to_one


def test_the_largest_iou_of_all_comes_first_and_no_object_loses_its_box():
    ious = torch.tensor([[0.6, 0.2, 0.1], [0.8, 0.4, 0.1], [0.7, 0.3, 0.05]])
    # Object 1 takes box 0, then 2 takes box 1, and 0 what is left.
    assert match_one_to_one(ious, 0.5).tolist() == [1, 2, 0]
    assert SSDMatcher(0.5)(ious.clone()).tolist() == [2, BACKGROUND, BACKGROUND]


def test_other_boxes_match_from_the_threshold_on():
    ious = torch.tensor([[0.5, 0.9, 0.49, 0.1], [0.2, 0.6, 0.1, 0.3]])
    assert match_one_to_one(ious, 0.5).tolist() == [0, 0, BACKGROUND, 1]


def test_an_object_that_touches_no_box_takes_none():
    assert match_one_to_one(torch.tensor([[0.0, 0.0], [0.0, 0.1]]), 0.5).tolist() == [BACKGROUND, 1]
    assert match_one_to_one(torch.tensor([[0.3], [0.2]]), 0.5).tolist() == [0], "fewer boxes than objects"
    assert match_one_to_one(torch.zeros(0, 2), 0.5).tolist() == [BACKGROUND] * 2


def test_matches_are_torchvisions_where_the_best_boxes_differ():
    objects = torch.tensor([[5.0, 5, 25, 30], [40, 10, 60, 50], [10, 60, 50, 90], [70, 70, 95, 75]])
    for seed in range(5):
        generator = torch.Generator().manual_seed(seed)
        low = torch.rand(200, 2, generator=generator) * 60
        boxes = torch.cat([low, low + 4 + torch.rand(200, 2, generator=generator) * 50], dim=1)
        ious = box_iou(objects, boxes)
        assert len(ious.argmax(dim=1).unique()) == 4
        assert torch.equal(match_one_to_one(ious, 0.5), SSDMatcher(0.5)(ious.clone()))


def test_background_in_an_ignored_region_is_neither():
    boxes = torch.tensor([[0.0, 0, 10, 10], [20, 0, 30, 10], [40, 0, 50, 10], [60, 0, 70, 10]])
    ignored = torch.tensor([[0.0, 0, 25, 10], [44.9, 0, 56, 10]])  # all of the first, half of two, 51 % of the third
    matches = assign_one_to_one(boxes, torch.tensor([[0.0, 0, 10, 9]]), ignored, 0.5)
    assert matches.tolist() == [0, NEITHER, NEITHER, BACKGROUND], "an object in the region still counts"
    ignored = torch.tensor([[45.1, 0, 56, 10]])
    assert assign_one_to_one(boxes, boxes[:1], ignored, 0.5).tolist() == [0] + [BACKGROUND] * 3
