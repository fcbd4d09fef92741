"""Telling: accuracy by the question's first word; photos with questions, candidates and their scores."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from contracts.records import Record
from lightning_modules.augment.images import decode_record
from lightning_modules.base.task import Prediction, Truth
from lightning_modules.drawing import text as draw
from lightning_modules.reports._choices import ChoiceReport, color_of, shares
from lightning_modules.tasks.telling import Task

_PICTURE_PX = 420


class Report(ChoiceReport[Task]):
    def picture(self, record: Record, predictions: Sequence[Prediction], truths: Sequence[Truth] | None) -> np.ndarray:
        """The image, below it each question with its candidates and the softmax of their scores: what was chosen is
        green where right, red where wrong, blue where the truth is unknown; a check mark is at the right one."""
        parts = [draw.fit(decode_record(record), _PICTURE_PX)]
        for i, p in enumerate(predictions):
            truth = None if truths is None else truths[i]
            parts.append(draw.text_block([(p["question"], draw.BLACK)], _PICTURE_PX))
            right = "" if truth is None else truth["answer"]
            bars = [
                (f"{'✓ ' if candidate == right else ''}{candidate}", float(share), color_of(p, truth, place))
                for place, (candidate, share) in enumerate(zip(p["candidates"], shares(p["scores"]), strict=True))
            ]
            parts.append(draw.bars(bars, _PICTURE_PX))
        return draw.stack(parts)
