"""Scores of produced text as `torchmetrics.Metric`: translation by sacrebleu, and text recognition."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any, Literal

from lightning_modules.metrics.item_metric import Id, Item, ItemMetric, by_groups, text, texts
from lightning_modules.metrics.measurement import Measurement
from lightning_modules.metrics.text import measure_recognition, measure_translation


class TranslationScores(ItemMetric):
    """`measure_translation` as `torchmetrics.Metric`: `BLEU` and `chrF2` in 0..100.

    An item is a sentence, its group the document. Prediction: `text`, detokenized. Truth: `references`, texts, of which
    every item has the same number. torchmetrics' own `SacreBLEUScore` has no exponential smoothing and float32 counts.
    """

    def keep(self, prediction: Item, truth: Item) -> tuple[str, list[str]]:
        return text(prediction, "text", "prediction"), texts(truth, "references", "truth")

    def measure_kept(
        self, kept: Mapping[Id, tuple[str, list[str]]], groups: Mapping[Id, Hashable]
    ) -> list[Measurement]:
        pairs = kept.values()
        return by_groups(measure_translation([given for given, _ in pairs], [wanted for _, wanted in pairs]), groups)


class RecognitionScores(ItemMetric):
    """`measure_recognition` as `torchmetrics.Metric`: `CER` `WER` `word_accuracy` `1-NED`; rates may exceed 1.

    An item is a line or a word, its group the page. Prediction and truth: `text`. torchmetrics' own `CharErrorRate`
    and `WordErrorRate` take texts as they are written, not their NFC form, and count in float32.

    Args:
        case: as of `measure_recognition`.
        **settings: of `ItemMetric` and `torchmetrics.Metric`.
    """

    higher_is_better = False  # the first of them, CER

    def __init__(self, *, case: Literal["keep", "lower"] = "keep", **settings: Any):
        super().__init__(**settings)
        self.case = case

    def keep(self, prediction: Item, truth: Item) -> tuple[str, str]:
        return text(prediction, "text", "prediction"), text(truth, "text", "truth")

    def measure_kept(self, kept: Mapping[Id, tuple[str, str]], groups: Mapping[Id, Hashable]) -> list[Measurement]:
        pairs = kept.values()
        measured = measure_recognition([read for read, _ in pairs], [wanted for _, wanted in pairs], case=self.case)
        return by_groups([measured], groups)
