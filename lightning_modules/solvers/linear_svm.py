"""Linear SVMs as R-CNN trains them (1311.2524, appendix B): one against the rest, with a pass for hard negatives.

Shapes: N examples of D features, float arrays (N, D); a weight (D,) and a bias, whose score is `x @ weight + bias`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

BIAS_FEATURE = 10.0  # liblinear's `-B 10`: the bias is this times a weight, which costs as the others do
POSITIVE_WEIGHT = 2.0  # of a positive's loss, `-w1 2`
_NEVER = -50.0  # a score
MOST_ITERATIONS = 10_000  # of liblinear's coordinate descent; its usual 1,000 may stop before it is there


@dataclass(frozen=True, eq=False)
class LinearSVM:
    weight: np.ndarray
    bias: float

    def scores(self, x: np.ndarray) -> np.ndarray:
        """(N, D) -> (N,): distances from the decision in units of the margin, positive for positives."""
        return x @ self.weight + self.bias


def objective(svm: LinearSVM, positives: np.ndarray, negatives: np.ndarray, cost: float) -> float:
    """What `fit_svm` makes least: .5 |w|^2 + .5 (b / 10)^2 + cost * (2 * hinge of positives + hinge of negatives)."""
    loss_positive = np.maximum(0, 1 - svm.scores(positives)).sum()
    loss_negative = np.maximum(0, 1 + svm.scores(negatives)).sum()
    norm = float(svm.weight @ svm.weight) + (svm.bias / BIAS_FEATURE) ** 2
    return float(0.5 * norm + cost * (POSITIVE_WEIGHT * loss_positive + loss_negative))


def fit_svm(positives: np.ndarray, negatives: np.ndarray, cost: float) -> LinearSVM:
    """The SVM of the least `objective`, in float64. Neither side may be empty."""
    from sklearn.svm import LinearSVC  # a second to import, and only what is fitted needs it

    assert len(positives) and len(negatives)
    solver = LinearSVC(
        C=cost,
        loss="hinge",
        dual=True,
        intercept_scaling=BIAS_FEATURE,
        class_weight={1: POSITIVE_WEIGHT},
        max_iter=MOST_ITERATIONS,
        random_state=0,
    )
    x = np.concatenate([positives, negatives]).astype(np.float64)
    solver.fit(x, np.repeat([1, 0], [len(positives), len(negatives)]))
    return LinearSVM(solver.coef_[0], float(solver.intercept_[0]))


class HardNegatives:
    """One class's SVM over a single pass through the images, `add` for each, then `finish`.

    Of the first image all negatives are taken; of the others those that score above `TAKEN`, on the wrong side of the
    margin; so far as is known then: the SVM is fitted again after more than `REFIT_AFTER` new ones and at the end, and
    negatives that score below `EVICTED` then are forgotten. These are the numbers of the authors' code.

    Args:
        positives: (N, D) of the whole split; none: the class is never found.
        cost: the SVM's C.

    Attributes:
        negatives: (K, D) that are kept at the moment.
        num_fits: how often the SVM was fitted.
    """

    TAKEN, EVICTED, REFIT_AFTER = -1.0001, -1.2, 2000

    def __init__(self, positives: np.ndarray, cost: float):
        self.positives, self.cost = positives, cost
        self.negatives = positives[:0]
        self.num_fits = 0
        # Before the first fit every score is 0, so all negatives are hard.
        self.svm = LinearSVM(np.zeros(positives.shape[1]), 0.0)
        self._is_first, self._num_new = True, 0

    def add(self, negatives: np.ndarray) -> None:
        """The negatives of one image (M, D), all of them, perhaps none."""
        if not self._is_first:
            negatives = negatives[self.svm.scores(negatives) > self.TAKEN]
        self.negatives = np.concatenate([self.negatives, negatives])
        self._num_new += len(negatives)
        if self._is_first or self._num_new > self.REFIT_AFTER:
            self._fit()
        self._is_first = False

    def finish(self) -> LinearSVM:
        """The SVM of all that was added. Without a positive it scores all alike, far on the wrong side; without a
        negative all are positives."""
        if not len(self.positives):
            return LinearSVM(np.zeros(self.positives.shape[1]), _NEVER)
        if not len(self.negatives):
            return LinearSVM(np.zeros(self.positives.shape[1]), 1.0)
        self._fit()
        return self.svm

    def _fit(self) -> None:
        if not len(self.positives) or not len(self.negatives):
            return
        self.svm = fit_svm(self.positives, self.negatives, self.cost)
        self.num_fits += 1
        self._num_new = 0
        self.negatives = self.negatives[self.svm.scores(self.negatives) >= self.EVICTED]
