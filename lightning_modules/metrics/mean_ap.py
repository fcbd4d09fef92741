"""Average precision of detected objects as `torchmetrics.Metric`: COCO's twelve numbers, and VOC's mean AP.

An item is an image. Prediction: `boxes` (D, 4) `(x1, y1, x2, y2)` in pixels, half-open; `labels` (D,) int, 1..C;
`scores` (D,); for masks `masks`: (D, H, W) 0/1, or D COCO run lengths (the `counts` texts).
Truth: `boxes` (N, 4), `labels` (N,); where known `areas` (N,) of the segments, by which COCO tells sizes apart (the
boxes' if absent), `is_crowd` (N,) and `is_difficult` (N,) bool, what is not to be found (none if absent); for masks
`masks` as above, an empty text for an object without one, and with run lengths `size` (H, W).
Arrays or tensors on any device.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any, Literal

import numpy as np

from contracts.errors import DataError
from lightning_modules.metrics.item_metric import Id, Item, ItemMetric, array, by_groups, part
from lightning_modules.metrics.measurement import Measurement
from lightning_modules.metrics.objects import IouType, coco_evaluation, voc_curves
from lightning_modules.metrics.voc_map import measure_voc
from lightning_modules.ops.masks import encode_masks

_Side = Literal["prediction", "truth"]


class ObjectMetric(ItemMetric):
    """A metric of detected objects.

    Args:
        class_names: of the labels 1, 2, ..
        **settings: of `ItemMetric` and `torchmetrics.Metric`.
    """

    def __init__(self, class_names: Sequence[str], **settings: Any):
        super().__init__(**settings)
        self.class_names = tuple(class_names)

    @property
    def layout(self) -> str:
        return "objects"

    def keep(self, prediction: Item, truth: Item) -> tuple[Item, Item]:
        found, objects = _columns(prediction, "prediction"), _columns(truth, "truth")
        found["scores"] = array(prediction, "scores", "prediction", (len(found["labels"]),))
        count, boxes = len(objects["labels"]), objects["boxes"]
        areas = (boxes[:, 2:] - boxes[:, :2]).astype(np.float64).prod(axis=1)
        objects["areas"] = array(truth, "areas", "truth", (count,)) if "areas" in truth else areas
        for name in ("is_crowd", "is_difficult"):
            known = name in truth
            objects[name] = array(truth, name, "truth", (count,)).astype(bool) if known else np.zeros(count, bool)
        found["size"] = objects["size"]
        return found, objects


class CocoMeanAP(ObjectMetric):
    """`AP` `AP50` `AP75` `APs` `APm` `APl` `AR1` `AR10` `AR100` `ARs` `ARm` `ARl`, fractions in 0..1, as pycocotools
    gives them (1405.0312), through hotcoco.

    Args:
        iou_type: "bbox" or "segm", what is compared.
        prefix: of the names, such as "mask_".
    """

    def __init__(self, class_names: Sequence[str], iou_type: IouType = "bbox", *, prefix: str = "", **settings: Any):
        super().__init__(class_names, **settings)
        self.iou_type, self.prefix = iou_type, prefix

    def measure_kept(self, kept: Mapping[Id, tuple[Item, Item]], groups: Mapping[Id, Hashable]) -> list[Measurement]:
        found, objects = _by_side(kept)
        for key in kept if self.iou_type == "segm" else ():
            for side, item in (("prediction", found[key]), ("truth", objects[key])):
                if len(item["masks"]) != len(item["labels"]):
                    raise DataError(f"a {side} without a mask for each box", where=f"item {key!r}")
        return by_groups(
            [coco_evaluation(found, objects, self.class_names, self.iou_type).measure(self.prefix)], groups
        )


class VOCMeanAP(ObjectMetric):
    """`mAP_2010` (all points, VOC2010 and later) and `mAP_2007` (11 points), fractions in 0..1, as VOCevaldet.m gives
    them (Everingham et al., 2010).

    Args:
        iou_threshold: the kit's is 0.5.
    """

    def __init__(self, class_names: Sequence[str], *, iou_threshold: float = 0.5, **settings: Any):
        super().__init__(class_names, **settings)
        self.iou_threshold = iou_threshold

    def measure_kept(self, kept: Mapping[Id, tuple[Item, Item]], groups: Mapping[Id, Hashable]) -> list[Measurement]:
        found, objects = _by_side(kept)
        curves = voc_curves(found, objects, self.class_names, iou_threshold=self.iou_threshold)
        return by_groups([measure_voc(curves, list(objects), iou_threshold=self.iou_threshold)], groups)


def _columns(item: Item, side: _Side) -> dict[str, Any]:
    """`boxes`, `labels`, `masks` (run lengths, or none) and `size`, (0, 0) where it is not known."""
    labels = array(item, "labels", side, (-1,)).astype(np.int64)
    boxes = array(item, "boxes", side, (len(labels) or -1, 4))
    masks = part(item, "masks", side) if "masks" in item else []
    size = tuple(int(length) for length in part(item, "size", side)) if "size" in item else (0, 0)
    if isinstance(masks, np.ndarray):
        size, masks = (size if masks.ndim != 3 else masks.shape[1:]), encode_masks(masks)
    return {"boxes": boxes, "labels": labels, "masks": list(masks), "size": size}


def _by_side(kept: Mapping[Id, tuple[Item, Item]]) -> tuple[dict[Any, Item], dict[Any, Item]]:
    return {key: found for key, (found, _) in kept.items()}, {key: objects for key, (_, objects) in kept.items()}
