"""Whitening, and the closed form against numpy's least squares."""

from __future__ import annotations

import numpy as np
import pytest

from lightning_modules.solvers.ridge import fit_regression, ridge, whiten


def sample(count: int = 200, features: int = 6, targets: int = 4, seed: int = 0):
    rng = np.random.default_rng(seed)
    x = rng.normal(0, 2, (count, features))
    y = x @ rng.normal(0, 1, (features, targets)) + 3 + rng.normal(0, 0.1, (count, targets))
    return x, y


def test_ridge_is_least_squares_with_rows_of_the_root_of_the_penalty():
    x, y = sample()
    for penalty in (0.1, 1000.0):
        rows = np.concatenate([x, np.sqrt(penalty) * np.eye(6)]), np.concatenate([y, np.zeros((6, 4))])
        np.testing.assert_allclose(ridge(x, y, penalty), np.linalg.lstsq(*rows, rcond=None)[0], rtol=1e-8)
    assert np.abs(ridge(x, y, 1e9)).max() < 1e-4


def test_whitened_targets_have_unit_covariance_but_for_the_thousandth():
    _, y = sample()
    y[:, 0] *= 0.01  # a variance that the thousandth matters beside
    mean, to_white, from_white = whiten(y)
    white = (y - mean) @ to_white
    np.testing.assert_allclose(mean, y.mean(axis=0))
    np.testing.assert_allclose(to_white, to_white.T, atol=1e-9)
    np.testing.assert_allclose(to_white @ from_white, np.eye(4), atol=1e-9)
    np.testing.assert_allclose(
        from_white @ from_white, np.cov(y.T, bias=True) + 0.001 * np.eye(4), rtol=1e-6, atol=1e-9
    )
    variances = np.linalg.eigvalsh(np.cov(y.T, bias=True))
    expected = np.sort(variances / (variances + 0.001))
    np.testing.assert_allclose(np.linalg.eigvalsh(white.T @ white / len(y)), expected, rtol=1e-6)
    assert expected[0] < 0.99


def test_a_target_of_one_direction_by_hand():
    """Variance 4 becomes 4 / 4.001."""
    mean, to_white, _ = whiten(np.array([[1.0], [5.0]]))
    assert mean == 3 and to_white[0, 0] == pytest.approx(4.001**-0.5)


def test_a_regression_finds_what_made_the_targets():
    x, y = sample()
    weight, bias = fit_regression(x, y, 1e-3)
    np.testing.assert_allclose(x @ weight + bias, y, atol=0.5)
    assert np.abs(x @ weight + bias - y).mean() < 0.1


def test_a_large_penalty_leaves_the_mean():
    x, y = sample()
    weight, bias = fit_regression(x, y, 1e9)
    np.testing.assert_allclose(weight, 0, atol=1e-3)
    np.testing.assert_allclose(bias, y.mean(axis=0), rtol=1e-3)


def test_the_bias_is_penalised():
    """A feature that is 1 and a penalty of n halve what is left: with two such, the weight of each is n / (n + 2n)."""
    x = np.ones((10, 1))
    y = np.array([[1.0]] * 5 + [[3.0]] * 5)
    weight, bias = fit_regression(x, y, 10.0)
    assert weight[0, 0] == pytest.approx(0, abs=1e-12) and bias[0] == pytest.approx(2), "whitened targets have mean 0"
    x[:5] = 2
    for penalty in (1.0, 10.0):
        weight, bias = fit_regression(x, y, penalty)
        # Centered and scaled targets are -z and z; [w, b] = (X'X + penalty I)^-1 X'y in two unknowns, by hand.
        z, determinant = 1.001**-0.5, (25 + penalty) * (10 + penalty) - 15**2
        by_hand = (10 + penalty) * -5 * z / determinant, 15 * 5 * z / determinant
        assert (weight[0, 0], bias[0] - 2) == pytest.approx([value / z for value in by_hand])


def test_without_examples_nothing_moves():
    weight, bias = fit_regression(np.zeros((0, 3)), np.zeros((0, 4)), 1000.0)
    assert weight.shape == (3, 4) and bias.shape == (4,) and not weight.any() and not bias.any()
