"""Semantic segmentation of crops: a network looks at one region at a time, as DeconvNet (1505.04366) does.

Training takes crops of two kinds, one run after the other (the authors' stages, `window_seg_data_layer.cpp`): around an
object, with no class but its own, then of proposals, with all classes. A picture is answered from the crops of its
regions: each one's scores, enlarged to the region, and of all regions that see a pixel the largest score of each class
(`inference/generate_EDeconvNet_CRF_results.m`).

Otherwise than there: proposals are the record's, Selective Search's in place of EdgeBoxes'; the whole picture is always
one of the regions; each object, not each class, has as many training crops; no ensemble and no CRF.

Batch: of all records one after the other, `num_crops` (B ints) of each: `images` (N, 3, S, S) uint8 channels_last,
warped to S x S; `labels` (N, S, S) uint8, 255 ignored (also outside of the picture), absent in prediction; `windows`
(N, 4) float32, where they lie in the record, in its pixels; `counts`, the pixels not ignored; `original_sizes`
B x (H, W). Losses, predictions and truths: `lightning_modules/base/pixel_task.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from contracts.errors import ConfigError
from contracts.ranges import COUNT, Range, check_ranges
from contracts.records import IGNORE_INDEX, DataSpec, Record
from contracts.searching import Search
from contracts.seeds import derive_seed
from lightning_modules.augment.augment import Augment, AugmentConfig
from lightning_modules.augment.images import decode_image, decode_semantic
from lightning_modules.augment.shown import given_annotations, under_view
from lightning_modules.augment.view import Motion, View
from lightning_modules.base.pixel_task import PixelConfig, PixelTask, encode_label_map
from lightning_modules.base.task import Batch, Example, Prediction
from lightning_modules.blocks.pixels import stack, stack_images
from lightning_modules.ops.boxes import pairwise_ious
from lightning_modules.ops.proposing import search_regions

_LEAST_IOU = 0.5  # of a proposal that an object is learnt from
_NO_CROPS_OF_ITS_OWN = ("crop", "random_crop", "object_crop", "zoom_out")


class Task(PixelTask):
    """Metrics as of `segmentation`."""

    @dataclass(frozen=True, kw_only=True)
    class Config(PixelConfig):
        """
        Attributes:
            image_size: side S in pixels of the square that a crop is warped to.
            crops: what training shows: "objects", each in the middle of its crop and the only thing in it that is not
                background; or "proposals", those that overlap with an object by an IoU of 0.5, and its own box.
            crops_per_image: how many of them an epoch takes of a picture.
            margin: sides of an object's crop, as a multiple of its box's.
            cut: of the sides of a crop this share is shown in training, at a random place: 224 of 250 pixels.
            inference: "proposals" and the whole picture; or "whole", that alone.
            max_regions: of proposals so many of the best.
            min_side: proposals with a shorter side are passed over, in pixels of the record.
            search: for a picture without proposals, such as a new one that a trained model is asked about: as the data
                set's `proposals` say.

        Raises:
            ConfigError: a number out of range; an augmentation that crops.
        """

        image_size: int = 64
        augment: AugmentConfig = field(default=AugmentConfig(horizontal_flip=0.5))
        crops: Literal["objects", "proposals"] = "proposals"
        crops_per_image: int = 1
        margin: float = 1.2
        cut: float = 0.896
        inference: Literal["proposals", "whole"] = "proposals"
        max_regions: int = 50
        min_side: float = 0.0
        search: Search = field(default_factory=Search)

        def __post_init__(self) -> None:
            super().__post_init__()
            check_ranges(self, crops_per_image=COUNT, max_regions=COUNT, margin=Range(1), min_side=Range(0))
            check_ranges(self, cut=Range(0.1, 1))
            for name in _NO_CROPS_OF_ITS_OWN:
                if value := getattr(self.augment, name):
                    raise ConfigError(
                        "crops are made of regions here", value=value, where=f"augment.{name}",
                        fix="leave it out; `margin` and `cut` say how a region is cut out",
                    )  # fmt: skip

    requires = ("has_semantic", "num_objects")
    config: Config

    def __init__(self, config: Config, data: DataSpec):
        super().__init__(config, data)
        self._augment = Augment(config.augment, size=config.image_size, mode="stretch")

    # records to tensors

    def encode(self, record: Record, seed: int | None) -> Example:
        semantic = decode_semantic(record.semantic_mask) if record.semantic_mask else None
        if seed is not None:
            assert semantic is not None, "training requires it"
            return self._drawn(record, semantic, seed)
        frame, windows = (record.height, record.width), self._regions(record)
        image = decode_image(record.image)
        size = (self.config.image_size, self.config.image_size)
        images, labels = np.empty((len(windows), *size, 3), np.uint8), []
        for window, out in zip(windows, images, strict=True):
            motion = Motion(crop=_shares(window, frame))
            view = View(motion, frame=frame, stored=image.shape[:2], content=size, output=size)
            view.show_image(image, out, antialias=True)
            shown = under_view(view, given_annotations(None, None, semantic, None, None), clip=False)
            labels += [] if shown.semantic is None else [shown.semantic]
        example: Example = {"image": images, "windows": windows, "original_size": frame}
        return example | ({"labels": np.stack(labels)} if labels else {})

    def _regions(self, record: Record) -> np.ndarray:
        """(R, 4) float32 in whole pixels of the record, the whole picture last."""
        height, width = record.height, record.width
        whole = np.array([[0, 0, width, height]], np.float32)
        if self.config.inference == "whole":
            return whole
        if record.proposals is not None:
            boxes = record.proposals.boxes
        else:
            boxes = search_regions(record.image, (height, width), self.config.search)[0]
        boxes = np.concatenate([np.floor(boxes[:, :2]), np.ceil(boxes[:, 2:])], axis=1)
        boxes = boxes.clip(0, [width, height, width, height])
        boxes = boxes[(boxes[:, 2:] - boxes[:, :2]).min(axis=1, initial=np.inf) >= max(1.0, self.config.min_side)]
        return np.concatenate([boxes[: self.config.max_regions], whole]).astype(np.float32)

    def _drawn(self, record: Record, semantic: np.ndarray, seed: int) -> Example:
        """Crops of objects that are drawn, as many an object as the others."""
        rng = np.random.default_rng([seed, 1])
        frame, examples, windows = (record.height, record.width), [], []
        for i in range(self.config.crops_per_image):
            chosen = int(rng.choice(np.flatnonzero(~record.objects.is_crowd)))
            box, labels = record.objects.boxes[chosen].astype(np.float64), semantic
            if self.config.crops == "objects":
                labels = _alone(semantic, int(record.objects.labels[chosen]), box)
                window = _enlarged(box, self.config.margin)
            else:
                window = rng.choice(self._overlapping(record, box))
            window = _part(window, self.config.cut, rng.uniform(size=2))
            draw = self._augment.draw(derive_seed("crop", seed, i), frame)
            draw = replace(draw, motion=replace(draw.motion, crop=_shares(window, frame)))
            examples.append(self._augment.apply(draw, record.image, semantic=labels))
            windows.append(window)
        return {
            "image": np.stack([shown.image for shown in examples]),
            "labels": np.stack([shown.semantic for shown in examples if shown.semantic is not None]),
            "windows": np.array(windows, np.float32),
            "original_size": frame,
        }

    @staticmethod
    def _overlapping(record: Record, box: np.ndarray) -> np.ndarray:
        """(M, 4): the proposals that overlap with a box, and itself."""
        if record.proposals is None:
            return box[None]
        boxes = record.proposals.boxes.astype(np.float64)
        return np.concatenate([boxes[pairwise_ious(boxes, box[None])[:, 0] >= _LEAST_IOU], box[None]])

    def collate(self, examples: Sequence[Example]) -> Batch:
        batch: Batch = {
            "images": stack_images([image for e in examples for image in e["image"]]),
            "num_crops": [len(e["image"]) for e in examples],
            "windows": torch.from_numpy(np.concatenate([e["windows"] for e in examples])),
            "original_sizes": [e["original_size"] for e in examples],
        }
        if all("labels" in e for e in examples):
            batch["labels"] = stack([labels for e in examples for labels in e["labels"]])
            batch["counts"] = {"cross_entropy": sum(np.count_nonzero(e["labels"] != IGNORE_INDEX) for e in examples)}
        return batch

    # tensors to predictions

    def _predictions(self, logits: Tensor, batch: Batch) -> list[Prediction]:
        """Of all crops that see a pixel the largest score of each class, or 0; background where all are 0."""
        out: list[Prediction] = []
        numbers = batch["num_crops"]
        windows = batch["windows"].cpu().int().split(numbers)
        for scores, boxes, (height, width) in zip(
            logits.float().split(numbers), windows, batch["original_sizes"], strict=True
        ):
            best = scores.new_zeros((scores.shape[1], int(height), int(width)))
            for crop, (x1, y1, x2, y2) in zip(scores, boxes.tolist(), strict=True):
                enlarged = F.interpolate(crop[None], size=(y2 - y1, x2 - x1), mode="bilinear", align_corners=False)[0]
                place = best[:, y1:y2, x1:x2]
                torch.maximum(place, enlarged, out=place)
            out.append({"label_map": encode_label_map(best.argmax(dim=0).to(torch.uint8).cpu().numpy())})
        return out


def _shares(window: np.ndarray, frame: tuple[int, int]) -> tuple[float, float, float, float]:
    """x1, y1, x2, y2 in pixels as fractions of a frame (H, W); outside of it there is no picture."""
    left, top, right, bottom = (window / np.array([frame[1], frame[0]] * 2)).tolist()
    return left, top, right, bottom


def _alone(semantic: np.ndarray, label: int, box: np.ndarray) -> np.ndarray:
    """Labels (H, W) of one object: pixels of its class inside its box, those that are ignored, and background."""
    out = np.where(semantic == IGNORE_INDEX, semantic, 0).astype(np.uint8)
    (left, top), (right, bottom) = np.floor(box[:2]).astype(int), np.ceil(box[2:]).astype(int)
    inside = np.s_[top:bottom, left:right]
    out[inside][semantic[inside] == label] = label
    return out


def _enlarged(box: np.ndarray, margin: float) -> np.ndarray:
    """About its middle."""
    middle, half = (box[:2] + box[2:]) / 2, (box[2:] - box[:2]) * margin / 2
    return np.concatenate([middle - half, middle + half])


def _part(window: np.ndarray, share: float, place: np.ndarray) -> np.ndarray:
    """A window of that share of both sides inside of this one; `place` (2,) in 0..1, from left and top to the ends."""
    sides = window[2:] - window[:2]
    corner = window[:2] + (1 - share) * place * sides
    return np.concatenate([corner, corner + share * sides])
