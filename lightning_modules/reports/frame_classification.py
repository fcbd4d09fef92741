"""Frame-level classification: the frames over a band of their classes, found and true; where the errors are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from contracts.records import Record
from lightning_modules.augment.images import decode_image
from lightning_modules.base.task import Prediction, Truth
from lightning_modules.drawing import text as draw
from lightning_modules.drawing.shapes import legend
from lightning_modules.drawing.strips import band_start, bands, curves, film
from lightning_modules.metrics.frame_level import DISTANCES, FrameAccuracy, FrameMeanAP
from lightning_modules.reports import _plots
from lightning_modules.reports._plots import Plot
from lightning_modules.reports._report import BaseReport
from lightning_modules.tasks.frame_classification import Task

_WIDTH_PX, _CHART_PX, _NUM_SHOWN = 640, 80, 20


class Report(BaseReport[Task]):
    def constant(self, truths: Mapping[str, Truth]) -> dict[str, Prediction]:
        """Each class's share of the frames, for every frame."""
        frames = max(1, sum(len(truth["labels"]) for truth in truths.values()))
        shares = sum((truth["labels"].sum(axis=0) for truth in truths.values()), np.zeros(len(self.task.data.classes)))
        row = (shares / frames).astype(np.float32)
        return {
            key: {"probs": np.tile(row, (len(truth["labels"]), 1)), "times_s": np.arange(len(truth["labels"]))}
            for key, truth in truths.items()
        }

    def picture(self, record: Record, predictions: Sequence[Prediction], truths: Sequence[Truth] | None) -> np.ndarray:
        """Frames, bands of what was found and what is true in the classes' colors, and how sure the model was."""
        (prediction,) = predictions
        probs, found = prediction["probs"], self.task.found(prediction["probs"])
        rows = [(f"found {i}" if i else "found", row) for i, row in enumerate(_layers(found))]
        told = set(np.flatnonzero(found.any(axis=0)).tolist())
        if truths is not None:
            labels = truths[0]["labels"]
            rows = [(f"truth {i}" if i else "truth", row) for i, row in enumerate(_layers(labels))] + rows
            told |= set(np.flatnonzero(labels.any(axis=0)).tolist())
        names = [(place + 1, self.task.data.classes[place]) for place in sorted(told)]
        left = band_start(rows)
        frames = film([decode_image(frame) for frame in record.frames], _WIDTH_PX - left, most=12)
        parts = [np.pad(frames, ((0, 0), (left, 0), (0, 0)), constant_values=255), bands(rows, _WIDTH_PX)]
        parts.append(legend(_WIDTH_PX, names) if names else draw.text_block([("no class", draw.GREY)], _WIDTH_PX))
        sure = [("probability of the likeliest class", probs.max(axis=1).tolist(), draw.BLUE)]
        parts.append(curves(sure, _WIDTH_PX, _CHART_PX, below="frames"))
        return draw.stack(parts)

    def plots(self, predictions: Mapping[str, Prediction], truths: Mapping[str, Truth]) -> list[Plot]:
        items = [(key, key, predictions[key], truths[key]) for key in sorted(truths)]
        names = self.task.data.classes
        (precision,) = FrameMeanAP(names, each=True).measure_items(items)
        (accuracy,) = FrameAccuracy(by_distance=True).measure_items(items)
        errors = [(d, accuracy.values[f"error/after {d}"]) for d in range(DISTANCES)]
        errors = [(distance, share) for distance, share in errors if share == share]  # none is that far from a change
        shares = sorted(((name, precision.values[f"AP/{name}"]) for name in names), key=lambda row: -row[1])
        columns = ("frames after a change", "share that is wrong")
        pairs = [
            (names[true], names[said])
            for _, _, prediction, truth in items
            for labels, said in zip(truth["labels"], prediction["probs"].argmax(axis=1), strict=True)
            for true in np.flatnonzero(labels)[:1]
        ]
        return [
            Plot(
                name="error_after_change", kind="curve", columns=columns, rows=errors, x=columns[0], y=columns[1],
                title="Errors after the class has changed",
            ),
            _plots.confusion_of_pairs("confusion", pairs, shown=_NUM_SHOWN, title="Frames"),
            _plots.bar("class_precision", ("class", "average precision"), shares[:60]),
        ]  # fmt: skip


def _layers(labels: np.ndarray) -> list[list[int]]:
    """(T, C) bool -> bands of one label a frame (0: none), as many as a frame has classes at most, one at least."""
    places = [(np.flatnonzero(row) + 1).tolist() for row in labels]
    most = max([1, *map(len, places)])
    return [[row[i] if i < len(row) else 0 for row in places] for i in range(min(most, 4))]
