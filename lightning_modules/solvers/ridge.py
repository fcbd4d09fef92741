"""Ridge regression of boxes (1311.2524, appendix C): in closed form, on targets that were centered and decorrelated.

Shapes: N examples of D features (N, D), K targets (N, K), float64 inside.
"""

from __future__ import annotations

import numpy as np
from scipy.linalg import cho_factor, cho_solve

WHITENING = 0.001  # added to the variances of the targets before they are scaled to 1


def whiten(targets: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Targets (N, K) -> mean (K,), T and its inverse (K, K): `(targets - mean) @ T` has a covariance of about 1.

    T = (S + .001 I)^-1/2, S the covariance (divided by N); symmetric, so nothing is turned.
    """
    mean = targets.mean(axis=0)
    centered = targets - mean
    variances, directions = np.linalg.eigh(centered.T @ centered / len(targets))
    scales = np.sqrt(np.maximum(variances, 0) + WHITENING)
    return mean, directions / scales @ directions.T, directions * scales @ directions.T


def ridge(x: np.ndarray, y: np.ndarray, penalty: float) -> np.ndarray:
    """The B (D, K) of the least |x B - y|^2 + penalty |B|^2, by Cholesky: (x'x + penalty I) B = x'y.

    Args:
        penalty: more than 0; of the sum over examples, not of their mean.
    """
    x = x.astype(np.float64, copy=False)
    gram = x.T @ x
    gram[np.diag_indices_from(gram)] += penalty
    solution: np.ndarray = cho_solve(cho_factor(gram, lower=True, overwrite_a=True), x.T @ y)
    return solution


def fit_regression(x: np.ndarray, targets: np.ndarray, penalty: float) -> tuple[np.ndarray, np.ndarray]:
    """Weight (D, K) and bias (K,) that say targets of features: `x @ weight + bias`.

    As in the authors' code the bias is the weight of one feature more that is 1, and is penalised as the others are;
    what they regress are whitened targets. Without examples, zeros: every box stays as it is.
    """
    if not len(x):
        return np.zeros((x.shape[1], targets.shape[1])), np.zeros(targets.shape[1])
    mean, to_white, from_white = whiten(targets.astype(np.float64))
    with_one = np.concatenate([x.astype(np.float64), np.ones((len(x), 1))], axis=1)
    found = ridge(with_one, (targets - mean) @ to_white, penalty) @ from_white
    return found[:-1], found[-1] + mean
