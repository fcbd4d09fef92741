"""Random changes of one image with its boxes, masks and labels, and resizing, in one pass over the pixels.

Shapes: N boxes (N, 4) float32 `(x1, y1, x2, y2)` in pixels of the frame, the record's height H and width W; N masks
(N, H, W) uint8 0/1; semantic (H, W) uint8 labels, 255 ignored. Output size h x w.

Everything that moves pixels is one map (`View`) and everything that changes colours is one matrix, so a JPEG is
decoded no larger than needed, and each pixel is interpolated once.

Filters. Without a seed: exact decoding, and the area of an output pixel is averaged where the image shrinks
(antialiased). With a seed: decoded at 1/2, 1/4 or 1/8 as long as that is no smaller than what is shown (which
averages), and then bilinear, not antialiased, for the factor below 2 that is left. Labels and masks: nearest neighbour.
"""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import cv2
import numpy as np

from contracts.errors import ConfigError
from contracts.ranges import Range, check_ranges
from lightning_modules.augment.images import decode_image, image_size
from lightning_modules.augment.view import Motion, Size, View
from lightning_modules.blocks.pixels import new_row

_LUMA = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601, of RGB
_YIQ = np.array([_LUMA, [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]])  # brightness, and two axes of colour
_NUM_DRAWS = 14


@dataclass(frozen=True, kw_only=True)
class AugmentConfig:
    """Random changes in training. Each number is a limit (0: off) except the two flips, which are probabilities.

    Attributes:
        horizontal_flip, vertical_flip: probability. Keep at 0 where the text speaks of left and right.
        crop: largest fraction of the width or height cut off at each side, below 0.5.
        scale: zoom by a factor in [1 - scale, 1 + scale], below 1.
        shift: move by up to this fraction of the size.
        rotate: degrees.
        brightness_contrast: brightness by up to this fraction of the full range, contrast by a factor of 1 +- it.
        hue: degrees of the colour circle, to 180; colour words become wrong above about 10.
        saturation: distance from grey by a factor of 1 +- it.
        min_visibility: an object with less than this fraction of its box left is neither learnt nor background.
        albumentations: further transforms of the pixels alone, by albumentations' names and arguments, such as
            `{name: GaussianBlur, p: 0.2}`; each draws from a seed of its own.
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
    albumentations: tuple[dict[str, Any], ...] = ()

    def __post_init__(self) -> None:
        limits = {"crop": 0.5, "scale": 1.0, "rotate": 180.0, "hue": 180.0}
        names = self.__dataclass_fields__.keys() - {"albumentations"}
        check_ranges(self, **{n: Range(0, limits.get(n, 1.0), open_high=n in ("crop", "scale")) for n in sorted(names)})
        _pixel_transforms(self.albumentations)  # their mistakes, too, are told before any work


ResizeMode = Literal["stretch", "letterbox"]


@dataclass(frozen=True, kw_only=True)
class Augmented:
    """The changed image and what lies on it. `boxes`, `masks` and `indices` have one entry per object that is left;
    K objects show too little to be told and too much to be background.

    Attributes:
        image: (h, w, 3) uint8.
        boxes: (M, 4) float32, `0 <= x1 < x2 <= w`, M <= N.
        masks: (M, h, w) uint8, or None if none were given.
        semantic: (h, w) uint8, or None.
        indices: (M,) int64, which of the N inputs each one is: look ids, labels and flags up by it.
        hidden: (K, 4) float32, what shows of those, as `boxes`.
        content_size: (height, width) of the part that is image; the rest is padding (letterbox).
    """

    image: np.ndarray
    boxes: np.ndarray
    masks: np.ndarray | None
    semantic: np.ndarray | None
    indices: np.ndarray
    hidden: np.ndarray
    content_size: tuple[int, int]


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

    def __init__(self, config: AugmentConfig, *, size: int | Size, mode: ResizeMode = "stretch"):
        self.config = config
        self.size = (size, size) if isinstance(size, int) else size
        self.mode = mode
        self._further = _pixel_transforms(config.albumentations)

    def __call__(
        self,
        image: bytes,
        frame: Size,
        *,
        seed: int | None,
        mirror: bool | None = None,
        boxes: np.ndarray | None = None,
        masks: np.ndarray | None = None,
        semantic: np.ndarray | None = None,
    ) -> Augmented:
        """
        Args:
            image: encoded, as in a record; frame: the record's (height, width).
            seed: None resizes only and drops no object.
            mirror: whether left and right are exchanged, for a caller who must know; None: as `horizontal_flip` says.
            masks: need `boxes` of the same length.

        Raises:
            DataError: the image cannot be decoded.
        """
        if boxes is None:
            boxes = np.zeros((0, 4), np.float32)
        assert masks is None or len(masks) == len(boxes), "masks need boxes of the same length"
        draws = [] if seed is None else np.random.default_rng(seed).random(_NUM_DRAWS).tolist()
        motion = Motion(mirror=bool(mirror)) if seed is None else self._draw_motion(draws, mirror)
        left, top, right, bottom = motion.crop
        content = self.content_size(frame[0] * (bottom - top), frame[1] * (right - left))
        shrink = 1 if seed is None else _shrink(motion, image_size(image), content)
        stored = decode_image(image, shrink=shrink)
        # Not the array's size, whose last pixels may be partial.
        height, width = stored.shape[:2] if shrink == 1 else (length / shrink for length in image_size(image))
        view = View(motion, frame=frame, stored=(height, width), content=content, output=self.size)
        pixels = new_row((*self.size, 3), np.uint8)
        view.show_image(stored, pixels, antialias=seed is None)
        if seed is not None:
            self._recolour(pixels, draws)
            for i, transform in enumerate(self._further):
                transform.set_random_seed((seed + i) % 2**32)  # its own state is of unknown age
                pixels[:] = transform(image=pixels)["image"]
        boxes, shown, indices, hidden = self._objects(view, boxes, masks, drop=seed is not None)
        return Augmented(
            image=pixels,
            boxes=boxes,
            masks=shown,
            semantic=None if semantic is None else self._show_semantic(view, semantic),
            indices=indices,
            hidden=hidden,
            content_size=self.content_size(*frame),
        )

    def content_size(self, height: float, width: float) -> Size:
        """(height, width) that an image of this size has in the output before it is moved; the rest is padding."""
        if self.mode == "stretch":
            return self.size
        scale = min(self.size[0] / height, self.size[1] / width)
        return max(1, round(height * scale)), max(1, round(width * scale))

    def _draw_motion(self, draws: Sequence[float], mirror: bool | None) -> Motion:
        # Every knob has draws of its own: turning one does not move what others do.
        c = self.config
        left, top, right, bottom = (c.crop * draw for draw in draws[2:6])
        zoom, x, y, angle = (2 * draw - 1 for draw in draws[6:10])
        return Motion(
            crop=(left, top, 1 - right, 1 - bottom),
            mirror=draws[0] < c.horizontal_flip if mirror is None else mirror,
            upside_down=draws[1] < c.vertical_flip,
            zoom=1 + c.scale * zoom,
            shift=(c.shift * x, c.shift * y),
            angle=math.radians(c.rotate * angle),
        )

    def _recolour(self, image: np.ndarray, draws: Sequence[float]) -> None:
        """Hue and saturation, then contrast and brightness, as one affine map of RGB, rounded once, in place."""
        c = self.config
        if not (c.brightness_contrast or c.hue or c.saturation):
            return
        brightness, contrast, hue, saturation = (2 * draw - 1 for draw in draws[10:14])
        colours = _colour_matrix(math.radians(c.hue * hue), 1 + c.saturation * saturation)
        offset = np.full((3, 1), 255 * c.brightness_contrast * brightness)
        cv2.transform(image, np.hstack([(1 + c.brightness_contrast * contrast) * colours, offset]), dst=image)

    def _show_semantic(self, view: View, semantic: np.ndarray) -> np.ndarray:
        # Ignored (255) is 0 on the way, so that what is filled in from outside is ignored too.
        out = new_row(self.size, np.uint8)
        view.show_labels(semantic + np.uint8(1), out)
        out -= np.uint8(1)
        return out

    def _objects(
        self, view: View, boxes: np.ndarray, masks: np.ndarray | None, *, drop: bool
    ) -> tuple[np.ndarray, np.ndarray | None, np.ndarray, np.ndarray]:
        """Boxes and masks where they are shown, and which objects they are; with `drop`, without those hardly seen,
        whose boxes come last."""
        shown = None
        if masks is not None:
            shown = np.empty((len(masks), *self.size), np.uint8)
            for mask, out in zip(masks, shown, strict=True):
                view.show_labels(mask, out)
        seen, whole = view.move_boxes(boxes, clip=drop), view.move_boxes(boxes, clip=False)
        if not drop:
            return seen, shown, np.arange(len(boxes)), seen[:0]
        sides, whole_sides = seen[:, 2:] - seen[:, :2], whole[:, 2:] - whole[:, :2]
        share = sides.prod(axis=1) / np.maximum(whole_sides.prod(axis=1), 1e-9)
        enough = (sides >= 1).all(axis=1) & (share >= self.config.min_visibility)
        if shown is not None:
            seen = mask_boxes(shown)  # around what is seen of it; a box that was turned is larger
        there = (seen[:, 2:] > seen[:, :2]).all(axis=1)
        kept = np.flatnonzero(enough & there)
        return seen[kept], None if shown is None else shown[kept], kept, seen[there & ~enough]


def _shrink(motion: Motion, stored: Size, content: Size) -> int:
    """The largest of 1, 2, 4, 8 that leaves no less pixels than will be shown."""
    left, top, right, bottom = motion.crop
    spare = min(
        stored[0] * (bottom - top) / (content[0] * motion.zoom), stored[1] * (right - left) / (content[1] * motion.zoom)
    )
    return next(k for k in (8, 4, 2, 1) if k == 1 or spare >= k)


def _colour_matrix(hue: float, saturation: float) -> np.ndarray:
    """(3, 3) for RGB: colour turned by `hue` radians about grey and scaled by `saturation`, brightness kept."""
    cosine, sine = saturation * math.cos(hue), saturation * math.sin(hue)
    turn = np.array([[1, 0, 0], [0, cosine, -sine], [0, sine, cosine]])
    return np.linalg.solve(_YIQ, turn @ _YIQ)


def _pixel_transforms(sections: Sequence[dict[str, Any]]) -> list[Any]:
    """albumentations' transforms of these names and arguments.

    Raises:
        ConfigError: there is none that changes pixels alone under this name, or an argument is wrong.
    """
    if not sections:
        return []  # importing it takes seconds
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # importing it asks the network for its newest version
    import albumentations

    transforms = []
    for i, section in enumerate(sections):
        where = f"augment.albumentations.{i}"
        arguments = dict(section)
        name = arguments.pop("name", None)
        kind = getattr(albumentations, str(name), None)
        if not (isinstance(kind, type) and issubclass(kind, albumentations.ImageOnlyTransform)):
            raise ConfigError(
                "no transform of albumentations that changes pixels alone",
                value=name,
                where=f"{where}.name",
                allowed="such as GaussianBlur, GaussNoise, ImageCompression, CLAHE, ToGray",
                fix="what moves pixels is in crop, scale, shift, rotate and the flips, which move annotations too",
            )
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")  # an unknown argument is only a warning there
                transforms.append(kind(**arguments))
        except (TypeError, ValueError, UserWarning) as error:
            raise ConfigError(
                f"wrong arguments for {name}", value=arguments, where=where, allowed=str(error)
            ) from error
    return transforms
