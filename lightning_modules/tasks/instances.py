"""Instance segmentation: boxes and masks. Shapes and rules: `lightning_modules/base/object_task.py`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from lightning_modules.base.families import InstanceSegmenterSpec
from lightning_modules.base.object_task import ObjectConfig, ObjectTask, class_ap_plot, curve_plot, error_plot
from lightning_modules.base.task import Plot, Prediction, Truth
from lightning_modules.metrics.measurement import Measurement
from lightning_modules.metrics.objects import IouType, coco_evaluation

KINDS: dict[str, IouType] = {"box": "bbox", "mask": "segm"}


class Task(ObjectTask):
    """Metrics: COCO's twelve numbers for boxes (`box_AP`, ..) and for masks (`mask_AP`, ..), without those of object
    sizes that the split does not have."""

    @dataclass(frozen=True, kw_only=True)
    class Config(ObjectConfig):
        """Nothing beside the shared settings."""

    requires = ("num_masks",)
    eval_requires = ()
    spec_class = InstanceSegmenterSpec
    metric = "mask_AP50"
    with_masks = True

    def measure(
        self, predictions: Mapping[str, Prediction], truths: Mapping[str, Truth], *, thorough: bool = False
    ) -> list[Measurement]:
        return [
            coco_evaluation(predictions, truths, self.data.classes, iou_type).measure(f"{kind}_")
            for kind, iou_type in KINDS.items()
        ]

    def plots(self, predictions: Mapping[str, Prediction], truths: Mapping[str, Truth]) -> list[Plot]:
        plots: list[Plot] = []
        for kind, iou_type in KINDS.items():
            evaluation = coco_evaluation(predictions, truths, self.data.classes, iou_type)
            names = dict(enumerate(self.data.classes, 1))
            curves = {name: evaluation.pr_points(label) for label, name in names.items()}
            measured = {names[label]: ap for label, ap in evaluation.class_ap(iou=0.5).items() if not math.isnan(ap)}
            plots += [
                curve_plot(f"{kind}_pr_curve", f"{kind}, IoU 0.5", {n: c for n, c in curves.items() if len(c[0])}),
                class_ap_plot(f"class_{kind}_ap", f"{kind}_AP50", measured),
                error_plot(f"{kind}_errors", evaluation.errors()),
            ]
        return [*plots, self.confusion_plot(predictions, truths, "segm")]
