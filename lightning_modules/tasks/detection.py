"""Object detection: boxes with class and score. Shapes and rules: `lightning_modules/base/object_task.py`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from lightning_modules.base.families import DetectorSpec
from lightning_modules.base.object_task import ObjectConfig, ObjectTask
from lightning_modules.base.task import Prediction, Truth
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
