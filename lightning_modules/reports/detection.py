"""Detection: precision over recall, AP by class, confusions and kinds of errors."""

from __future__ import annotations

from collections.abc import Mapping

from lightning_modules.base.task import Prediction, Truth
from lightning_modules.metrics.objects import coco_evaluation, voc_curves
from lightning_modules.reports import _plots
from lightning_modules.reports._objects import ObjectReport, errors
from lightning_modules.reports._plots import Plot


class Report(ObjectReport):
    def plots(self, predictions: Mapping[str, Prediction], truths: Mapping[str, Truth]) -> list[Plot]:
        classes = self.task.data.classes
        curves = voc_curves(predictions, truths, classes)
        measured = {name: curve for name, curve in curves.items() if curve.num_objects}
        points = {name: (curve.recall, curve.precision) for name, curve in measured.items()}
        aps = [(name, curve.ap_all_points()) for name, curve in measured.items()]
        return [
            _plots.precision_recall("pr_curve", "IoU 0.5", points),
            _plots.bar("class_ap", ("class", "AP50"), aps),
            self.confusion(predictions, truths, "bbox"),
            errors("errors", coco_evaluation(predictions, truths, classes, "bbox").errors()),
        ]
