"""Which words were aligned with which, against people's links: alignment error rate.

Och and Ney (Computational Linguistics 29(1), 2003): with A the links found, S the sure ones of people and P the
possible ones, which include S, `AER = 1 - (|A & S| + |A & P|) / (|A| + |S|)`, sums over the corpus. Links are pairs of
places (source, target), counted from 0.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Hashable, Mapping, Sequence
from typing import Any

import numpy as np

from lightning_modules.metrics.item_metric import Id, Item, ItemMetric, array, by_groups
from lightning_modules.metrics.measurement import SOURCE, Measurement, ratio_of_sums

Link = tuple[int, int]


def measure_alignment(
    found: Sequence[Collection[Link]], sure: Sequence[Collection[Link]], possible: Sequence[Collection[Link]]
) -> Measurement:
    """`AER`, `alignment_precision` |A & P| / |A|, `alignment_recall` |A & S| / |S|, all in 0..1, and `AER_within_1`, in
    which a link is right also one source place beside a link of the same target word; NaN where there is nothing.

    Args:
        found, sure: links of each sentence pair. possible: those that are possible only; sure ones may be among them.
    """
    rows = [_count(set(a), set(s), set(p) | set(s)) for a, s, p in zip(found, sure, possible, strict=True)]
    num_found, num_sure, right, recalled, near, near_recalled = np.array(rows, np.int64).reshape(-1, 6).T

    def resample(weights: np.ndarray) -> dict[str, np.ndarray]:
        total = num_found + num_sure
        return {
            "AER": 1 - ratio_of_sums(weights, right + recalled, total),
            "AER_within_1": 1 - ratio_of_sums(weights, near + near_recalled, total),
            "alignment_precision": ratio_of_sums(weights, right, num_found),
            "alignment_recall": ratio_of_sums(weights, recalled, num_sure),
        }

    ones = np.ones((1, len(rows)))
    return Measurement(
        values={name: float(drawn[0]) if rows else math.nan for name, drawn in resample(ones).items()},
        variant="Och and Ney 2003, sums over the corpus; within_1: one source place beside counts as right",
        source=SOURCE,
        num_items=len(rows),
        unit="sentence pairs",
        resample=resample,
    )


def _count(found: set[Link], sure: set[Link], possible: set[Link]) -> tuple[int, ...]:
    """|A|, |S|, |A & P|, |S & A|, and the last two with a link counted one source place beside."""
    return (
        len(found), len(sure), len(found & possible), len(sure & found),
        sum(_is_near(link, possible) for link in found), sum(_is_near(link, found) for link in sure),
    )  # fmt: skip


def _is_near(link: Link, links: set[Link]) -> bool:
    source, target = link
    return any((source + step, target) in links for step in (-1, 0, 1))


class AlignmentScores(ItemMetric):
    """`measure_alignment` as `torchmetrics.Metric`.

    An item is a sentence pair. Prediction: `links` (K, 2), source and target places from 0, or nothing of a model that
    aligns nothing. Truth: `links` (K, 2), the sure ones, and `possible_links`, or nothing where nobody aligned them.
    Pairs that lack either are left out.
    """

    higher_is_better = False

    def keep(self, prediction: Item, truth: Item) -> tuple[Any, Any, Any] | None:
        if prediction.get("links") is None or truth.get("links") is None:
            return None
        possible = array(truth, "possible_links", "truth", (-1, 2)) if "possible_links" in truth else np.zeros((0, 2))
        links = [array(prediction, "links", "prediction", (-1, 2)), array(truth, "links", "truth", (-1, 2)), possible]
        found, sure, other = ([(int(i), int(j)) for i, j in part] for part in links)
        return found, sure, other

    def measure_kept(
        self, kept: Mapping[Id, tuple[Any, Any, Any] | None], groups: Mapping[Id, Hashable]
    ) -> list[Measurement]:
        rows = {key: row for key, row in kept.items() if row is not None}
        if not rows:
            return []
        measured = measure_alignment(*zip(*rows.values(), strict=True))
        return by_groups([measured], {key: groups[key] for key in rows})
