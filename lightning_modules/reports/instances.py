"""Instance segmentation: precision over recall, AP by class and kinds of errors, of boxes and of masks."""

from __future__ import annotations

import math
from collections.abc import Mapping

from lightning_modules.base.task import Prediction, Truth
from lightning_modules.metrics.objects import coco_evaluation
from lightning_modules.reports import _plots
from lightning_modules.reports._objects import ObjectReport, errors
from lightning_modules.reports._plots import Plot
from lightning_modules.tasks.instances import KINDS


class Report(ObjectReport):
    def plots(self, predictions: Mapping[str, Prediction], truths: Mapping[str, Truth]) -> list[Plot]:
        plots: list[Plot] = []
        names = dict(enumerate(self.task.data.classes, 1))
        for kind, iou_type in KINDS.items():
            evaluation = coco_evaluation(predictions, truths, self.task.data.classes, iou_type)
            curves = {name: evaluation.pr_points(label) for label, name in names.items()}
            points = {name: curve for name, curve in curves.items() if len(curve[0])}
            aps = [(names[label], ap) for label, ap in evaluation.class_ap(iou=0.5).items() if not math.isnan(ap)]
            plots += [
                _plots.precision_recall(f"{kind}_pr_curve", f"{kind}, IoU 0.5", points),
                _plots.bar(f"class_{kind}_ap", ("class", f"{kind}_AP50"), aps),
                errors(f"{kind}_errors", evaluation.errors()),
            ]
        return [*plots, self.confusion(predictions, truths, "segm")]
