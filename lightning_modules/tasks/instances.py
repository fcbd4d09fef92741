"""Instance segmentation: boxes and masks. Shapes and rules: `lightning_modules/base/object_task.py`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from lightning_modules.base.families import InstanceSegmenterSpec
from lightning_modules.base.object_task import ObjectConfig, ObjectTask
from lightning_modules.base.task import Prediction, Truth
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
