"""Top-1 and top-5 accuracy of images, clips and videos.

The class of an item is among the k best where fewer than k classes come before it. Of equal scores the lower class
index comes first, so that a model that gives every class the same score is right for class 0 only (k = 1). With five
classes or fewer top-5 accuracy is 1.

Shapes: N items (clips), C classes, V videos.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence

import numpy as np

from contracts.errors import DataError
from lightning_modules.metrics.measurement import SOURCE, Measurement, ratio_of_sums

_TOP_K = (1, 5)


def measure_classification(
    scores: np.ndarray, labels: np.ndarray, *, groups: Sequence[Hashable] | None = None
) -> Measurement:
    """Fractions in 0..1: `top1` and `top5`, or with `groups` `clip_top1`, `clip_top5`, `video_top1`, `video_top5`;
    NaN without items.

    Args:
        scores: (N, C) finite, higher is better. A video's score is the mean of its clips' as they are given: whether
            logits or probabilities are averaged is the caller's choice.
        labels: (N,) integers 0..C-1.
        groups: the video of each clip. Videos are then drawn again with all their clips, in sorted order.

    Raises:
        DataError: shapes that do not fit, a score that is not finite, a label out of range, a video with two labels.
    """
    _check(scores, labels, groups)
    labels = labels.astype(np.int64)
    ranks = label_ranks(scores, labels)
    if groups is None:
        column, num_clusters = np.arange(len(labels)), len(labels)
        hits = {f"top{k}": (ranks < k, column) for k in _TOP_K}
    else:
        videos = {video: i for i, video in enumerate(sorted(set(groups), key=str))}
        column, num_clusters = np.array([videos[video] for video in groups], np.int64), len(videos)
        video_ranks = _video_ranks(scores, labels, column, list(videos))
        hits = {f"clip_top{k}": (ranks < k, column) for k in _TOP_K}
        hits |= {f"video_top{k}": (video_ranks < k, np.arange(num_clusters)) for k in _TOP_K}

    def resample(weights: np.ndarray) -> dict[str, np.ndarray]:
        return {
            name: ratio_of_sums(
                weights,
                np.bincount(columns, right, minlength=num_clusters),
                np.bincount(columns, minlength=num_clusters),
            )
            for name, (right, columns) in hits.items()
        }

    return Measurement(
        values={name: float(right.mean()) if len(right) else math.nan for name, (right, _) in hits.items()},
        variant="of equal scores the lower class first" + ("" if groups is None else ", videos by their mean score"),
        source=SOURCE,
        num_items=len(labels),
        unit="images" if groups is None else "clips",
        num_clusters=num_clusters,
        resample=resample,
    )


def label_ranks(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """How many classes come before the true one: (N, C), (N,) -> (N,) int64."""
    own = np.take_along_axis(scores, labels[:, None], axis=1)
    earlier = np.arange(scores.shape[1]) < labels[:, None]
    return ((scores > own) | ((scores == own) & earlier)).sum(axis=1)


def _video_ranks(scores: np.ndarray, labels: np.ndarray, column: np.ndarray, videos: list[Hashable]) -> np.ndarray:
    """(V,) ranks of the videos' labels by their clips' mean scores; `column` (N,) is the video of each clip."""
    video_labels = np.zeros(len(videos), np.int64)
    video_labels[column] = labels
    mixed = np.flatnonzero(video_labels[column] != labels)
    if mixed.size:
        raise DataError(
            "the clips of a video must have one label",
            value=sorted({int(label) for label in labels[column == column[mixed[0]]]}),
            where=f"video {videos[column[mixed[0]]]!r}",
        )
    sums = np.zeros((len(videos), scores.shape[1]))  # they rank the classes as the means do
    np.add.at(sums, column, scores)
    return label_ranks(sums, video_labels)


def _check(scores: np.ndarray, labels: np.ndarray, groups: Sequence[Hashable] | None) -> None:
    if scores.ndim != 2 or labels.shape != scores.shape[:1] or (groups is not None and len(groups) != len(scores)):
        shapes = scores.shape, labels.shape, *(() if groups is None else (len(groups),))
        raise DataError("scores, labels and groups do not fit together", value=shapes, allowed="(N, C), (N,) and N")
    broken = np.flatnonzero(~np.isfinite(scores).all(axis=1))
    if broken.size:  # NaN is never above the true class: the item would count as right
        raise DataError("scores that are not finite", value=broken.size, where=f"item {broken[0]}")
    outside = np.flatnonzero((labels < 0) | (labels >= scores.shape[1]))
    if outside.size or not np.issubdtype(labels.dtype, np.integer):
        where, value = (f"item {outside[0]}", labels[outside[0]].item()) if outside.size else ("", labels.dtype)
        raise DataError(
            "a label is not a class id", value=value, where=where, allowed=f"integers 0..{scores.shape[1] - 1}"
        )
