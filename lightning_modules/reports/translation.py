"""Translation: the sentence, its translation and where the model looked for each word; scores by length."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from contracts.records import Record
from contracts.text import END
from lightning_modules.base.task import Prediction, Truth
from lightning_modules.drawing import text as draw
from lightning_modules.drawing.heat import heat_map
from lightning_modules.metrics.measurement import values_of
from lightning_modules.metrics.text import measure_translation
from lightning_modules.metrics.translation_scores import TranslationByLength
from lightning_modules.reports import _plots
from lightning_modules.reports._plots import Plot
from lightning_modules.reports._report import BaseReport
from lightning_modules.tasks.translation import Task, word_places

_NUM_CONSTANT_CANDIDATES = 20
_PICTURE_PX = 560
_BLANK = "\u2581"  # what a piece begins with that had a blank before it
_SHOWN = "attention"  # plot of the split's first sentence


class Report(BaseReport[Task]):
    def constant(self, truths: Mapping[str, Truth]) -> dict[str, Prediction]:
        """What ignores the source: of the most frequent references, of equally frequent ones those nearest to the mean
        length, the one with the best BLEU for all; each token as likely as it is frequent in the references; each word
        aligned with the one that stands at the same part of the source."""
        texts = Counter(truth["references"][0] for truth in truths.values())
        mean = sum(len(text) * count for text, count in texts.items()) / max(1, texts.total())
        ranked = sorted(texts, key=lambda text: (-texts[text], abs(len(text) - mean), text))
        references = [truth["references"] for truth in truths.values()]

        def bleu(text: str) -> float:
            return values_of(measure_translation([text] * len(references), references)).get("BLEU", -1.0)

        best = max(ranked[:_NUM_CONSTANT_CANDIDATES], key=bleu, default="")
        ids = {item: [*self.task.target.encode(truth["references"][0]), END] for item, truth in truths.items()}
        counts = Counter(i for row in ids.values() for i in row)
        logs = {i: math.log(count / counts.total()) for i, count in counts.items()}
        return {
            item: {
                "text": best, "tokens": [], "source_tokens": [], "attention": np.zeros((0, 0), np.float16),
                "log_prob": 0.0, "nll": -math.fsum(logs[i] for i in ids[item]), "num_tokens": len(ids[item]),
                "links": _diagonal(*truth["num_words"]),
            }
            for item, truth in truths.items()
        }  # fmt: skip

    def picture(self, record: Record, predictions: Sequence[Prediction], truths: Sequence[Truth] | None) -> np.ndarray:
        """Source, translation and reference; below them the attention, a row a written token and a column a source
        token, both with their end. Where people aligned the words and the model writes another translation, also the
        attention while the reference is read to it, as theirs are the reference's words; frames mark what they
        aligned."""
        (prediction,) = predictions
        truth = truths[0] if truths else None
        source = record.sentence("source")
        paragraphs = [(source.text if source else "", draw.GREY), (prediction["text"] or "(no word)", draw.BLUE)]
        if truth is not None:
            right = prediction["text"] == truth["references"][0]
            paragraphs.append((truth["references"][0], draw.GREEN if right else draw.RED))
        if not prediction["attention"].size:
            paragraphs.append(("this model has no attention to draw", draw.GREY))
            return draw.text_block(paragraphs, _PICTURE_PX)
        parts = [_attention(prediction, prediction["tokens"], prediction["attention"])]
        if truth is not None and truth.get("links") is not None and "reference_attention" in prediction:
            tokens = _tokens_of(self.task, truth["references"][0], len(prediction["reference_attention"]))
            weights = prediction["reference_attention"]
            framed = _attention(prediction, tokens, weights, _marked(truth, tokens, prediction["source_tokens"]))
            same = prediction["text"] == truth["references"][0]
            note = "the reference, read to the model; frames: aligned by people, or by what made the sentence"
            parts = [framed] if same else [*parts, draw.text_block([(note, draw.GREY)], _PICTURE_PX), framed]
        width = max(_PICTURE_PX, *(part.shape[1] for part in parts))
        return draw.stack([draw.text_block(paragraphs, width), *parts])

    def plots(self, predictions: Mapping[str, Prediction], truths: Mapping[str, Truth]) -> list[Plot]:
        lengths = {
            "written": [len(p["text"].split()) for p in predictions.values()],
            "reference": [len(truth["references"][0].split()) for truth in truths.values()],
        }
        return [
            *self._by_length(predictions, truths),
            _plots.length_histogram("translation_length", lengths, series="sentences", title="Words per sentence"),
            *self._first(predictions, truths),
        ]

    def _by_length(self, predictions: Mapping[str, Prediction], truths: Mapping[str, Truth]) -> list[Plot]:
        items = [(item, item, *self.task.measurable(predictions[item], truths[item])) for item in truths]
        values = values_of(TranslationByLength(self.task.config.length_bins).measure_items(items))
        rows = [(name.partition("/length ")[2], value) for name, value in values.items()]
        columns = ("source tokens", "BLEU")
        return [_plots.bar("bleu_by_length", columns, rows, title="BLEU by the length of the source")]

    def _first(self, predictions: Mapping[str, Prediction], truths: Mapping[str, Truth]) -> list[Plot]:
        """Of the split's first sentence: its reference is read to the model."""
        item = next(iter(truths), None)
        if item is None or "reference_attention" not in predictions[item]:
            return []
        prediction, truth = predictions[item], truths[item]
        weights, sources = prediction["reference_attention"], prediction["source_tokens"]
        tokens = _tokens_of(self.task, truth["references"][0], len(weights))
        marked = _marked(truth, tokens, sources)
        return [
            _plots.heat(
                _SHOWN, _shown(tokens), _shown(sources), weights, marked, row="target", column="source",
                title="Attention while the first sentence's reference is read; framed: aligned",
            )
        ]  # fmt: skip


def _attention(
    prediction: Prediction, tokens: Sequence[str], weights: np.ndarray, marked: set[tuple[int, int]] | None = None
) -> np.ndarray:
    return heat_map(_shown(tokens), _shown(prediction["source_tokens"]), weights.astype(np.float32), marked or ())


def _shown(tokens: Sequence[str]) -> list[str]:
    """Without the sign for a blank."""
    return [token[1:] if len(token) > 1 and token[0] == _BLANK else token for token in tokens]


def _tokens_of(task: Task, text: str, count: int) -> list[str]:
    """The reference's pieces as they were read to the model, and the token that ends it: `count` in all."""
    return [*task.split(text)[: count - 1], task.target.tokens[END]]


def _marked(truth: Truth, targets: Sequence[str], sources: Sequence[str]) -> set[tuple[int, int]]:
    """Places (target token, source token) whose words people aligned."""
    links: Any = truth.get("links")
    if links is None:
        return set()
    joined = {(int(i), int(j)) for i, j in links}
    of_target, of_source = word_places(targets[:-1]), word_places(sources[:-1])
    return {(t, s) for t, j in enumerate(of_target) for s, i in enumerate(of_source) if (int(i), int(j)) in joined}


def _diagonal(num_sources: int, num_targets: int) -> np.ndarray:
    """(T, 2) links of each target word with the source word at the same part of its sentence."""
    targets = np.arange(num_targets)
    return np.stack([targets * num_sources // max(1, num_targets), targets], axis=1)
