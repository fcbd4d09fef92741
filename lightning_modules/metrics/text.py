"""Scores of produced text: translation (BLEU, chrF) and text recognition (CER, WER, word accuracy, 1-NED).

Translation is scored by sacrebleu (1804.08771) with its defaults on detokenised sentences: the 13a tokenizer, mixed
case, exponential smoothing. Another tokenizer gives another number, so its signature goes with each score.

Recognition rates are sums of edits over sums of reference lengths, never means of rates. Lengths are counted in code
points of the NFC form, on both sides: "e" with a combining acute is one character, as the composed letter is. Nothing
is stripped: " a" for "a" is an edit. WER splits on white space. An empty reference adds no length, but what was read
there counts as insertions.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Sequence
from functools import cached_property
from typing import Literal

import numpy as np
import rapidfuzz
import sacrebleu
from rapidfuzz.distance import Levenshtein
from sacrebleu.metrics.bleu import BLEU
from sacrebleu.metrics.chrf import CHRF

from contracts.errors import DataError
from lightning_modules.metrics.measurement import SOURCE, Measurement, ratio_of_sums

_ORDERS = 4  # BLEU's longest n-gram


def measure_translation(hypotheses: Sequence[str], references: Sequence[Sequence[str]]) -> list[Measurement]:
    """`BLEU` and `chrF2` of a corpus, both in 0..100; NaN without sentences.

    Args:
        hypotheses: one detokenised sentence per item.
        references: per item all its references, of which every item has the same number.

    Raises:
        DataError: other numbers of hypotheses than of items, or of references.
    """
    num_references = _check_references(hypotheses, references)
    streams = [[texts[k] for texts in references] for k in range(num_references)]  # sacrebleu wants columns
    measurements = []
    for name, metric in (("BLEU", BLEU()), ("chrF2", CHRF())):
        measurements.append(
            Measurement(
                values={name: metric.corpus_score(hypotheses, streams).score if hypotheses else math.nan},
                variant="corpus score in 0..100, sacrebleu's defaults",
                # Before anything was scored there is no signature: it holds the number of references.
                source=str(metric.get_signature()) if hypotheses else f"sacrebleu {sacrebleu.__version__}",
                num_items=len(hypotheses),
                unit="sentences",
                # sacrebleu gives BLEU's counts of a sentence to its callers, but keeps those of chrF to itself.
                resample=_BLEUResampler(hypotheses, references) if name == "BLEU" else None,
            )
        )
    return measurements


def _check_references(hypotheses: Sequence[str], references: Sequence[Sequence[str]]) -> int:
    """The number of references that each sentence has."""
    _check_lengths(hypotheses, references)
    num_references = len(references[0]) if references else 0
    for i, texts in enumerate(references):
        if len(texts) != num_references or not texts:
            raise DataError(
                "a sentence has another number of references than the first, or none",
                value=len(texts),
                where=f"sentence {i}",
                allowed=str(max(num_references, 1)),
                fix="use the references that every sentence has",
            )
    return num_references


def _check_lengths(hypotheses: Sequence[str], references: Sequence[object]) -> None:
    if len(hypotheses) != len(references):
        raise DataError(
            "there must be one hypothesis for each item of the references",
            value=len(hypotheses),
            allowed=str(len(references)),
        )


class _BLEUResampler:
    """Corpus BLEU of resamples from the counts of each sentence, which are taken when first asked for."""

    def __init__(self, hypotheses: Sequence[str], references: Sequence[Sequence[str]]):
        self._hypotheses, self._references = hypotheses, references

    def __call__(self, weights: np.ndarray) -> dict[str, np.ndarray]:
        # Counts stay below 2**53, so that their sums in float64 are exact and run in BLAS.
        sums = (weights.astype(np.float64) @ self._statistics).astype(np.int64).tolist()
        scores = [
            BLEU.compute_bleu(
                row[2 : 2 + _ORDERS], row[2 + _ORDERS :], sys_len=row[0], ref_len=row[1], smooth_method="exp"
            ).score
            for row in sums
        ]
        return {"BLEU": np.array(scores, np.float64)}

    @cached_property
    def _statistics(self) -> np.ndarray:
        """(I, 2 + 2 * 4): lengths of hypothesis and closest reference, correct n-grams, all n-grams."""
        bleu = BLEU(effective_order=True)  # changes no count; without it each sentence logs a warning
        rows = []
        for hypothesis, texts in zip(self._hypotheses, self._references, strict=True):
            score = bleu.sentence_score(hypothesis, texts)
            rows.append([score.sys_len, score.ref_len, *score.counts, *score.totals])
        return np.array(rows, np.float64).reshape(-1, 2 + 2 * _ORDERS)


def measure_recognition(
    hypotheses: Sequence[str], references: Sequence[str], *, case: Literal["keep", "lower"] = "keep"
) -> Measurement:
    """Metrics of text recognition, one line or word an item; all NaN without items.

    `CER`, `WER`: edits of characters and of words, over the references' lengths; above 1 where much is inserted. Where
    all references are empty: 0 without edits, NaN with them.
    `word_accuracy`: share of items that are right as whole strings.
    `1-NED`: 1 - mean of character edits / length of the longer side (ICDAR 2019 ReCTS, 1912.09641); two empty sides
    are right.

    Args:
        case: "lower" ignores case: a policy that makes another metric, so it is told in `variant`.

    Raises:
        DataError: other numbers of hypotheses than of references.
    """
    _check_lengths(hypotheses, references)
    rows = [
        _count_edits(_normalised(hypothesis, case), _normalised(reference, case))
        for hypothesis, reference in zip(hypotheses, references, strict=True)
    ]
    counts = np.array(rows, np.int64).reshape(-1, 5)
    edits, length, longer, word_edits, num_words = counts.T
    similarity = 1 - edits / np.maximum(longer, 1)
    ones = np.ones(len(rows), np.int64)

    def resample(weights: np.ndarray) -> dict[str, np.ndarray]:
        return {
            "CER": _error_rate(weights, edits, length),
            "WER": _error_rate(weights, word_edits, num_words),
            "word_accuracy": ratio_of_sums(weights, edits == 0, ones),
            "1-NED": ratio_of_sums(weights, similarity, ones),
        }

    values = {name: float(drawn[0]) if rows else math.nan for name, drawn in resample(ones[None]).items()}
    if rows:
        values["1-NED"] = math.fsum(similarity) / len(rows)  # the same digits in any order of the items
    return Measurement(
        values=values,
        variant=f"NFC, case {'kept' if case == 'keep' else 'lowered'}, nothing stripped, words split on white space",
        source=f"{SOURCE}, rapidfuzz {rapidfuzz.__version__}",
        num_items=len(rows),
        unit="texts",
        resample=resample,
    )


def _normalised(text: str, case: Literal["keep", "lower"]) -> str:
    composed = unicodedata.normalize("NFC", text)
    # Lower case can leave the composed form.
    return composed if case == "keep" else unicodedata.normalize("NFC", composed.lower())


def _count_edits(hypothesis: str, reference: str) -> tuple[int, int, int, int, int]:
    """Character edits, length of the reference, of the longer side, word edits, words of the reference."""
    words = reference.split()
    return (
        Levenshtein.distance(hypothesis, reference),
        len(reference),
        max(len(hypothesis), len(reference)),
        Levenshtein.distance(hypothesis.split(), words),
        len(words),
    )


def _error_rate(weights: np.ndarray, edits: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Sum of edits over sum of lengths in each resample (B,); without any length 0 or, with edits, NaN."""
    rates = ratio_of_sums(weights, edits, lengths)
    empty = weights @ lengths == 0
    return np.where(empty, np.where(weights @ edits == 0, 0.0, np.nan), rates)
