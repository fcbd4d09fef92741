"""BLEU by length and perplexity, held to the whole corpus's and to numbers worked by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from lightning_modules.metrics.measurement import values_of
from lightning_modules.metrics.text_scores import TranslationScores
from lightning_modules.metrics.translation_scores import TokenPerplexity, TranslationByLength

TEXTS = [("a b c d", "a b c d", 4), ("a b c x e f", "a b c d e f", 6), ("q w e r t", "q w e r t", 7), ("n", "o", 12)]
PREDICTIONS = [{"id": i, "text": text} for i, (text, _, _) in enumerate(TEXTS)]
TRUTHS = [{"id": i, "references": [wanted], "length": length} for i, (_, wanted, length) in enumerate(TEXTS)]


def measured(metric, predictions, truths):
    metric.update(predictions, truths)
    return metric.measure()


def test_each_bin_is_a_corpus_of_its_own() -> None:
    found = measured(TranslationByLength((5, 10)), PREDICTIONS, TRUTHS)
    assert list(values_of(found)) == ["BLEU/length 1-5", "BLEU/length 6-10", "BLEU/length over 10"]
    whole, _ = measured(TranslationScores(), PREDICTIONS[1:3], TRUTHS[1:3])
    assert found[1].values["BLEU/length 6-10"] == pytest.approx(whole.values["BLEU"]) and found[1].num_items == 2
    weights = np.array([[2.0, 0.0], [0.0, 2.0]])
    np.testing.assert_allclose(
        found[1].resample(weights)["BLEU/length 6-10"], whole.resample(weights)["BLEU"], rtol=1e-12
    )
    assert values_of(found)["BLEU/length 1-5"] == pytest.approx(100)
    empty = measured(TranslationByLength((3,)), PREDICTIONS[:1], TRUTHS[:1])
    assert list(values_of(empty)) == ["BLEU/length over 3"], "a bin without a sentence has no number"


def test_perplexity_is_of_tokens_not_of_sentences() -> None:
    """Eight tokens at 1/2 and two at 1/8: 2 ** ((8 * 1 + 2 * 3) / 10)."""
    predictions = [
        {"id": 0, "nll": 8 * math.log(2), "num_tokens": 8}, {"id": 1, "nll": 2 * math.log(8), "num_tokens": 2},
        {"id": 2},
    ]  # fmt: skip
    (one,) = measured(TokenPerplexity(), predictions, [{"id": i} for i in range(3)])
    assert one.values["perplexity"] == pytest.approx(2**1.4) and one.num_items == 2
    np.testing.assert_allclose(one.resample(np.array([[2.0, 0.0], [0.0, 2.0]]))["perplexity"], [2, 8])
    assert measured(TokenPerplexity(), [{"id": 0}], [{"id": 0}]) == []
