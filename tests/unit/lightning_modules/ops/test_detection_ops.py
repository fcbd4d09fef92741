"""Matching, coding and sampling of boxes by hand, and against what torchvision's detectors do inside."""

from __future__ import annotations

import math

import pytest
import torch
from torchvision.models.detection._utils import BalancedPositiveNegativeSampler, BoxCoder, Matcher
from torchvision.ops import box_iou

from lightning_modules.ops.box_coding import MAX_LOG_RATIO, decode_boxes, encode_boxes
from lightning_modules.ops.matching import BACKGROUND, NEITHER, MatchRule, assign, match
from lightning_modules.ops.sampling import sample_balanced

RPN = MatchRule(high=0.7, low=0.3, keep_best=True)


def boxes(count: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    low = torch.rand(count, 2, generator=generator) * 60
    return torch.cat([low, low + 4 + torch.rand(count, 2, generator=generator) * 50], dim=1)


def test_thresholds_are_reached_not_passed():
    ious = torch.tensor([[0.29, 0.3, 0.69, 0.7, 0.9], [0.1, 0.1, 0.1, 0.1, 0.95]])
    assert match(ious, MatchRule(high=0.7, low=0.3)).tolist() == [BACKGROUND, NEITHER, NEITHER, 0, 1]


def test_an_object_that_nothing_reaches_takes_its_best_boxes_with_ties():
    ious = torch.tensor([[0.2, 0.4, 0.4, 0.0], [0.1, 0.5, 0.0, 0.6]])
    assert match(ious, MatchRule(high=0.7, low=0.3)).tolist() == [BACKGROUND, NEITHER, NEITHER, NEITHER]
    # Box 1 is one of object 0's best and overlaps object 1 more: it becomes object 1's, as torchvision has it.
    assert match(ious, RPN).tolist() == [BACKGROUND, 1, 0, 1]


def test_of_equal_ious_the_first_object_counts():
    assert match(torch.tensor([[0.8], [0.8]]), RPN).tolist() == [0]


def test_an_object_that_no_box_touches_takes_none():
    """torchvision makes every box that does not touch it a positive."""
    ious = torch.tensor([[0.0, 0.0, 0.0], [0.8, 0.0, 0.1]])
    assert match(ious, RPN).tolist() == [1, BACKGROUND, BACKGROUND]
    assert Matcher(0.7, 0.3, True)(ious).tolist() == [1, 0, 1]


def test_without_objects_all_is_background():
    assert match(torch.zeros(0, 3), RPN).tolist() == [BACKGROUND] * 3
    assert assign(boxes(3, 0), torch.zeros(0, 4), torch.zeros(0, 4), RPN).tolist() == [BACKGROUND] * 3


@pytest.mark.parametrize("rule", [RPN, MatchRule(high=0.5, low=0.5), MatchRule(high=0.6, low=0.1)])
def test_matches_are_torchvisions(rule):
    for seed in range(5):
        ious = box_iou(boxes(6, seed), boxes(300, seed + 50))
        theirs = Matcher(rule.high, rule.low, rule.keep_best)(ious.clone())
        assert torch.equal(match(ious, rule), theirs)
        assert rule is not RPN or (theirs >= 0).any()


def test_ignored_regions_make_background_neither_and_leave_matches():
    objects = torch.tensor([[0.0, 0, 10, 10]])
    candidates = torch.tensor([[0.0, 0, 10, 10], [20, 0, 30, 10], [20, 0, 30, 20.1], [40, 0, 50, 10]])
    region = torch.tensor([[0.0, 0, 30, 10], [40, 0, 50, 4.9]])
    rule = MatchRule(high=0.5, low=0.5)
    assert assign(candidates, objects, region, rule).tolist() == [0, NEITHER, BACKGROUND, BACKGROUND]
    half = MatchRule(high=0.5, low=0.5, ignored_cover=0.49)
    assert assign(candidates, objects, region, half).tolist() == [0, NEITHER, NEITHER, NEITHER]


def test_coding_by_hand():
    anchor, box = torch.tensor([[0.0, 0, 10, 20]]), torch.tensor([[5.0, 10, 25, 20]])
    expected = torch.tensor([[10.0, 2.5, 5 * math.log(2), 5 * math.log(0.5)]])
    torch.testing.assert_close(encode_boxes(box, anchor, (10.0, 10.0, 5.0, 5.0)), expected)
    torch.testing.assert_close(decode_boxes(expected, anchor, (10.0, 10.0, 5.0, 5.0))[:, 0], box)


@pytest.mark.parametrize("weights", [(1.0, 1.0, 1.0, 1.0), (10.0, 10.0, 5.0, 5.0), (1.0, 2.0, 3.0, 4.0)])
def test_coding_is_torchvisions_to_the_bit(weights):
    anchors, objects, coder = boxes(50, 1), boxes(50, 2), BoxCoder(weights)
    assert torch.equal(encode_boxes(objects, anchors, weights), coder.encode_single(objects, anchors))
    deltas = torch.randn(50, 12, generator=torch.Generator().manual_seed(3)) * 3
    assert (deltas[:, 2::4] / weights[2] > MAX_LOG_RATIO).any() or weights[2] > 1, "the limit is reached"
    theirs = coder.decode_single(deltas, anchors).unflatten(1, (-1, 4))
    assert torch.equal(decode_boxes(deltas, anchors, weights), theirs)


def test_a_decoded_box_grows_no_more_than_the_limit():
    grown = decode_boxes(torch.tensor([[0.0, 0, 99, 99]]), torch.tensor([[0.0, 0, 16, 32]]))[0, 0]
    torch.testing.assert_close(grown[2:] - grown[:2], torch.tensor([1000.0, 2000.0]))


@pytest.mark.parametrize(("positives", "negatives"), [(40, 200), (3, 200), (40, 5), (0, 7), (0, 0)])
def test_samples_are_torchvisions_draw_for_draw(positives, negatives):
    matches = torch.tensor([0, 2] * (positives // 2) + [1] * (positives % 2) + [BACKGROUND] * negatives + [NEITHER] * 9)
    matches = matches[torch.randperm(len(matches), generator=torch.Generator().manual_seed(0))]
    labels = torch.where(matches >= 0, 1, torch.where(matches == BACKGROUND, 0, -1))
    torch.manual_seed(4)
    theirs = BalancedPositiveNegativeSampler(32, 0.25)([labels])
    torch.manual_seed(4)
    ours = sample_balanced(matches, 32, 0.25)
    assert all(torch.equal(own, their[0].bool()) for own, their in zip(ours, theirs, strict=True))
    assert ours[0].sum() == min(positives, 8) and ours[1].sum() == min(negatives, 32 - min(positives, 8))


def test_a_seeded_sample_leaves_the_global_generator_alone():
    matches = torch.tensor([0] * 20 + [BACKGROUND] * 50)
    torch.manual_seed(1)
    expected = torch.rand(2)
    torch.manual_seed(1)
    first, again, other = (
        sample_balanced(matches, 16, 0.5, torch.Generator().manual_seed(seed))[1] for seed in (5, 5, 6)
    )
    assert torch.equal(torch.rand(2), expected)
    assert torch.equal(first, again) and not torch.equal(first, other)
