"""The objective at the solution and beside it, and the rules of the pass for hard negatives."""

from __future__ import annotations

import numpy as np
import pytest

from lightning_modules.solvers.linear_svm import HardNegatives, LinearSVM, fit_svm, objective

COST = 0.02


def blobs(seed: int = 0, count: int = 60) -> tuple[np.ndarray, np.ndarray]:
    """Two clouds that overlap: some examples are on the wrong side."""
    rng = np.random.default_rng(seed)
    return rng.normal(1.0, 1.5, (count, 5)), rng.normal(-1.0, 1.5, (3 * count, 5))


def test_the_objective_by_hand():
    """Scores 2 and 0: the positive at 0 costs 1, twice; the negative at -0.5 costs 0.5."""
    svm = LinearSVM(np.array([2.0, 0.0]), 1.0)
    positives, negatives = np.array([[0.5, 9.0], [-0.5, 9.0]]), np.array([[-0.75, 9.0], [-3.0, 9.0]])
    np.testing.assert_allclose(svm.scores(positives), [2, 0])
    assert objective(svm, positives, negatives, 0.1) == pytest.approx(0.5 * 4 + 0.5 * 0.01 + 0.1 * (2 * 1 + 0.5))


def test_nothing_beside_the_solution_is_better():
    positives, negatives = blobs()
    svm = fit_svm(positives, negatives, COST)
    best = objective(svm, positives, negatives, COST)
    rng = np.random.default_rng(1)
    for step in (1e-3, 1e-2, 0.1):
        for _ in range(50):
            change, shift = rng.normal(0, step, 5), rng.normal(0, step)
            beside = LinearSVM(svm.weight + change, svm.bias + shift)
            assert objective(beside, positives, negatives, COST) > best - 1e-6 * best
    # Each part of the objective is felt: a solution of another problem costs clearly more.
    for other in (fit_svm(positives, negatives, 5 * COST), fit_svm(negatives, positives, COST)):
        assert objective(other, positives, negatives, COST) > best * 1.001
    once = np.concatenate([positives, positives])
    assert objective(fit_svm(once, negatives, COST), positives, negatives, COST) > best * 1.001, "positives count twice"


def test_the_bias_costs_a_hundredth_of_a_weight():
    """All at one place: only the bias can tell, so its best value follows by hand. With n positives that count twice
    and m negatives, m < 2n, C (2n - m) is the slope towards larger biases, b / 100 the cost's: they meet, or b = 1."""
    x = np.zeros((10, 3))
    svm = fit_svm(x, x[:5], 1e-4)
    assert svm.bias == pytest.approx(100 * 1e-4 * (20 - 5), rel=1e-3) and not svm.weight.any()
    assert fit_svm(x, x[:5], 1.0).bias == pytest.approx(1, rel=1e-3)


def miner(positives=None, cost=1.0) -> HardNegatives:
    return HardNegatives(np.array([[1.0, 0]] * 50) if positives is None else positives, cost)


EASY, HARD = np.array([[-9.0, 0.0]]), np.array([[0.8, 0.0]])


def test_of_the_first_image_all_are_taken_and_the_easy_ones_forgotten_then():
    mining = miner()
    mining.add(np.concatenate([EASY] * 3 + [np.array([[-1.0, 0]])] * 50))
    assert mining.num_fits == 1
    np.testing.assert_allclose(mining.svm.scores(np.array([[1.0, 0], [-1, 0]])), [1, -1], atol=0.01)
    assert (mining.negatives == np.array([-1.0, 0])).all() and len(mining.negatives) == 50


def test_a_hard_negative_is_found_later_and_an_easy_one_is_not():
    mining = miner()
    mining.add(np.array([[-1.0, 0]] * 50))
    mining.add(EASY)
    assert len(mining.negatives) == 50
    before = mining.svm.scores(HARD)
    mining.add(np.repeat(HARD, 40, axis=0))
    assert len(mining.negatives) == 90 and mining.num_fits == 1, "too few for a new fit"
    after = mining.finish()
    assert mining.num_fits == 2
    assert after.scores(HARD)[0] < 0 < before[0] and after.scores(np.array([[1.0, 0]]))[0] > 0


def test_what_lies_between_the_two_limits_is_kept_but_not_taken():
    mining = miner()
    mining.add(np.array([[-1.0, 0]] * 50 + [[-1.1, 0]]))
    assert len(mining.negatives) == 51, "-1.1 is not below -1.2"
    mining.add(np.array([[-1.1, 0]]))
    assert len(mining.negatives) == 51, "-1.1 is not above -1.0001"


def test_the_svm_is_fitted_again_after_more_than_two_thousand(monkeypatch):
    mining = miner(cost=1e-3)
    mining.add(np.array([[-1.0, 0]] * 50))
    mining.add(np.repeat(HARD, 2000, axis=0))
    assert mining.num_fits == 1
    mining.add(HARD)
    assert mining.num_fits == 2
    mining.add(HARD)
    assert mining.num_fits == 2, "counted anew"


def test_a_first_image_without_negatives_leaves_all_of_the_next():
    mining = miner()
    mining.add(np.zeros((0, 2)))
    assert mining.num_fits == 0
    mining.add(EASY)
    assert len(mining.negatives) == 1
    assert mining.finish().scores(EASY)[0] < 0


def test_classes_that_cannot_be_told():
    never = miner(np.zeros((0, 2)))
    never.add(EASY)
    assert (never.finish().scores(np.array([[1.0, 0], [99, 99]])) < -20).all()
    always = miner()
    always.add(EASY[:0])
    assert always.finish().scores(EASY)[0] == 1
