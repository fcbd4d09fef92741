"""Object detection: boxes with class and score. Shapes and rules: `lightning_modules/object_task.py`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from lightning_modules.metrics.objects import coco_evaluation, object_confusion, voc_curves
from lightning_modules.metrics.voc_map import mean_ap
from lightning_modules.object_task import ObjectConfig, ObjectTask, curve_plot
from lightning_modules.task import Plot, Prediction, Truth


class Task(ObjectTask):
    """Scores: `AP50`, VOC's all-point mean AP at IoU 0.5 (VOC2010 and later); `mAP_2007`, its VOC2007 form;
    `coco_AP` (IoU 0.50 to 0.95) and `coco_AP50`."""

    @dataclass(frozen=True, kw_only=True)
    class Config(ObjectConfig):
        """Nothing beside the shared settings."""

    requires = ("num_objects",)
    eval_requires = ()
    metric = "AP50"
    with_masks = False

    def score(self, predictions: Mapping[str, Prediction], truths: Mapping[str, Truth]) -> dict[str, float]:
        num_classes = len(self.data.classes)
        curves = voc_curves(predictions, truths, num_classes)
        coco = coco_evaluation(predictions, truths, num_classes, "bbox").stats()
        return {
            "AP50": mean_ap([c.ap_all_points() for c in curves]),
            "mAP_2010": mean_ap([c.ap_all_points() for c in curves]),
            "mAP_2007": mean_ap([c.ap_11_points() for c in curves]),
            "coco_AP": coco["AP"],
            "coco_AP50": coco["AP50"],
        }

    def plots(self, predictions: Mapping[str, Prediction], truths: Mapping[str, Truth]) -> list[Plot]:
        names = self.data.classes
        curves = dict(zip(names, voc_curves(predictions, truths, len(names)), strict=True))
        measured = {name: curve for name, curve in curves.items() if curve.num_objects}
        matrix = object_confusion(predictions, truths, len(names), min_score=self.config.picture_score)
        labels = ("background", *names)
        return [
            curve_plot("pr_curve", "IoU 0.5", {name: (c.recall, c.precision) for name, c in measured.items()}),
            Plot(
                name="class_ap",
                kind="bar",
                columns=("class", "AP50"),
                rows=[(name, curve.ap_all_points()) for name, curve in measured.items()],
                x="class",
                y="AP50",
            ),
            Plot(
                name="confusion",
                kind="confusion",
                columns=("truth", "predicted", "count"),
                rows=[(t, p, int(matrix[i, j])) for i, t in enumerate(labels) for j, p in enumerate(labels)],
                x="predicted",
                y="truth",
                title=f"objects, IoU 0.5, score >= {self.config.picture_score:g}",
            ),
        ]
