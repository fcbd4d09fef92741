"""What detection and instance segmentation have in common: everything but masks and given regions.

Batch: `images` (B, 3, S, S) uint8 channels_last, letterboxed; `sizes` B x (height, width) of the content from the
upper left corner; `original_sizes` B x (H, W); of all images one after the other, `num_objects` (B ints) of each:
`boxes` (N, 4) float32, `labels` (N,) int64 and with masks `masks` (N, S, S) uint8 of the objects to learn; and
`num_ignored` (B ints) of each: `ignored` (K, 4) float32. None in prediction. For a model that does not look for regions
itself `regions` (R, 4) float32, best first, `num_regions` (B ints) of each, in prediction, too.
Prediction: `boxes` (D, 4) float32 in original pixels, `labels` (D,) int64, `scores` (D,) float32 falling,
`size` (H, W), and with masks `masks`: D counts strings (COCO run lengths of that size).
Truth: `boxes`, `labels`, `areas`, `is_crowd`, `is_difficult`, `size`, `masks` as in `contracts.records.Objects`.

Objects that are not learnt: crowds, VOC's difficult ones, with masks those without a mask, and what augmentation shows
too little of. They are no positives, and what lies in them is no negative either (`blocks/rcnn.py`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from contracts.ranges import SHARE, Range, check_ranges
from contracts.records import DataSpec, Objects, Record
from lightning_modules.augment.augment import Augment, AugmentConfig
from lightning_modules.base.families import DetectorSpec, InstanceSegmenterSpec, RegionDetectorSpec, Spec
from lightning_modules.base.task import BaseTask, Batch, Example, Mean, Prediction, Truth
from lightning_modules.blocks.pixels import stack_images
from lightning_modules.ops.boxes import to_original
from lightning_modules.ops.masks import decode_masks, encode_masks, paste_masks


@dataclass(frozen=True, kw_only=True)
class ObjectConfig:
    """`image_size` is the side in pixels of the square that images are letterboxed into.
    `picture_score` is the lowest score that is drawn or answered; metrics use every detection."""

    image_size: int = 128
    picture_score: float = 0.5
    augment: AugmentConfig = field(default=AugmentConfig(horizontal_flip=0.5))

    def __post_init__(self) -> None:
        check_ranges(self, image_size=Range(32), picture_score=SHARE)


class ObjectTask(BaseTask):
    """Base of the tasks that find objects. `with_masks` says whether masks are learnt and predicted."""

    with_masks: ClassVar[bool]
    spec_class: ClassVar[type[DetectorSpec | InstanceSegmenterSpec | RegionDetectorSpec]]
    config: ObjectConfig

    def __init__(self, config: ObjectConfig, data: DataSpec):
        super().__init__(config, data)
        self._augment = Augment(config.augment, size=config.image_size, mode="letterbox")

    def spec(self) -> Spec:
        return self.spec_class(num_foreground_classes=len(self.data.classes), image_size=self.config.image_size)

    # records to tensors

    def regions(self, record: Record) -> np.ndarray | None:
        """Boxes (R, 4) float32 in the record's pixels, best first, that the model is to look at; None: it finds them
        itself. Override where it does not."""
        return None

    def encode(self, record: Record, seed: int | None) -> Example:
        objects, regions = record.objects, self.regions(record)
        masks, has_mask = None, np.ones(len(objects), bool)
        if self.with_masks:
            has_mask = np.array([bool(text) for text in objects.masks], bool)
            masks = np.zeros((len(objects), record.height, record.width), np.uint8)
            masks[has_mask] = decode_masks([text for text in objects.masks if text], (record.height, record.width))
            masks = self._fill_missing(masks, objects, has_mask)
        frame = (record.height, record.width)
        changed = self._augment(record.image, frame, seed=seed, boxes=objects.boxes, masks=masks, proposals=regions)
        learnt = (~objects.is_crowd & ~objects.is_difficult & has_mask)[changed.indices]
        example = {
            "image": changed.image,
            "size": changed.content_size if seed is None else changed.image.shape[:2],
            "original_size": frame,
            "boxes": changed.boxes[learnt],
            "labels": objects.labels[changed.indices][learnt],
            "ignored": np.concatenate([changed.boxes[~learnt], changed.hidden]),
        }
        if changed.masks is not None:
            example["masks"] = changed.masks[learnt]
        if regions is not None:
            example["regions"] = changed.proposals
        return example

    @staticmethod
    def _fill_missing(masks: np.ndarray, objects: Objects, has_mask: np.ndarray) -> np.ndarray:
        """An object without a mask gets its box as one: only a region to ignore, but it must survive augmentation."""
        for i in np.flatnonzero(~has_mask):
            x1, y1 = np.floor(objects.boxes[i, :2]).astype(int)
            x2, y2 = np.ceil(objects.boxes[i, 2:]).astype(int)
            masks[i, y1:y2, x1:x2] = 1
        return masks

    def collate(self, examples: Sequence[Example]) -> Batch:
        # Columns, not a dict an image: what a batch holds is put into shared memory, pinned and sent as a few tensors.
        names = ["boxes", "labels", "ignored", *(name for name in ("masks", "regions") if name in examples[0])]
        counts = {"num_regions": [len(e["regions"]) for e in examples]} if "regions" in names else {}
        return {
            "images": stack_images([e["image"] for e in examples]),
            "sizes": [e["size"] for e in examples],
            "original_sizes": [e["original_size"] for e in examples],
            "num_objects": [len(e["labels"]) for e in examples],
            "num_ignored": [len(e["ignored"]) for e in examples],
            **counts,
            **{name: torch.from_numpy(np.concatenate([e[name] for e in examples])) for name in names},
        }

    def truths(self, record: Record) -> list[Truth]:
        o = record.objects
        return [
            {
                "boxes": o.boxes,
                "labels": o.labels,
                "areas": o.areas,
                "is_crowd": o.is_crowd,
                "is_difficult": o.is_difficult,
                "size": (record.height, record.width),
                "masks": list(o.masks) if self.with_masks else [],
            }
        ]

    # tensors to losses and predictions

    def losses(self, model: nn.Module, batch: Batch) -> dict[str, Mean]:
        return _per_image(model(*_given(batch), targets_of(batch), sizes=batch["sizes"])[0], batch)

    def predict(self, model: nn.Module, batch: Batch) -> list[Prediction]:
        return self._predictions(model(*_given(batch), sizes=batch["sizes"], detect=True)[1], batch)

    def evaluate_batch(self, model: nn.Module, batch: Batch) -> tuple[dict[str, Mean], list[Prediction]]:
        losses, detections = model(*_given(batch), targets_of(batch), sizes=batch["sizes"], detect=True)
        return _per_image(losses, batch), self._predictions(detections, batch)

    def _predictions(self, detections: list[dict[str, Tensor]], batch: Batch) -> list[Prediction]:
        out: list[Prediction] = []
        for detection, size, original in zip(detections, batch["sizes"], batch["original_sizes"], strict=True):
            boxes = to_original(detection["boxes"].float().cpu().numpy(), tuple(size), tuple(original))
            prediction: Prediction = {
                "boxes": boxes,
                "labels": detection["labels"].cpu().numpy().astype(np.int64),
                "scores": detection["scores"].float().cpu().numpy(),
                "size": (int(original[0]), int(original[1])),
            }
            if self.with_masks:
                masks = paste_masks(detection["masks"].float().cpu(), torch.from_numpy(boxes), prediction["size"])
                prediction["masks"] = encode_masks(masks)
            out.append(prediction)
        return out

    # what a user sees

    def class_name(self, label: int) -> str:
        return self.data.classes[int(label) - 1]

    def answer(self, prediction: Prediction) -> dict[str, Any]:
        objects = []
        for i in np.flatnonzero(prediction["scores"] >= self.config.picture_score):
            found: dict[str, Any] = {
                "label": self.class_name(prediction["labels"][i]),
                "score": round(float(prediction["scores"][i]), 4),
                "box": [round(float(v), 2) for v in prediction["boxes"][i]],
            }
            if self.with_masks:
                found["mask"] = {"size": list(prediction["size"]), "counts": prediction["masks"][i]}
            objects.append(found)
        return {"objects": objects}


def _given(batch: Batch) -> tuple[Any, ...]:
    """What every call of the model begins with: the images, and B x (R_i, 4) regions where there are any."""
    regions = (batch["regions"].split(batch["num_regions"]),) if "regions" in batch else ()
    return (batch["images"], *regions)


def targets_of(batch: Batch) -> list[dict[str, Tensor]]:
    """What a detector takes (`blocks/rcnn.py`): one dict an image, of views. How many objects each has is known on the
    CPU, so that nothing waits for a GPU."""
    columns = {
        name: batch[name].split(batch["num_ignored" if name == "ignored" else "num_objects"])
        for name in ("boxes", "labels", "ignored", "masks")
        if name in batch
    }
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def _per_image(losses: Mapping[str, Tensor], batch: Batch) -> dict[str, Mean]:
    """A detector's losses are means over what it samples of an image, so that each image counts as one."""
    return {name: Mean(total, len(batch["images"])) for name, total in losses.items()}
