"""Losses of dense detectors: the papers' figures, hand-made cases, torchvision's."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F
from torchvision.ops import sigmoid_focal_loss

from lightning_modules.blocks.dense_losses import focal_loss, focal_losses, hard_negatives, per_positive
from lightning_modules.ops.matching import BACKGROUND, NEITHER


def at(probability: float, wanted: bool, **settings: float) -> float:
    logit = torch.tensor([math.log(probability / (1 - probability))], dtype=torch.float64)
    return float(focal_loss(logit, torch.tensor([wanted]), **{"alpha": -1, "gamma": 2.0, **settings}))


def test_the_papers_figures():
    """1708.02002, section 3.2: 100 times less at a probability of 0.9, 1,000 times at 0.968, 4 times at most below."""
    assert at(0.9, True, gamma=0) == pytest.approx(-math.log(0.9)) == pytest.approx(0.105361, abs=1e-6)
    assert at(0.9, True) == pytest.approx(0.00105361, rel=1e-5)
    assert at(0.968, True, gamma=0) / at(0.968, True) == pytest.approx(976.6, abs=0.1)
    assert at(0.5, True) == at(0.5, False) == pytest.approx(math.log(2) / 4)
    assert at(0.01, False, alpha=0.25) == pytest.approx(7.5377e-7, rel=1e-4)
    assert at(0.9, True, alpha=0.25) == pytest.approx(0.25 * at(0.9, True))


@pytest.mark.parametrize("gamma", [0.0, 1.0, 2.0])
@pytest.mark.parametrize("alpha", [-1, 0.0, 0.25, 1.0])
def test_focal_loss_is_torchvisions(alpha, gamma):
    logits = 4 * torch.randn(500, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    wanted = torch.arange(500) % 3 == 0
    expected = sigmoid_focal_loss(logits, wanted.double(), alpha, gamma)
    torch.testing.assert_close(focal_loss(logits, wanted, alpha, gamma), expected)
    if (alpha, gamma) == (-1, 0):
        torch.testing.assert_close(
            expected, F.binary_cross_entropy_with_logits(logits, wanted.double(), reduction="none")
        )


def test_gradients_of_sure_answers_are_finite_where_torchvisions_are_not():
    logits = torch.tensor([30.0, -30.0, -200.0, 200.0], requires_grad=True)
    wanted = torch.tensor([True, False, False, True])
    gradient = torch.autograd.grad(focal_loss(logits, wanted, 0.25, 0.5).sum(), logits)[0]
    theirs = torch.autograd.grad(sigmoid_focal_loss(logits, wanted.float(), 0.25, 0.5).sum(), logits)[0]
    assert gradient.isfinite().all() and not theirs.isfinite().all()


def test_class_c_is_column_c_minus_1_and_ignored_anchors_cost_nothing():
    logits = torch.full((1, 4, 3), -2.0)
    logits[0, 0, 2] = logits[0, 1, 0] = 5.0
    labels, matches = torch.tensor([[3, 0, 0, 1]]), torch.tensor([[0, BACKGROUND, NEITHER, 1]])
    right, wrong, ignored, missed = focal_losses(logits, labels, matches, -1, 0.0)[0].tolist()
    low, high = math.log1p(math.exp(-2)), math.log1p(math.exp(5))
    assert right == pytest.approx(2 * low + math.log1p(math.exp(-5)))
    assert wrong == pytest.approx(2 * low + high)
    assert ignored == 0 < missed == pytest.approx(2 * low + math.log1p(math.exp(2)))


def test_each_image_is_divided_by_its_own_positives():
    losses = torch.tensor([[1.0, 2.0, 3.0], [4.0, 4.0, 4.0], [5.0, 0.0, 0.0]])
    matches = torch.tensor([[0, 1, BACKGROUND], [0, 0, 1], [BACKGROUND, NEITHER, BACKGROUND]])
    assert float(per_positive(losses, matches)) == 6 / 2 + 12 / 3 + 5


def test_the_hardest_background_of_each_image():
    losses = torch.tensor([[9.0, 1, 3, 2, 5, 4], [9, 8, 7, 6, 5, 4], [1, 2, 0, 0, 3, 4]])
    matches = torch.full((3, 6), BACKGROUND)
    matches[0, 0], matches[0, 4] = 0, NEITHER
    matches[2, :2] = 0
    chosen = hard_negatives(losses, matches, 3)
    assert chosen[0].tolist() == [False, False, True, True, False, True], "three times one matched, no ignored box"
    assert not chosen[1].any(), "nothing matched"
    assert chosen[2].tolist() == [False, False, True, True, True, True], "six are wanted, four are there"
