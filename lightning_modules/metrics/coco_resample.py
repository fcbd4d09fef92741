"""COCO's twelve numbers when images are drawn again, from one matching of the whole split.

Shapes: T = 10 IoU thresholds, K categories, B resamples, I images; for one category and size D detections, best first.
Only which detection found an object is needed: in a resample, an image drawn w times has each of its detections and
objects w times. Precision is at its best where an object was just found, so only these places are looked at.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

_RECALLS = np.linspace(0.0, 1.0, 101)
_SIZES = ("", "s", "m", "l")  # in the order of COCO's area ranges
_MAX_DETECTIONS = (1, 10, 100)
_ROWS = 64  # resamples at a time: what they need stays in the processor's cache


@dataclass(frozen=True, kw_only=True)
class Matches:
    """`cells[size][k]` of category k: images (D,), ranks (D,) in their image, found (T, D), counted (T, D) and the
    images' objects (I,). A detection that is not counted lies in a crowd or has another size.
    """

    cells: list[list[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]]]

    @classmethod
    def of(cls, evaluator: Any, *, num_images: int) -> Matches:
        """From the `evalImgs` of an evaluator whose images are 1..I and whose `areaRng` is COCO's."""
        sizes = {tuple(bounds): i for i, bounds in enumerate(evaluator.params.areaRng)}
        categories = {category: k for k, category in enumerate(evaluator.params.catIds)}
        entries: list[list[list[dict[str, Any]]]] = [[[] for _ in categories] for _ in sizes]
        for entry in evaluator.evalImgs:
            if entry is not None:
                entries[sizes[tuple(entry["aRng"])]][categories[entry["category_id"]]].append(entry)
        return cls(cells=[[_cell(own, num_images) for own in of_size] for of_size in entries])


def _cell(
    entries: list[dict[str, Any]], num_images: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    objects = np.zeros(num_images, np.int64)
    images: list[int] = []
    ranks: list[int] = []
    scores: list[float] = []
    matched, ignored = [np.zeros((10, 0), bool)], [np.zeros((10, 0), bool)]
    for entry in sorted(entries, key=lambda entry: entry["image_id"]):
        image, count = entry["image_id"] - 1, len(entry["dtScores"])
        objects[image] = entry["gtIgnore"].count(False)
        images += [image] * count
        ranks += range(count)
        scores += entry["dtScores"]
        if count:
            matched.append(np.array(entry["dtMatched"], bool))
            ignored.append(np.array(entry["dtIgnore"], bool))
    order = np.argsort(-np.array(scores, np.float64), kind="stable")
    all_matched, counted = np.concatenate(matched, axis=1)[:, order], ~np.concatenate(ignored, axis=1)[:, order]
    return (
        np.array(images, np.int64)[order],
        np.array(ranks, np.int64)[order],
        all_matched & counted,
        counted,
        objects,
    )


def resampled_stats(matches: Matches, weights: np.ndarray) -> dict[str, np.ndarray]:
    """(B, I) counts -> (B,) of each of the twelve numbers; NaN where a resample has no object of that size."""
    parts = [_stats(matches, weights[i : i + _ROWS].astype(np.float64)) for i in range(0, len(weights), _ROWS)]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _stats(matches: Matches, weights: np.ndarray) -> dict[str, np.ndarray]:
    out: dict[str, np.ndarray] = {}
    for size, cells in zip(_SIZES, matches.cells, strict=True):
        num_objects = [weights @ cell[4] for cell in cells]  # K x (B,)
        aps = [_precisions(cell, weights, n) for cell, n in zip(cells, num_objects, strict=True)]  # K x (T, B)
        names = {f"AP{size}": slice(None)} if size else {"AP": slice(None), "AP50": slice(0, 1), "AP75": slice(5, 6)}
        for name, thresholds in names.items():
            out[name] = _class_mean([ap[thresholds].mean(axis=0) for ap in aps], num_objects)
        for limit in (100,) if size else _MAX_DETECTIONS:
            recalls = [_recalls(cell, weights, n, limit) for cell, n in zip(cells, num_objects, strict=True)]
            out[f"AR{size or limit}"] = _class_mean(recalls, num_objects)
    return out


def _class_mean(values: list[np.ndarray], num_objects: list[np.ndarray]) -> np.ndarray:
    """K x (B,) -> (B,): the mean over the categories that have objects in the resample."""
    present = np.array(num_objects) > 0
    with np.errstate(invalid="ignore"):
        return np.where(present, np.array(values), 0.0).sum(axis=0) / present.sum(axis=0)


def _recalls(cell: tuple[np.ndarray, ...], weights: np.ndarray, num_objects: np.ndarray, limit: int) -> np.ndarray:
    """Share of objects found by the best `limit` detections of an image, mean over thresholds: (B,)."""
    images, ranks, found, _, _ = cell
    per_image = np.bincount(images, (found & (ranks < limit)).mean(axis=0), minlength=weights.shape[1])
    return (weights @ per_image) / np.maximum(num_objects, 1)


def _precisions(cell: tuple[np.ndarray, ...], weights: np.ndarray, num_objects: np.ndarray) -> np.ndarray:
    """Mean precision over the 101 recalls, of every threshold: (T, B)."""
    images, _, found, counted, _ = cell
    drawn = np.ascontiguousarray(weights[:, images].T)  # (D, B): sums run along rows that lie together
    out = np.zeros((len(found), len(weights)))
    for t, (hits, counts) in enumerate(zip(found, counted, strict=True)):
        places = np.flatnonzero(hits)
        if not len(places):
            continue
        # Everything counted up to and with each place: sums of the stretches between them, added up.
        stretches = np.add.reduceat(drawn[: places[-1] + 1] * counts[: places[-1] + 1, None], np.r_[0, places[:-1] + 1])
        right, total = np.cumsum(drawn[places], axis=0), np.cumsum(stretches, axis=0)
        precision = np.maximum.accumulate((right / (total + np.spacing(1)))[::-1])[::-1]
        reached = np.searchsorted(_RECALLS, right / np.maximum(num_objects, 1), side="right")  # recalls <= this one
        out[t] = (precision * np.diff(reached, axis=0, prepend=0)).sum(axis=0) / len(_RECALLS)
    return out
