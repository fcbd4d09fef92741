"""What is said of a translation beside `TranslationScores`: BLEU by the length of the source, and perplexity."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from lightning_modules.metrics.item_metric import Id, Item, ItemMetric, array, by_groups, text, texts
from lightning_modules.metrics.measurement import SOURCE, Measurement, ratio_of_sums
from lightning_modules.metrics.text import measure_translation


class TranslationByLength(ItemMetric):
    """`BLEU/length a-b`: corpus BLEU of the sentences whose source has a to b tokens, for each bin that has
    any, and `BLEU/length over c` of those that are longer than the last.

    Prediction: `text`, detokenized. Truth: `references`, and `length` in source tokens.

    Args:
        bins: the largest length of each bin, rising.
        **settings: of `ItemMetric` and `torchmetrics.Metric`.
    """

    def __init__(self, bins: Sequence[int] = (5, 10, 15, 25), **settings: Any):
        super().__init__(**settings)
        self.bins = tuple(bins)

    def keep(self, prediction: Item, truth: Item) -> tuple[str, list[str], int]:
        given, wanted = text(prediction, "text", "prediction"), texts(truth, "references", "truth")
        return given, wanted, int(array(truth, "length", "truth", ()))

    def measure_kept(
        self, kept: Mapping[Id, tuple[str, list[str], int]], groups: Mapping[Id, Hashable]
    ) -> list[Measurement]:
        found: list[Measurement] = []
        for low, high in zip((0, *self.bins), (*self.bins, None), strict=True):
            ids = [key for key, (_, _, n) in kept.items() if n > low and (high is None or n <= high)]
            if ids:
                bleu, _ = measure_translation([kept[key][0] for key in ids], [kept[key][1] for key in ids])
                name = f"BLEU/length over {low}" if high is None else f"BLEU/length {low + 1}-{high}"
                found += by_groups([_renamed(bleu, name)], {key: groups[key] for key in ids})
        return found


def _renamed(bleu: Measurement, name: str) -> Measurement:
    resample = bleu.resample
    assert resample is not None
    return replace(bleu, values={name: bleu.values["BLEU"]}, resample=lambda weights: {name: resample(weights)["BLEU"]})


class TokenPerplexity(ItemMetric):
    """`perplexity`: exp of the mean negative log-likelihood of a reference's tokens, each given those before it.

    All tokens that the model is to write count, the one that ends a sentence and `<unk>` too; the one that begins it
    and padding do not. Another vocabulary gives another number. torchmetrics' own `Perplexity` takes logits, not sums,
    and has no interval.

    Prediction: `nll`, a sentence's sum in nats, and `num_tokens`. A prediction without them is left out.
    """

    higher_is_better = False

    def keep(self, prediction: Item, truth: Item) -> tuple[float, int] | None:
        if prediction.get("nll") is None:
            return None
        sums = (array(prediction, name, "prediction", ()) for name in ("nll", "num_tokens"))
        nll, num_tokens = sums
        return float(nll), int(num_tokens)

    def measure_kept(
        self, kept: Mapping[Id, tuple[float, int] | None], groups: Mapping[Id, Hashable]
    ) -> list[Measurement]:
        rows = {key: row for key, row in kept.items() if row is not None}
        if not rows:
            return []
        nll, counts = np.array(list(rows.values()), np.float64).T
        measured = Measurement(
            values={"perplexity": math.exp(math.fsum(nll) / counts.sum())},
            variant="target tokens and the one that ends a sentence, given the reference so far; natural base",
            source=SOURCE,
            num_items=len(rows),
            unit="sentences",
            resample=lambda weights: {"perplexity": np.exp(ratio_of_sums(weights, nll, counts))},
        )
        return by_groups([measured], {key: groups[key] for key in rows})
