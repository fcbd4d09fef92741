"""Object detection: boxes with class and score. Shapes and rules: `lightning_modules/base/object_task.py`."""

from __future__ import annotations

from dataclasses import dataclass

from lightning_modules.base.families import DetectorSpec
from lightning_modules.base.object_task import ObjectConfig, ObjectTask
from lightning_modules.metrics.item_metric import ItemMetric
from lightning_modules.metrics.mean_ap import CocoMeanAP, VOCMeanAP


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

    def metrics(self, *, thorough: bool = False) -> list[ItemMetric]:
        return [VOCMeanAP(self.data.classes), CocoMeanAP(self.data.classes)]
