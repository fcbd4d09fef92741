"""Instance segmentation: boxes and masks. Shapes and rules: `lightning_modules/object_task.py`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from lightning_modules.metrics.coco_map import CocoEvaluation
from lightning_modules.metrics.objects import coco_evaluation
from lightning_modules.object_task import ObjectConfig, ObjectTask, curve_plot
from lightning_modules.task import Plot, Prediction, Truth


class Task(ObjectTask):
    """Scores: COCO's twelve numbers for boxes (`box_AP`, ..) and for masks (`mask_AP`, ..), without those of object
    sizes that the split does not have."""

    @dataclass(frozen=True, kw_only=True)
    class Config(ObjectConfig):
        """Nothing beside the shared settings."""

    requires = ("num_masks",)
    eval_requires = ()
    metric = "mask_AP50"
    with_masks = True

    def score(self, predictions: Mapping[str, Prediction], truths: Mapping[str, Truth]) -> dict[str, float]:
        scores: dict[str, float] = {}
        measured = {
            "box": self._evaluation(predictions, truths, "bbox"),
            "mask": self._evaluation(predictions, truths, "segm"),
        }
        for prefix, evaluation in measured.items():
            stats = evaluation.stats()
            scores |= {f"{prefix}_{name}": value for name, value in stats.items() if not math.isnan(value)}
        return scores

    def plots(self, predictions: Mapping[str, Prediction], truths: Mapping[str, Truth]) -> list[Plot]:
        masks = self._evaluation(predictions, truths, "segm")
        names = dict(enumerate(self.data.classes, 1))
        curves = {name: masks.pr_points(label) for label, name in names.items()}
        measured = {label: ap for label, ap in masks.class_ap(iou=0.5).items() if not math.isnan(ap)}
        return [
            curve_plot("mask_pr_curve", "masks, IoU 0.5", {n: c for n, c in curves.items() if len(c[0])}),
            Plot(
                name="class_mask_ap",
                kind="bar",
                columns=("class", "mask_AP50"),
                rows=[(names[label], ap) for label, ap in measured.items()],
                x="class",
                y="mask_AP50",
            ),
        ]

    def _evaluation(
        self, predictions: Mapping[str, Prediction], truths: Mapping[str, Truth], iou_type: Literal["bbox", "segm"]
    ) -> CocoEvaluation:
        return coco_evaluation(predictions, truths, len(self.data.classes), iou_type)
