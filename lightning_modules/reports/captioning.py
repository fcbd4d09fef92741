"""Captioning: how long captions are, which words they find, and where the model looked for each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from contracts.records import Record
from contracts.text import joined, words
from lightning_modules.augment.images import decode_record
from lightning_modules.base.task import Prediction, Truth
from lightning_modules.drawing import text as draw
from lightning_modules.reports import _plots
from lightning_modules.reports._captions import constant_caption
from lightning_modules.reports._gallery import caption_gallery
from lightning_modules.reports._plots import Plot
from lightning_modules.reports._report import BaseReport
from lightning_modules.tasks.captioning import Task

_NUM_PLOTTED_WORDS = 30
_TILE_PX, _NUM_COLUMNS = 104, 6


class Report(BaseReport[Task]):
    def constant(self, truths: Mapping[str, Truth]) -> dict[str, Prediction]:
        """The reference caption that scores the best BLEU-4 if written for every image, of the most frequent ones."""
        best = constant_caption(truths)
        prediction = {
            "caption": joined(best),
            "words": best,
            "log_prob": 0.0,
            "attention": np.full((len(best), 1, 1), 1, np.float16),
        }
        return dict.fromkeys(truths, prediction)

    def picture(self, record: Record, predictions: Sequence[Prediction], truths: Sequence[Truth] | None) -> np.ndarray:
        """The image with its caption (and two references), below it one tile per word: where the model looked, if it
        could choose."""
        (prediction,) = predictions
        image, width = decode_record(record), _NUM_COLUMNS * (_TILE_PX + 4)
        paragraphs = [(prediction["caption"] or "(no word)", draw.BLUE)]
        if truths is not None:
            (truth,) = truths
            paragraphs += [(text, draw.GREY) for text in truth["captions"][:2]]
        parts = [draw.fit(image, width // 2), draw.text_block(paragraphs, width)]
        small = draw.fit(image, _TILE_PX)
        tiles = [
            np.concatenate([draw.overlay(small, weights), draw.text_block([(word, draw.BLACK)], _TILE_PX)])
            for word, weights in zip(prediction["words"], prediction["attention"], strict=True)
            if weights.size > 1
        ]
        if tiles:
            parts.append(draw.grid(tiles, _NUM_COLUMNS))
        return draw.stack(parts)

    def gallery(
        self, read: Callable[[str], Record], predictions: Mapping[str, Prediction], truths: Mapping[str, Truth]
    ) -> dict[str, np.ndarray]:
        """`gallery`: the eight best and the five worst captions by the image's own CIDEr-D."""
        captions = {key: prediction["caption"] for key, prediction in predictions.items()}
        references = {key: truth["captions"] for key, truth in truths.items()}
        return {"gallery": caption_gallery(captions, references, lambda key: decode_record(read(key)))}

    def plots(self, predictions: Mapping[str, Prediction], truths: Mapping[str, Truth]) -> list[Plot]:
        lengths = {
            "predicted": [len(p["words"]) for p in predictions.values()],
            "reference": [len(words(text)) for truth in truths.values() for text in truth["captions"]],
        }
        return [
            _plots.length_histogram("caption_length", lengths, series="captions", title="Words per caption"),
            _word_plot(predictions, truths),
        ]


def _word_plot(predictions: Mapping[str, Prediction], truths: Mapping[str, Truth]) -> Plot:
    """Of the images whose references all use a word, the share whose prediction uses it."""
    expected: Counter[str] = Counter()
    found: Counter[str] = Counter()
    for key, truth in truths.items():
        if not truth["captions"]:
            continue
        common = set.intersection(*(set(words(text)) for text in truth["captions"]))
        expected.update(sorted(common))  # of equally frequent words the first stand first
        found.update(common & set(predictions[key]["words"]))
    rows = [(word, found[word] / count) for word, count in expected.most_common(_NUM_PLOTTED_WORDS)]
    title = "Words that all references of an image use: share of images whose caption has them"
    return _plots.bar("word_recall", ("word", "recall"), rows, title=title)
