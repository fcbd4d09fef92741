"""What reports on captions share."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from contracts.text import words
from lightning_modules.base.task import Truth
from lightning_modules.metrics.caption_scores import references_of
from lightning_modules.metrics.captions import CaptionMetrics

_NUM_CANDIDATES = 50


def constant_caption(truths: Mapping[str, Truth]) -> list[str]:
    """The words of the reference caption that scores the best BLEU-4 if written for every item, of the most frequent
    ones."""
    keys, references = references_of({key: truth["captions"] for key, truth in truths.items()})
    counts = Counter(tuple(words(text)) for key in keys for text in truths[key]["captions"])
    candidates = [list(caption) for caption, _ in counts.most_common(_NUM_CANDIDATES)]
    metrics = CaptionMetrics(references)
    return max(candidates, key=lambda caption: metrics.bleu([caption] * len(keys))["Bleu_4"], default=[])
