"""COCO average precision and recall through faster-coco-eval, which gives pycocotools' numbers.

Inputs are COCO's JSON objects (ids, `bbox` as `[x, y, width, height]`, `area`, `iscrowd`, RLE `segmentation`).
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from faster_coco_eval import COCO
from faster_coco_eval.core.faster_eval_api import COCOeval_faster

STAT_NAMES = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")


class CocoEvaluation:
    """Every image is evaluated, with or without detections. Ids of images and annotations are renumbered from 1:
    the official code takes an annotation id of 0 for "no match".

    Args:
        images: id -> (height, width) of all images of the split; a foreign id elsewhere is an error (KeyError).
        annotations: with `image_id`, `category_id`, `bbox`, `area`, `iscrowd` (and `segmentation`).
        results: with `image_id`, `category_id`, `score` and `bbox` or `segmentation`.
        category_ids: all classes; one without annotations counts in no mean.
        iou_type: what overlaps are measured on.
    """

    def __init__(
        self,
        images: Mapping[Any, tuple[int, int]],
        annotations: Sequence[Mapping[str, Any]],
        results: Sequence[Mapping[str, Any]],
        category_ids: Sequence[int],
        *,
        iou_type: Literal["bbox", "segm"],
    ):
        self.category_ids = list(category_ids)
        self._precision: np.ndarray | None = None
        self._stats = dict.fromkeys(STAT_NAMES, 0.0) | _absent_sizes(annotations)
        if results and annotations:
            self._evaluate(images, annotations, results, iou_type)

    def stats(self) -> dict[str, float]:
        """The twelve official numbers; 0 where nothing was detected or the split has no objects at all, NaN for a size
        that no object has."""
        return dict(self._stats)

    def class_ap(self, *, iou: float | None = None) -> dict[int, float]:
        """AP by category id, at one IoU of 0.5, 0.55, .., 0.95 or their mean; NaN without objects."""
        out: dict[int, float] = {}
        for i, category in enumerate(self.category_ids):
            values = np.zeros(1) if self._precision is None else self._values(i, iou)
            out[category] = float(values.mean()) if len(values) else float("nan")
        return out

    def pr_points(self, category_id: int) -> tuple[np.ndarray, np.ndarray]:
        """Recall 0, 0.01, .., 1 and the precision there at IoU 0.5: (101,) each; empty without objects."""
        if self._precision is None:
            return np.zeros(0), np.zeros(0)
        precision = self._precision[0, :, self.category_ids.index(category_id), 0, -1]
        return (np.zeros(0), np.zeros(0)) if precision[0] < 0 else (np.linspace(0, 1, 101), precision)

    def _values(self, category_index: int, iou: float | None) -> np.ndarray:
        assert self._precision is not None
        precision = self._precision[:, :, category_index, 0, -1]  # (10 IoUs, 101 recalls), all sizes, 100 detections
        if iou is not None:
            precision = precision[[round((iou - 0.5) / 0.05)]]
        return precision[precision > -1]

    def _evaluate(
        self,
        images: Mapping[Any, tuple[int, int]],
        annotations: Sequence[Mapping[str, Any]],
        results: Sequence[Mapping[str, Any]],
        iou_type: str,
    ) -> None:
        # In the order of the ids, as the official code goes through them: it decides between equal scores.
        numbers = {image_id: i for i, image_id in enumerate(sorted(images), 1)}
        truth = {
            "images": [{"id": numbers[key], "height": h, "width": w} for key, (h, w) in images.items()],
            "annotations": [{**a, "id": i, "image_id": numbers[a["image_id"]]} for i, a in enumerate(annotations, 1)],
            "categories": [{"id": c, "name": str(c)} for c in self.category_ids],
        }
        found = [{**r, "image_id": numbers[r["image_id"]]} for r in results]
        with contextlib.redirect_stdout(io.StringIO()):  # the library reports its progress there
            coco = COCO(truth)
            evaluation = COCOeval_faster(coco, coco.loadRes(found), iou_type, print_function=lambda *_: None)
            evaluation.evaluate()
            evaluation.accumulate()
            evaluation.summarize()
        self._precision = evaluation.eval["precision"]
        self._stats = {
            name: float(value) if value > -1 else self._stats[name]
            for name, value in zip(STAT_NAMES, evaluation.stats[:12], strict=True)
        }


def _absent_sizes(annotations: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """NaN for AP and AR of the sizes (bounds inclusive, as COCO has them) that no object to be found has."""
    areas = np.array([a["area"] for a in annotations if not a["iscrowd"]], np.float64)
    bounds = {"s": (0, 32**2), "m": (32**2, 96**2), "l": (96**2, 1e10)}
    absent = [size for size, (low, high) in bounds.items() if not ((areas >= low) & (areas <= high)).any()]
    return {kind + size: float("nan") for size in absent for kind in ("AP", "AR")}
