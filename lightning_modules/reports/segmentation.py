"""Segmentation: confusions, IoU by class, and where the wrong pixels lie."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from contracts.records import IGNORE_INDEX, Record
from lightning_modules.augment.images import decode_record, decode_semantic
from lightning_modules.base.pixel_task import PixelTask, encode_label_map
from lightning_modules.base.task import Prediction, Truth
from lightning_modules.drawing.shapes import draw_label_map, enlarge, enlargement, legend, panels, text_scale
from lightning_modules.metrics.segmentation import BOUNDARY_PX, ERROR_KINDS, class_ious, count_errors
from lightning_modules.metrics.segmentation_scores import confusion_matrix
from lightning_modules.reports import _plots
from lightning_modules.reports._plots import Plot
from lightning_modules.reports._report import BaseReport


class Report(BaseReport[PixelTask]):
    def constant(self, truths: Mapping[str, Truth]) -> dict[str, Prediction]:
        """Background everywhere."""
        shapes = {key: decode_semantic(truth["label_map"]).shape for key, truth in truths.items()}
        return {key: {"label_map": encode_label_map(np.zeros(shape, np.uint8))} for key, shape in shapes.items()}

    def picture(self, record: Record, predictions: Sequence[Prediction], truths: Sequence[Truth] | None) -> np.ndarray:
        (prediction,) = predictions
        image = decode_record(record)
        maps = [decode_semantic(prediction["label_map"])]
        titles = ["image", "predicted"]
        if truths is not None:
            (truth,) = truths
            maps.append(decode_semantic(truth["label_map"]))
            titles.append("truth (grey: ignored)")
        drawn = [enlarge(image, enlargement(image)), *(draw_label_map(image, m, IGNORE_INDEX) for m in maps)]
        picture = panels(drawn, titles)
        shown = sorted({int(label) for m in maps for label in np.unique(m)} - {0, IGNORE_INDEX})
        strip = legend(picture.shape[1], [(label, self.task.class_names[label]) for label in shown], text_scale(image))
        return np.concatenate([picture, strip])

    def plots(self, predictions: Mapping[str, Prediction], truths: Mapping[str, Truth]) -> list[Plot]:
        names = self.task.class_names
        matrix = np.zeros((len(names), len(names)), np.int64)
        for key, truth in truths.items():
            predicted = decode_semantic(predictions[key]["label_map"])
            matrix += confusion_matrix(decode_semantic(truth["label_map"]), predicted, len(names))
        ious = [(n, float(v)) for n, v in zip(names, class_ious(matrix), strict=True) if not np.isnan(v)]
        return [
            _plots.confusion_of_matrix("confusion", names, matrix, title="pixels"),
            _plots.bar("class_iou", ("class", "iou"), ious),
            _error_plot(predictions, truths, int(matrix.sum())),
        ]


def _error_plot(predictions: Mapping[str, Prediction], truths: Mapping[str, Truth], num_pixels: int) -> Plot:
    counts = np.zeros((len(ERROR_KINDS), 2), np.int64)
    for key, truth in truths.items():
        predicted = decode_semantic(predictions[key]["label_map"])
        counts += count_errors(decode_semantic(truth["label_map"]), predicted)
    places = (f"within {BOUNDARY_PX} px", "farther")
    rows = [
        (f"{kind}, {place}", int(counts[i, j]) / max(1, num_pixels))
        for i, kind in enumerate(ERROR_KINDS)
        for j, place in enumerate(places)
    ]
    title = "Wrong pixels by kind and distance from a boundary, as a share of all"
    return _plots.bar("errors", ("error", "share"), rows, title=title)
