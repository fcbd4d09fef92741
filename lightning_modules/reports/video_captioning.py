"""Video captioning: frames over their caption, and how long captions are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from contracts.records import Record
from contracts.text import joined, words
from lightning_modules.augment.images import decode_image
from lightning_modules.base.task import Prediction, Truth
from lightning_modules.drawing import text as draw
from lightning_modules.drawing.strips import film
from lightning_modules.reports import _plots
from lightning_modules.reports._captions import constant_caption
from lightning_modules.reports._plots import Plot
from lightning_modules.reports._report import BaseReport
from lightning_modules.tasks.video_captioning import Task

_WIDTH_PX = 640


class Report(BaseReport[Task]):
    def constant(self, truths: Mapping[str, Truth]) -> dict[str, Prediction]:
        """The reference caption that scores the best BLEU-4 if written for every clip, of the most frequent ones."""
        best = constant_caption(truths)
        return {key: {"caption": joined(best), "words": best, "log_prob": 0.0} for key in truths}

    def picture(self, record: Record, predictions: Sequence[Prediction], truths: Sequence[Truth] | None) -> np.ndarray:
        """The frames in the order in which they were shown, over the caption and two references."""
        (prediction,) = predictions
        paragraphs = [(prediction["caption"] or "(no word)", draw.BLUE)]
        if truths is not None:
            paragraphs += [(text, draw.GREY) for text in truths[0]["captions"][:2]]
        shown = [decode_image(record.frames[i]) for i in self.task.places(record, None)]
        return draw.stack([film(shown, _WIDTH_PX, most=10), draw.text_block(paragraphs, _WIDTH_PX)])

    def plots(self, predictions: Mapping[str, Prediction], truths: Mapping[str, Truth]) -> list[Plot]:
        lengths = {
            "predicted": [len(p["words"]) for p in predictions.values()],
            "reference": [len(words(text)) for truth in truths.values() for text in truth["captions"]],
        }
        return [_plots.length_histogram("caption_length", lengths, series="captions", title="Words per caption")]
