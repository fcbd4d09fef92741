"""Decoding, augmentation and resizing of one image with its boxes, masks and labels: the one adapter to albumentations.

Shapes: image (H, W, 3) uint8 RGB; N boxes (N, 4) float32 `(x1, y1, x2, y2)` in pixels; N masks (N, H, W) uint8 0/1;
semantic (H, W) uint8 labels, 255 ignored. Output size h x w.

What albumentations 2.0.8 gets wrong is put right here and nowhere else: its random state repeats in every worker, so
it is seeded per sample; label fields travel through float32, so only an index does; masks are not filtered with their
boxes; boxes of rotated objects grow, so they are measured again on the mask; empty inputs and dtypes vary.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any, Literal

import cv2
import numpy as np

from contracts.errors import ConfigError, DataError

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # importing it asks the network for its newest version
import albumentations as A

cv2.setNumThreads(0)  # loader workers are the parallelism

FILL_RGB = (124, 116, 104)  # ImageNet's mean colour: zero after normalisation


@dataclass(frozen=True, kw_only=True)
class AugmentConfig:
    """Random changes in training. Each number is a limit (0: off) except the two flips, which are probabilities.

    Attributes:
        horizontal_flip, vertical_flip: probability. Keep at 0 where the text speaks of left and right.
        crop: largest fraction of the width or height cut off at each side, below 0.5.
        scale: zoom by a factor in [1 - scale, 1 + scale], below 1.
        shift: move by up to this fraction of the size.
        rotate: degrees.
        brightness_contrast: fraction of the full range.
        hue: degrees of 0..180; colour words become wrong above about 5.
        saturation: fraction of the full range.
        min_visibility: an object with less than this fraction of its box left is dropped.
    """

    horizontal_flip: float = 0.0
    vertical_flip: float = 0.0
    crop: float = 0.0
    scale: float = 0.0
    shift: float = 0.0
    rotate: float = 0.0
    brightness_contrast: float = 0.1
    hue: float = 0.0
    saturation: float = 0.0
    min_visibility: float = 0.1

    def __post_init__(self) -> None:
        limits = {"crop": 0.5, "scale": 1.0, "rotate": 180.0, "hue": 90.0}
        for name in self.__dataclass_fields__:
            value, limit = getattr(self, name), limits.get(name, 1.0)
            exclusive = name in ("crop", "scale")
            if not 0 <= value <= limit or (exclusive and value == limit):
                raise ConfigError(
                    "augmentation setting out of range",
                    value=value,
                    where=f"augment.{name}",
                    allowed=f"0 <= {name} {'<' if exclusive else '<='} {limit:g}",
                )


ResizeMode = Literal["stretch", "letterbox"]


@dataclass(frozen=True, kw_only=True)
class Augmented:
    """The changed image and what lies on it. `boxes`, `masks` and `indices` have one entry per object that is left.

    Attributes:
        image: (h, w, 3) uint8.
        boxes: (M, 4) float32, `0 <= x1 < x2 <= w`, M <= N.
        masks: (M, h, w) uint8, or None if none were given.
        semantic: (h, w) uint8, or None.
        indices: (M,) int64, which of the N inputs each one is: look ids, labels and flags up by it.
        content_size: (height, width) of the part that is image; the rest is padding (letterbox).
    """

    image: np.ndarray
    boxes: np.ndarray
    masks: np.ndarray | None
    semantic: np.ndarray | None
    indices: np.ndarray
    content_size: tuple[int, int]


def decode_image(data: bytes) -> np.ndarray:
    """Encoded JPEG or PNG -> (H, W, 3) uint8 RGB; grey becomes RGB; EXIF rotation is not applied.

    Raises:
        DataError: the bytes are no image.
    """
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION)
    if image is None:
        raise DataError("an image cannot be decoded", value=data[:16], allowed="a complete JPEG or PNG file")
    return image


def decode_semantic(data: bytes) -> np.ndarray:
    """Encoded single-channel 8-bit PNG -> (H, W) uint8 labels.

    Raises:
        DataError: the bytes are no such image.
    """
    labels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if labels is None or labels.ndim != 2 or labels.dtype != np.uint8:
        raise DataError(
            "a semantic mask cannot be decoded",
            value=data[:16] if labels is None else (labels.shape, str(labels.dtype)),
            allowed="an 8-bit single-channel PNG of labels without palette",
        )
    return labels


def mask_boxes(masks: np.ndarray) -> np.ndarray:
    """Tight boxes of masks: (N, H, W) -> (N, 4) float32; zeros where a mask is empty."""
    boxes = np.zeros((len(masks), 4), np.float32)
    for box, mask in zip(boxes, masks, strict=True):
        columns, rows = np.flatnonzero(mask.any(0)), np.flatnonzero(mask.any(1))
        if len(columns):
            box[:] = columns[0], rows[0], columns[-1] + 1, rows[-1] + 1
    return boxes


class Augment:
    """Resizes to `size` and, given a seed, augments. The result depends on the arguments of the call alone.

    Args:
        config: what may change at random.
        size: height and width of the output, or one number for both.
        mode: "stretch" to exactly that size; "letterbox" keeps the aspect ratio, fills right and below with grey.
    """

    def __init__(self, config: AugmentConfig, *, size: int | tuple[int, int], mode: ResizeMode = "stretch"):
        self.size = (size, size) if isinstance(size, int) else size
        self.mode = mode
        self._plain = A.Compose(self._resize())
        boxes = A.BboxParams(
            "pascal_voc",
            label_fields=["index"],
            min_width=1,
            min_height=1,
            min_visibility=config.min_visibility,
            clip=True,
            filter_invalid_bboxes=True,
        )
        self._random = A.Compose(self._transforms(config), bbox_params=boxes)

    def __call__(
        self,
        image: np.ndarray,
        *,
        seed: int | None,
        boxes: np.ndarray | None = None,
        masks: np.ndarray | None = None,
        semantic: np.ndarray | None = None,
    ) -> Augmented:
        """Args: `seed` None resizes only and drops no object; `masks` need `boxes` of the same length."""
        if boxes is None:
            boxes = np.zeros((0, 4), np.float32)
        assert masks is None or len(masks) == len(boxes), "masks need boxes of the same length"
        inputs: dict[str, Any] = {"image": image}
        if semantic is not None:
            # Ignored (255) becomes 0 for the way through, so what is filled in from outside is ignored too,
            # while it is background for instance masks, which share the fill value.
            inputs["mask"] = semantic + np.uint8(1)
        if masks is not None and len(masks):
            inputs["masks"] = list(masks)
        if seed is None:
            output, boxes, indices = self._run_plain(inputs, boxes)
        else:
            output, boxes, indices = self._run_random(inputs, boxes, seed)
        masks = self._masks(output, masks, indices)
        if seed is not None and masks is not None:
            boxes = mask_boxes(masks)
            kept = (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
            boxes, indices, masks = boxes[kept], indices[kept], masks[kept]
        return Augmented(
            image=np.ascontiguousarray(output["image"]),
            boxes=boxes,
            masks=masks,
            semantic=None if semantic is None else output["mask"] - np.uint8(1),
            indices=indices,
            content_size=self.content_size(*image.shape[:2]),
        )

    def content_size(self, height: int, width: int) -> tuple[int, int]:
        """(height, width) that an unaugmented image of this size has in the output; the rest is padding."""
        if self.mode == "stretch":
            return self.size
        scale = min(self.size[0] / height, self.size[1] / width)
        return max(1, round(height * scale)), max(1, round(width * scale))

    def _run_plain(self, inputs: dict[str, Any], boxes: np.ndarray) -> tuple[dict, np.ndarray, np.ndarray]:
        height, width = inputs["image"].shape[:2]
        content_height, content_width = self.content_size(height, width)
        scale = np.array([content_width / width, content_height / height] * 2)
        boxes = (boxes * scale).astype(np.float32).reshape(-1, 4)
        return self._plain(**inputs), boxes, np.arange(len(boxes))

    def _run_random(self, inputs: dict[str, Any], boxes: np.ndarray, seed: int) -> tuple[dict, np.ndarray, np.ndarray]:
        self._random.set_random_seed(seed % 2**32)
        output = self._random(**inputs, bboxes=boxes.astype(np.float32), index=np.arange(len(boxes)))
        kept = np.asarray(output["bboxes"], np.float32).reshape(-1, 4)
        return output, kept, np.asarray(output["index"], np.int64).reshape(-1)

    def _masks(self, output: dict, masks: np.ndarray | None, indices: np.ndarray) -> np.ndarray | None:
        if masks is None:
            return None
        if not len(indices):
            return np.zeros((0, *self.size), np.uint8)
        return np.stack([output["masks"][i] for i in indices])

    def _resize(self) -> list[A.BasicTransform]:
        height, width = self.size
        if self.mode == "stretch":
            return [A.Resize(height, width, area_for_downscale="image")]
        return [
            A.LongestMaxSize(max_size_hw=self.size, area_for_downscale="image"),
            A.PadIfNeeded(height, width, position="top_left", fill=FILL_RGB, fill_mask=0),
        ]

    def _transforms(self, c: AugmentConfig) -> list[A.BasicTransform]:
        transforms: list[A.BasicTransform] = []
        if c.crop:
            transforms.append(A.RandomCropFromBorders(c.crop, c.crop, c.crop, c.crop))
        transforms += self._resize()
        if c.horizontal_flip:
            transforms.append(A.HorizontalFlip(p=c.horizontal_flip))
        if c.vertical_flip:
            transforms.append(A.VerticalFlip(p=c.vertical_flip))
        if c.scale or c.shift or c.rotate:
            transforms.append(
                A.Affine(
                    scale=(1 - c.scale, 1 + c.scale),
                    translate_percent=(-c.shift, c.shift),
                    rotate=(-c.rotate, c.rotate),
                    keep_ratio=True,
                    fill=FILL_RGB,
                    fill_mask=0,
                    p=1.0,
                )
            )
        if c.brightness_contrast:
            transforms.append(A.RandomBrightnessContrast(c.brightness_contrast, c.brightness_contrast, p=1.0))
        if c.hue or c.saturation:
            transforms.append(A.HueSaturationValue(round(c.hue), round(c.saturation * 255), 0, p=1.0))
        return transforms
