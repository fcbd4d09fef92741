"""Which regions are what to the SVMs and the box regressions, and what is fitted to them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lightning_modules.blocks.region_fitting import RegionFeatures, fit_boxes, fit_svms, negatives, regressed
from lightning_modules.ops.box_coding import decode_boxes

BOX = [10.0, 10, 30, 30]


def shifted(share: float) -> list[float]:
    """A box whose IoU with BOX is `share`: moved to the right by x of 20 px, (20 - x) / (20 + x)."""
    x = 20 * (1 - share) / (1 + share)
    return [10 + x, 10, 30 + x, 30]


def target(boxes=(BOX,), labels=(2,), ignored=()) -> dict[str, torch.Tensor]:
    return {
        "boxes": torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        "labels": torch.tensor(labels, dtype=torch.int64),
        "ignored": torch.tensor(ignored, dtype=torch.float32).reshape(-1, 4),
    }


def test_negatives_of_a_class_lie_below_three_tenths_of_its_own_objects():
    boxes = torch.tensor([BOX, shifted(0.31), shifted(0.29), [40, 40, 60, 60]])
    found = negatives(boxes, target(), 3)
    assert found[:, 1].tolist() == [False, False, True, True]
    assert found[:, 0].all() and found[:, 2].all(), "to other classes an object is a negative"


def test_one_of_several_objects_is_enough_to_be_none():
    found = negatives(torch.tensor([BOX]), target([[40.0, 40, 60, 60], BOX], [1, 1]), 1)
    assert not found.any()


def test_what_is_ignored_is_no_negative():
    boxes = torch.tensor([[40.0, 40, 60, 60], [40, 49, 60, 69], [40, 51, 60, 71]])
    found = negatives(boxes, target(ignored=[[40.0, 40, 60, 60]]), 2)
    assert found.tolist() == [[False, False], [False, False], [True, True]]


def test_boxes_are_regressed_from_what_overlaps_by_more_than_six_tenths():
    other = [100.0, 10, 120, 30]
    regions = torch.tensor([shifted(0.59), shifted(0.61), [101, 10, 121, 30], BOX])
    chosen, deltas = regressed(regions, torch.tensor([BOX, other]))
    assert chosen.tolist() == [1, 2, 3]
    torch.testing.assert_close(decode_boxes(deltas, regions[chosen])[:, 0], torch.tensor([BOX, other, BOX]))
    torch.testing.assert_close(deltas[1], torch.tensor([-0.05, 0, 0, 0]))
    assert regressed(torch.zeros(0, 4), torch.tensor([BOX]))[0].shape == (0,)


def filled(images) -> RegionFeatures:
    """Of each image: regions, target, means, maps."""
    found = RegionFeatures(2, 3, 4)
    for regions, one, means, maps in images:
        found.add(torch.tensor(regions).reshape(-1, 4), one, torch.tensor(means), torch.tensor(maps))
    return found


FAR, CLOSE = [60.0, 60, 80, 80], shifted(0.5)


def toy(hard=(0.5, 5.0, 0.0), num_hard=1):
    """Class 1's objects look like x, class 2's like y, background like z; a region that is neither positive nor
    negative looks like y in the wrong; in the third image background looks like y."""
    images = []
    for label, look in ((1, [6.0, 0, 0]), (2, [0.0, 6, 0])) * 10:
        means = [[0.0, 0, 6], [0.0, 0, -6], look]
        images.append(([FAR, CLOSE], target(labels=[label]), means, [[1.0, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0]]))
    planted = [FAR] * num_hard, target([], []), [list(hard)] * num_hard, [[0.0] * 4] * num_hard
    return [*images, planted]


def test_svms_tell_the_toy_classes_apart_whatever_the_scale():
    looks = np.array([[6.0, 0, 0], [0, 6, 0], [0, 0, 6]])
    with filled(toy()) as found:
        weight, bias = fit_svms(found, 1e-2)
    scores = looks @ weight.T + bias
    assert (np.sign(scores) == [[1, -1], [-1, 1], [-1, -1]]).all()
    larger = [(r, t, (10 * np.array(m)).tolist(), x) for r, t, m, x in toy()]
    with filled(larger) as found:
        again, again_bias = fit_svms(found, 1e-2)
    np.testing.assert_allclose(again, weight / 10, rtol=0.01, atol=1e-4)
    np.testing.assert_allclose(again_bias, bias, rtol=0.01, atol=1e-3)


def test_positives_are_true_boxes_alone_and_what_lies_between_is_not_used():
    """Regions of IoU 0.5 are negatives of the other class only: were they class 2's, too, they would tell more."""
    with filled(toy()) as found:
        weight, _ = fit_svms(found, 1e-2)
        changed = toy()
        for _, one, means, _ in changed[:-1]:
            means[1] = [0.0, 0, 600 if one["labels"].tolist() == [2] else -6]
    with filled([(r, t, m, x) for r, t, m, x in changed]) as found:
        assert found.negative[1][:, 1].tolist() == [True, False, False]
        assert found.labels[1].tolist() == [0, 0, 2]
    assert weight[1, 1] > 0


def test_a_planted_hard_negative_is_found_in_the_pass():
    hard = np.array([0.5, 5.0, 0.0])
    with filled(toy()[:-1]) as found:
        weight, bias = fit_svms(found, 1.0)
    assert (weight @ hard + bias)[1] > 0.5, "nothing told it"
    with filled(toy(num_hard=1)) as found:
        weight, bias = fit_svms(found, 1.0)
    assert (weight @ hard + bias)[1] < 0 < (weight @ [0, 6, 0] + bias)[1]


def test_a_class_that_the_split_lacks_is_never_found():
    images = [one for one in toy()[:-1] if one[1]["labels"].tolist() == [1]]
    with filled(images) as found:
        weight, bias = fit_svms(found, 1e-2)
        moved, shift = fit_boxes(found, 1000.0)
    assert not weight[1].any() and bias[1] < -20
    assert not moved[4:].any() and not shift[4:].any()


def test_box_regressions_find_what_the_features_say():
    """The map says by how much a region lies beside its object: class 2's the opposite of class 1's."""
    rng = np.random.default_rng(0)
    images = []
    for index in range(60):
        label, beside = index % 2 + 1, rng.uniform(-3, 3, (8, 1))
        regions = (np.array(BOX) + beside * np.array([1, 0, 1, 0])).tolist()
        sign = 1 if label == 1 else -1
        maps = np.concatenate([sign * beside, np.zeros((8, 3))], axis=1)
        images.append((regions, target(labels=[label]), [[0.0] * 3] * 9, [*maps.tolist(), [0.0] * 4]))
    with filled(images) as found:
        assert [len(cache.rows()) for cache in found.maps] == [240, 240]
        weight, bias = fit_boxes(found, 1.0)
    regions, maps = torch.tensor([[12.0, 10, 32, 30]]), torch.tensor([[2.0, 0, 0, 0]])
    boxes = decode_boxes(maps @ torch.from_numpy(weight).T + torch.from_numpy(bias), regions)
    torch.testing.assert_close(boxes[0], torch.tensor([BOX, [14.0, 10, 34, 30]]), atol=0.05, rtol=0)


def test_what_is_kept_is_counted():
    with filled(toy()) as found:
        assert found.num_images == 21
        assert found.num_bytes == 2 * (3 * (20 * 3 + 1)), "no region of an IoU above 0.6: no maps"


@pytest.mark.parametrize("kept", [(3, 0), (0, 4)])
def test_only_what_is_asked_for_is_kept(kept):
    found = RegionFeatures(2, *kept)
    regions = torch.tensor([BOX, FAR])
    with found:
        found.add(regions, target(), torch.ones(3, 3), torch.ones(3, 4))
        assert found.num_bytes == (2 * 3 * 3 if kept[0] else 2 * 4)
