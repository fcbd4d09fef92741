"""Whether captions tell in the right order what happened: "a red circle grows then a blue square moves to the left".

It needs captions that say "then", and asks nothing else of them: which words stand before and which behind it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Mapping, Sequence

import numpy as np

from contracts.text import words
from lightning_modules.metrics.item_metric import Id, Item, ItemMetric, by_groups, text, texts
from lightning_modules.metrics.measurement import SOURCE, Measurement, ratio_of_sums

_THEN = "then"


class ThenOrder(ItemMetric):
    """`then_order`: the share of items whose caption tells the two halves in the order of the references.

    Of the items with a reference that has one "then". A caption is right if its words before "then" and those behind it
    share more with the same halves of the references than with the opposite ones; one without "then" is wrong, and so
    is one that fits both ways alike.

    An item is a clip. Prediction: `caption`, a text. Truth: `captions`, its reference texts.
    """

    def keep(self, prediction: Item, truth: Item) -> tuple[str, list[str]]:
        return text(prediction, "caption", "prediction"), texts(truth, "captions", "truth")

    def measure_kept(
        self, kept: Mapping[Id, tuple[str, list[str]]], groups: Mapping[Id, Hashable]
    ) -> list[Measurement]:
        told = [is_in_order(caption, references) for caption, references in kept.values()]
        right = np.array([one is True for one in told], np.float64)
        counted = np.array([one is not None for one in told], np.float64)

        def values(weights: np.ndarray) -> dict[str, np.ndarray]:
            return {"then_order": ratio_of_sums(weights, right, counted)}

        measured = Measurement(
            values={"then_order": float(values(np.ones((1, len(told))))["then_order"][0])},
            variant='words before and behind the first "then", of references with one "then"',
            source=SOURCE,
            num_items=int(counted.sum()),
            unit="captions",
            num_clusters=len(told),
            resample=values,
        )
        return by_groups([measured], groups)


def is_in_order(caption: str, references: Sequence[str]) -> bool | None:
    """None where no reference has one "then"."""
    halves = [_halves(words(reference)) for reference in references]
    pairs = [pair for pair, num_then in halves if num_then == 1]
    if not pairs:
        return None
    (first, second), num_then = _halves(words(caption))
    if not num_then:
        return False
    straight = sum(_shared(first, a) + _shared(second, b) for a, b in pairs)
    crossed = sum(_shared(first, b) + _shared(second, a) for a, b in pairs)
    return straight > crossed


def _halves(tokens: list[str]) -> tuple[tuple[Counter[str], Counter[str]], int]:
    """What stands before the first "then" and behind it, and how many there are."""
    place = tokens.index(_THEN) if _THEN in tokens else len(tokens)
    return (Counter(tokens[:place]), Counter(tokens[place + 1 :])), tokens.count(_THEN)


def _shared(one: Counter[str], other: Counter[str]) -> int:
    return (one & other).total()
