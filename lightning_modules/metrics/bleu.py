"""Corpus BLEU-1..4 of captions with several references, as tylin/coco-caption counts it (Papineni et al., 2002).

N-gram counts come from sacrebleu without a tokenizer and without smoothing: the caller's tokens are what is compared.
Brevity penalty: the reference length closest to the hypothesis (the shorter of two equally near), summed over images.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from sacrebleu.metrics.bleu import BLEU

NAMES = ("BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4")


class CorpusBLEU:
    """BLEU of any number of systems against the same references, whose n-grams are counted once.

    Args:
        references: per image one or more token lists, none of them empty.
    """

    def __init__(self, references: Sequence[Sequence[Sequence[str]]]):
        self._num_images = len(references)
        width = max((len(captions) for captions in references), default=0)
        # sacrebleu wants columns of references; None is a reference that an image does not have.
        columns = [
            [" ".join(captions[i]) if i < len(captions) else None for captions in references] for i in range(width)
        ]
        # `force` silences its advice about tokenized input: tokens are what we mean to give.
        self._bleu = BLEU(tokenize="none", smooth_method="none", force=True, references=columns)  # type: ignore[arg-type]

    def __call__(self, hypotheses: Sequence[Sequence[str]]) -> dict[str, float]:
        """`{"BLEU-1": .., .., "BLEU-4": ..}` in 0..1 over the whole split (never a mean over images or batches).

        Args:
            hypotheses: one token list per image, in the references' order; may be empty.
        """
        if len(hypotheses) != self._num_images:
            raise ValueError(f"{len(hypotheses)} hypotheses for {self._num_images} images")
        if not any(hypotheses):
            return dict.fromkeys(NAMES, 0.0)
        result = self._bleu.corpus_score([" ".join(tokens) for tokens in hypotheses], None)
        brevity = 1.0 if result.sys_len >= result.ref_len else math.exp(1 - result.ref_len / result.sys_len)
        scores: dict[str, float] = {}
        log_sum = 0.0
        for order, (name, correct, total) in enumerate(zip(NAMES, result.counts, result.totals, strict=True), start=1):
            log_sum += math.log(correct / total) if correct else -math.inf
            scores[name] = brevity * math.exp(log_sum / order)
        return scores
