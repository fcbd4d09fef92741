"""coco-caption's metrics as `torchmetrics.Metric`: BLEU-1..4, ROUGE-L, CIDEr-D, and METEOR and SPICE where Java is.

An item is an image. Prediction: `caption`, a text. Truth: `captions`, its reference texts. Both are tokenized here as
the official code does it. An image whose references have no token is left out: it cannot be compared with.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

from lightning_modules.metrics.captions import CaptionMetrics
from lightning_modules.metrics.captions_java import measure_java
from lightning_modules.metrics.item_metric import Id, Item, ItemMetric, by_groups, text, texts
from lightning_modules.metrics.measurement import Measurement
from lightning_modules.metrics.ptb_tokenizer import comparable_tokens


class CaptionScores(ItemMetric):
    """`Bleu_1` .. `Bleu_4` (Papineni et al., 2002), `ROUGE_L` (Lin, 2004) in 0..1, `CIDEr` (1411.5726) in 0..10.

    Args:
        java: also `METEOR` and `SPICE` in 0..1, by their official programs; `measure` says why one is absent.
        **settings: of `ItemMetric` and `torchmetrics.Metric`.
    """

    def __init__(self, *, java: bool = False, **settings: Any):
        super().__init__(**settings)
        self.java = java

    def keep(self, prediction: Item, truth: Item) -> tuple[str, list[str]]:
        return text(prediction, "caption", "prediction"), texts(truth, "captions", "truth")

    def measure_kept(
        self, kept: Mapping[Id, tuple[str, list[str]]], groups: Mapping[Id, Hashable]
    ) -> list[Measurement]:
        keys, references = references_of({key: captions for key, (_, captions) in kept.items()})
        hypotheses = [kept[key][0] for key in keys]
        measured = [CaptionMetrics(references).measure(comparable_tokens(hypotheses))]
        if self.java:
            measured += measure_java([kept[key][1] for key in keys], hypotheses)
        return by_groups(measured, {key: groups[key] for key in keys})


def references_of(captions: Mapping[Any, Sequence[str]]) -> tuple[list[Any], list[list[list[str]]]]:
    """Ids in order and their captions' official tokens; a caption without a token, and an image with no other, cannot
    be compared with."""
    tokens = {image: [r for r in comparable_tokens(captions[image]) if r] for image in sorted(captions)}
    ids = [image for image, references in tokens.items() if references]
    return ids, [tokens[image] for image in ids]
