"""Instance segmentation: boxes and masks. Shapes and rules: `lightning_modules/base/object_task.py`."""

from __future__ import annotations

from dataclasses import dataclass

from lightning_modules.base.families import InstanceSegmenterSpec
from lightning_modules.base.object_task import ObjectConfig, ObjectTask
from lightning_modules.metrics.item_metric import ItemMetric
from lightning_modules.metrics.mean_ap import CocoMeanAP
from lightning_modules.metrics.objects import IouType

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

    def metrics(self, *, thorough: bool = False) -> list[ItemMetric]:
        return [CocoMeanAP(self.data.classes, iou_type, prefix=f"{kind}_") for kind, iou_type in KINDS.items()]
