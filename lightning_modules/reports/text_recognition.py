"""Text recognition: the picture, what was read, and which columns each character was read from; accuracy by length."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

import numpy as np

from contracts.records import Record
from lightning_modules.augment.images import decode_image
from lightning_modules.base.task import Prediction, Truth
from lightning_modules.drawing import text as draw
from lightning_modules.drawing.heat import CELL_PX, heat_map
from lightning_modules.metrics.recognition_scores import centers
from lightning_modules.reports import _plots
from lightning_modules.reports._plots import Plot
from lightning_modules.reports._report import BaseReport
from lightning_modules.tasks.text_recognition import Task

_PICTURE_PX = 480
_NUM_STEPS = 11  # of a walk: it is drawn over shares of the text


class Report(BaseReport[Task]):
    def constant(self, truths: Mapping[str, Truth]) -> dict[str, Prediction]:
        """The most frequent text of all, of equally frequent ones the first by the alphabet; it looks nowhere."""
        texts = Counter(truth["text"] for truth in truths.values())
        best = min(texts, key=lambda text: (-texts[text], text), default="")
        nowhere = np.zeros((len(best), 0), np.float16)
        return {
            item: {"text": best, "characters": list(best), "attention": nowhere, "log_prob": 0.0} for item in truths
        }

    def picture(self, record: Record, predictions: Sequence[Prediction], truths: Sequence[Truth] | None) -> np.ndarray:
        """What was read, blue, and what stands there, green where it is the same; below it the picture as wide as its
        columns, and a row a character, black where it was not looked."""
        (prediction,) = predictions
        paragraphs = [(prediction["text"] or "(nothing)", draw.BLUE)]
        if truths:
            right = truths[0]["text"] == prediction["text"]
            paragraphs.append((truths[0]["text"], draw.GREEN if right else draw.RED))
        attention = prediction["attention"].astype(np.float32)
        shown = decode_image(record.image)
        if not attention.size:
            return draw.stack([draw.text_block(paragraphs, _PICTURE_PX), draw.fit(shown, _PICTURE_PX)])
        heat = heat_map(prediction["characters"], [""] * attention.shape[1], attention)
        width = CELL_PX * attention.shape[1]
        strip = draw.fit(shown, width)
        # The map has the characters' names at its left.
        strip = np.pad(strip, ((0, 0), (heat.shape[1] - width - 1, 1), (0, 0)), constant_values=255)
        return draw.stack([draw.text_block(paragraphs, heat.shape[1]), strip, heat])

    def plots(self, predictions: Mapping[str, Prediction], truths: Mapping[str, Truth]) -> list[Plot]:
        right: dict[tuple[str, int], list[bool]] = defaultdict(list)
        for item, truth in truths.items():
            right[truth["script"], len(truth["text"])].append(predictions[item]["text"] == truth["text"])
        rows = [(length, float(np.mean(found)), script) for (script, length), found in sorted(right.items())]
        return [
            Plot(
                name="accuracy_by_length", kind="curve", columns=("characters", "word accuracy", "script"), rows=rows,
                x="characters", y="word accuracy", series="script", title="Texts read right, by their length",
            ),
            *_walks(predictions, truths),
        ]  # fmt: skip


def _walks(predictions: Mapping[str, Prediction], truths: Mapping[str, Truth]) -> list[Plot]:
    """The mean column over the parts of a text; none of a model that does not look."""
    found: dict[str, list[np.ndarray]] = defaultdict(list)
    parts = np.linspace(0, 1, _NUM_STEPS)
    for item, truth in truths.items():
        weights = predictions[item]["attention"]
        if len(weights) > 2 and weights.shape[1]:
            own = centers(weights)
            found[truth["script"]].append(np.interp(parts, np.linspace(0, 1, len(own)), own))
    rows = [
        (round(float(share), 2), float(value), script)
        for script, walks in sorted(found.items())
        for share, value in zip(parts, np.mean(walks, axis=0), strict=True)
    ]
    if not rows:
        return []
    columns = ("part of the text", "place in the picture", "script")
    title = "Where the model looks while it writes: 0 left, 1 right"
    return [_plots.Plot(name="walk", kind="curve", columns=columns, rows=rows, x=columns[0], y=columns[1],
                        series="script", title=title)]  # fmt: skip
