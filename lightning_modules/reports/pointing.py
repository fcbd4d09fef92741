"""Pointing: accuracy by the question's first word; photos with the candidates' boxes and their scores."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from contracts.records import Record
from lightning_modules.augment.images import decode_record
from lightning_modules.base.task import Prediction, Truth
from lightning_modules.drawing import text as draw
from lightning_modules.drawing.letters import text_width
from lightning_modules.reports._choices import ChoiceReport, color_of, shares
from lightning_modules.tasks.pointing import Task

_TILE_PX, _NUM_COLUMNS = 260, 3


class Report(ChoiceReport[Task]):
    @property
    def has_words(self) -> bool:
        return False

    def picture(self, record: Record, predictions: Sequence[Prediction], truths: Sequence[Truth] | None) -> np.ndarray:
        """A tile a question: its boxes with the softmax of their scores; what was chosen is green where right, red
        where wrong, blue where the truth is unknown; a check mark is at the right one."""
        image = draw.fit(decode_record(record), _TILE_PX)
        tiles = []
        for i, (question, p) in enumerate(zip(self.task.questions(record), predictions, strict=True)):
            boxes = np.array(question.candidate_boxes) * (_TILE_PX / record.width)
            tiles.append(_tile(image.copy(), boxes, p, None if truths is None else truths[i]))
        height = max(map(len, tiles))
        whole = [np.pad(t, ((0, height - len(t)), (0, 0), (0, 0)), constant_values=255) for t in tiles]
        return draw.grid(whole, min(_NUM_COLUMNS, len(whole)))


def _tile(canvas: np.ndarray, boxes: np.ndarray, prediction: Prediction, truth: Truth | None) -> np.ndarray:
    """The question over its boxes (K, 4), in pixels of the canvas, which is drawn on."""
    corners = np.rint(boxes).astype(int).tolist()
    share = shares(prediction["scores"])
    places = sorted(range(len(corners)), key=lambda place: place == prediction["choice"])  # the chosen one on top
    for place in places:
        color = color_of(prediction, truth, place)
        x1, y1, x2, y2 = corners[place]
        cv2.rectangle(canvas, (x1, y1), (x2 - 1, y2 - 1), color, 3 if place == prediction["choice"] else 2)
    for place in places:
        is_right = truth is not None and prediction["candidates"][place] == truth["answer"]
        text = f"{'✓ ' if is_right else ''}{100 * share[place]:.0f}%"
        width = text_width(text) + 4
        x = min(max(0, corners[place][0]), canvas.shape[1] - width)
        y = corners[place][1] - draw.LINE_PX if corners[place][1] >= draw.LINE_PX else corners[place][3]
        y = min(y, canvas.shape[0] - draw.LINE_PX)
        canvas[y : y + draw.LINE_PX, x : x + width] = 255
        draw.put_text(canvas, text, x + 2, y, color_of(prediction, truth, place))
    return draw.stack([draw.text_block([(prediction["question"], draw.BLACK)], _TILE_PX), canvas])
