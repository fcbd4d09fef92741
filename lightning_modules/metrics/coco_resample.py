"""COCO's twelve numbers when images are drawn again, from one matching of the whole split.

Shapes: T = 10 IoU thresholds, K categories, B resamples, I images; D and E as in `coco_matches.py`.
Only which detection found an object is needed: in a resample, an image drawn w times has each of its detections and
objects w times. Precision is at its best where an object was just found, so only these places are looked at."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lightning_modules.metrics.coco_matches import MAX_DETECTIONS, CategoryMatches, SizeMatches

_RECALLS = np.linspace(0.0, 1.0, 101)
_SIZES = ("", "s", "m", "l")  # in the order of `CategoryMatches.sizes`
_MIN_ROWS = 8  # resamples at a time,
_CELLS = 400_000  # or more, so that (D, B) numbers stay in the processor's cache


def resampled_stats(matches: Sequence[CategoryMatches], weights: np.ndarray) -> dict[str, np.ndarray]:
    """(B, I) counts -> (B,) of each of the twelve numbers; NaN where a resample has no object of that size."""
    most = max((len(category.images) for category in matches), default=0)
    rows = max(_MIN_ROWS, _CELLS // max(1, most))
    parts = [_stats(matches, weights[i : i + rows].astype(np.float64)) for i in range(0, len(weights), rows)]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _stats(matches: Sequence[CategoryMatches], weights: np.ndarray) -> dict[str, np.ndarray]:
    """As `resampled_stats`, of resamples that fit into memory together."""
    by_image = np.ascontiguousarray(weights.T)  # sums run along rows that lie together
    num_objects: list[list[np.ndarray]] = [[] for _ in _SIZES]  # of each size, K x (B,)
    aps: list[list[np.ndarray]] = [[] for _ in _SIZES]  # K x (T, B)
    for category in matches:
        drawn = by_image[category.images]  # (D, B)
        for i, size in enumerate(category.sizes):
            num_objects[i].append(weights @ size.objects)
            aps[i].append(_precisions(size, drawn, num_objects[i][-1]))
    out: dict[str, np.ndarray] = {}
    for i, size_name in enumerate(_SIZES):
        names = {f"AP{size_name}": slice(None)}
        if not size_name:
            names |= {"AP50": slice(0, 1), "AP75": slice(5, 6)}
        for name, thresholds in names.items():
            out[name] = _class_mean([ap[thresholds].mean(axis=0) for ap in aps[i]], num_objects[i])
        for limit in (100,) if size_name else MAX_DETECTIONS:
            recalls = [_recalls(c, i, weights, n, limit) for c, n in zip(matches, num_objects[i], strict=True)]
            out[f"AR{size_name or limit}"] = _class_mean(recalls, num_objects[i])
    return out


def _class_mean(values: list[np.ndarray], num_objects: list[np.ndarray]) -> np.ndarray:
    """K x (B,) -> (B,): the mean over the categories that have objects in the resample."""
    present = np.array(num_objects) > 0
    with np.errstate(invalid="ignore"):
        return np.where(present, np.array(values), 0.0).sum(axis=0) / present.sum(axis=0)


def _recalls(
    category: CategoryMatches, size: int, weights: np.ndarray, num_objects: np.ndarray, limit: int
) -> np.ndarray:
    """Share of objects found by the best `limit` detections of an image, mean over thresholds: (B,)."""
    special, found = category.sizes[size].special, category.sizes[size].found
    share = (found & (category.ranks[special] < limit)).mean(axis=0)
    per_image = np.bincount(category.images[special], share, minlength=weights.shape[1])
    return (weights @ per_image) / np.maximum(num_objects, 1)


def _precisions(size: SizeMatches, drawn: np.ndarray, num_objects: np.ndarray) -> np.ndarray:
    """Mean precision over the 101 recalls, of every threshold: (T, B). All sums are of whole numbers, so exact.

    Running sums lie along the last axis and are of integers, which numpy adds up four times as fast as float64.
    """
    out = np.zeros((len(size.found), drawn.shape[1]))
    if not size.found.any():
        return out
    special = np.ascontiguousarray(drawn[size.special].T, np.int64)  # (B, E)
    plain = _sums_up_to(size.special, size.inside, drawn)  # of detections of the size, matched or not: (B, E)
    inside = size.inside[size.special]
    reached, start = _reached(num_objects, int(special.sum(axis=1).max()))
    for t, (found, counted) in enumerate(zip(size.found, size.counted, strict=True)):
        hits = np.flatnonzero(found)
        if not len(hits):
            continue
        total = plain.take(hits, axis=1)
        other = np.flatnonzero(counted != inside)
        if len(other):
            more = np.zeros((len(special), len(other) + 1), np.int64)
            np.cumsum(special[:, other] * np.where(counted[other], 1, -1), axis=1, out=more[:, 1:])
            total += more[:, np.searchsorted(other, hits, side="right")]
        right = np.cumsum(special.take(hits, axis=1), axis=1)
        precision = right / (total + np.spacing(1))
        np.maximum.accumulate(precision[:, ::-1], axis=1, out=precision[:, ::-1])
        steps = reached.take(right + start)
        steps[:, 1:] -= steps[:, :-1].copy()
        out[t] = np.einsum("bp,bp->b", precision, steps) / len(_RECALLS)
    return out


def _sums_up_to(places: np.ndarray, chosen: np.ndarray, drawn: np.ndarray) -> np.ndarray:
    """For each place (E,) ascending, the sum of the chosen (D,) rows of `drawn` (D, B) up to and with it: (B, E)."""
    rows = np.flatnonzero(chosen[: places[-1] + 1])
    ends = np.searchsorted(rows, places, side="right")  # how many of them
    starts = np.concatenate([[0], ends[:-1]])
    some = np.flatnonzero(ends > starts)
    sums = np.zeros((len(places), drawn.shape[1]))
    if len(some):
        sums[some] = np.add.reduceat(drawn if len(rows) == len(drawn) else drawn[rows], starts[some], axis=0)
    return np.cumsum(np.ascontiguousarray(sums.T, np.int64), axis=1)


def _reached(num_objects: np.ndarray, most: int) -> tuple[np.ndarray, np.ndarray]:
    """How many of the 101 recalls are reached where 0, 1, .., `most` of a resample's objects are found.

    Returns:
        The numbers (float64) of all resamples one after another, and where each resample's start: (B, 1).
    """
    recall = np.arange(most + 1) / np.maximum(num_objects, 1)[:, None]
    table = np.searchsorted(_RECALLS, recall.ravel(), side="right").astype(np.float64)
    return table, (most + 1) * np.arange(len(num_objects))[:, None]
