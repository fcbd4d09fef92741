"""Object detection: boxes with class and score. Shapes and rules: `lightning_modules/base/object_task.py`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from lightning_modules.base.families import DetectorSpec
from lightning_modules.base.object_task import ObjectConfig, ObjectTask, class_ap_plot, curve_plot, error_plot
from lightning_modules.base.task import Plot, Prediction, Truth
from lightning_modules.metrics.measurement import Measurement
from lightning_modules.metrics.objects import coco_evaluation, voc_curves
from lightning_modules.metrics.voc_map import measure_voc


class Task(ObjectTask):
    """Metrics: VOC's mean AP at IoU 0.5, `mAP_2010` (all points, VOC2010 and later) and `mAP_2007` (11 points); COCO's
    twelve numbers `AP`, `AP50`, .."""

    @dataclass(frozen=True, kw_only=True)
    class Config(ObjectConfig):
        """Nothing beside the shared settings."""

    requires = ("num_objects",)
    eval_requires = ()
    spec_class = DetectorSpec
    metric = "mAP_2010"
    with_masks = False

    def measure(
        self, predictions: Mapping[str, Prediction], truths: Mapping[str, Truth], *, thorough: bool = False
    ) -> list[Measurement]:
        curves = voc_curves(predictions, truths, self.data.classes)
        coco = coco_evaluation(predictions, truths, self.data.classes, "bbox")
        return [measure_voc(curves, sorted(truths)), coco.measure()]

    def plots(self, predictions: Mapping[str, Prediction], truths: Mapping[str, Truth]) -> list[Plot]:
        curves = voc_curves(predictions, truths, self.data.classes)
        measured = {name: curve for name, curve in curves.items() if curve.num_objects}
        return [
            curve_plot("pr_curve", "IoU 0.5", {name: (c.recall, c.precision) for name, c in measured.items()}),
            class_ap_plot("class_ap", "AP50", {name: curve.ap_all_points() for name, curve in measured.items()}),
            self.confusion_plot(predictions, truths, "bbox"),
            error_plot("errors", coco_evaluation(predictions, truths, self.data.classes, "bbox").errors()),
        ]
