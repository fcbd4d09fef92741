"""Drawing what happens to one sample: all random numbers of it, before any pixel is read.

Everything that an image, the frames of a clip, boxes, masks, quads and proposals share is in one `Draw`. A draw depends
on the seed, the frame's size and, for a crop around objects, their boxes: never on what was drawn before.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from contracts.seeds import derive_seed
from lightning_modules.augment.config import AugmentConfig, ObjectCrop, RandomCrop, ResizeMode, ZoomOut
from lightning_modules.augment.view import Motion, Size
from lightning_modules.ops.boxes import pairwise_ious

Window = tuple[float, float, float, float]  # left, top, right, bottom as fractions of the frame
Colors = tuple[tuple[float, ...], ...]  # 3 x 4: a map of RGB, and what is added

_WHOLE: Window = (0.0, 0.0, 1.0, 1.0)
_NUM_DRAWS = 14
_LUMA = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601, of RGB
_YIQ = np.array([_LUMA, [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]])  # brightness, and two axes of color
# Streams of their own, so that one setting moves no other's numbers. Tasks have [seed, 1] and [seed, 2].
_CROP, _ZOOM_OUT = 3, 4


@dataclass(frozen=True, kw_only=True)
class Draw:
    """What happens to one sample. Equal draws make equal pixels.

    Attributes:
        frame: (height, width) that annotations are in.
        motion: crop, flips, zoom, shift, angle.
        content: (height, width) that the cropped picture gets in the output before it is moved.
        colors: what is done to RGB; None: nothing.
        seeds: one for each of albumentations' transforms.
        is_random: False: only resized. Exactly decoded and averaged then, and nothing is dropped.
    """

    frame: Size
    motion: Motion
    content: Size
    colors: Colors | None = None
    seeds: tuple[int, ...] = ()
    is_random: bool = False


def draw_sample(
    config: AugmentConfig,
    seed: int | None,
    frame: Size,
    *,
    size: Size,
    mode: ResizeMode,
    center: float,
    mirror: bool | None,
    boxes: np.ndarray,
) -> Draw:
    """All that is random about one sample; with `seed` None what resizes it.

    Args:
        size, mode, center: as `Augment` has them.
        mirror: in place of the config's own flip.
        boxes: (N, 4) in the frame, of the objects that a crop shall meet.
    """
    window = centered(frame, size, center) if mode == "cover" else _WHOLE
    if seed is None:
        motion = Motion(crop=window, mirror=bool(mirror))
        return Draw(frame=frame, motion=motion, content=content_size(frame, motion.crop, size, mode))
    draws = np.random.default_rng(seed).random(_NUM_DRAWS).tolist()
    motion = _draw_motion(config, draws, seed, frame, window, mirror, boxes)
    return Draw(
        frame=frame,
        motion=motion,
        content=size if config.random_crop else content_size(frame, motion.crop, size, mode),
        colors=_draw_colors(config, draws),
        seeds=tuple(derive_seed("albumentations", seed, i) for i in range(len(config.albumentations))),
        is_random=True,
    )


def content_size(frame: tuple[float, float], window: Window, size: Size, mode: ResizeMode) -> Size:
    """(height, width) of the part of the output that shows `window` before it is moved; the rest is padding."""
    left, top, right, bottom = window
    height, width = frame[0] * (bottom - top), frame[1] * (right - left)
    if mode == "letterbox":
        scale = min(size[0] / height, size[1] / width)
        return max(1, round(height * scale)), max(1, round(width * scale))
    if mode == "line":
        return size[0], max(1, min(size[1], round(width * size[0] / height)))
    return size


def centered(frame: Size, size: Size, share: float) -> Window:
    """The window around the middle that has the aspect of `size` and that share of the largest such one."""
    height, width = frame
    scale = share * min(height / size[0], width / size[1])
    x, y = scale * size[1] / width / 2, scale * size[0] / height / 2
    return 0.5 - x, 0.5 - y, 0.5 + x, 0.5 + y


def _draw_motion(
    config: AugmentConfig,
    draws: Sequence[float],
    seed: int,
    frame: Size,
    window: Window,
    mirror: bool | None,
    boxes: np.ndarray,
) -> Motion:
    # Every knob has draws of its own: turning one does not move what others do.
    left, top, right, bottom = (config.crop * draw for draw in draws[2:6])
    crop = (left, top, 1 - right, 1 - bottom)
    if config.random_crop:
        window, crop = _WHOLE, _random_crop(config.random_crop, np.random.default_rng([seed, _CROP]), frame)
    if config.zoom_out:
        window = _within(_zoom_out(config.zoom_out, np.random.default_rng([seed, _ZOOM_OUT])), window)
    if config.object_crop:
        crop = _object_crop(config.object_crop, np.random.default_rng([seed, _CROP]), frame, window, boxes)
    zoom, x, y, angle = (2 * draw - 1 for draw in draws[6:10])
    return Motion(
        crop=crop if window == _WHOLE else _within(window, crop),
        mirror=draws[0] < config.horizontal_flip if mirror is None else mirror,
        upside_down=draws[1] < config.vertical_flip,
        zoom=1 + config.scale * zoom,
        shift=(config.shift * x, config.shift * y),
        angle=math.radians(config.rotate * angle),
    )


def _within(outer: Window, inner: Window) -> Window:
    """`inner`, given as fractions of `outer`, as fractions of what `outer` is of."""
    left, top, right, bottom = outer
    width, height = right - left, bottom - top
    return left + inner[0] * width, top + inner[1] * height, left + inner[2] * width, top + inner[3] * height


def _random_crop(crop: RandomCrop, rng: np.random.Generator, frame: Size) -> Window:
    """Ten tries, then the largest window around the middle whose aspect is allowed, as everybody does."""
    aspect = frame[1] / frame[0]
    for _ in range(10):
        area = rng.uniform(*crop.area)
        ratio = math.exp(rng.uniform(math.log(crop.ratio[0]), math.log(crop.ratio[1]))) / aspect  # of fractions
        width, height = math.sqrt(area * ratio), math.sqrt(area / ratio)
        if width <= 1 and height <= 1:
            left, top = rng.uniform(0, 1 - width), rng.uniform(0, 1 - height)
            return left, top, left + width, top + height
    ratio = min(max(aspect, crop.ratio[0]), crop.ratio[1])
    width, height = min(1.0, ratio / aspect), min(1.0, aspect / ratio)
    return 0.5 - width / 2, 0.5 - height / 2, 0.5 + width / 2, 0.5 + height / 2


def _zoom_out(zoom: ZoomOut, rng: np.random.Generator) -> Window:
    """The canvas, as fractions of the image that lies on it."""
    happens, sides, x, y = rng.random(4)
    side = 1 + (zoom.largest - 1) * sides if happens < zoom.probability else 1.0
    left, top = -(side - 1) * x, -(side - 1) * y
    return left, top, left + side, top + side


def _object_crop(crop: ObjectCrop, rng: np.random.Generator, frame: Size, window: Window, boxes: np.ndarray) -> Window:
    """A window, as fractions of `window`, under which the boxes lie too."""
    left, top, right, bottom = window
    scale = np.array([frame[1] * (right - left), frame[0] * (bottom - top)] * 2)
    lying = (boxes.reshape(-1, 4).astype(np.float64) - np.array([left * frame[1], top * frame[0]] * 2)) / scale
    for least in rng.permutation(crop.min_ious):
        if least >= 1 or not len(lying):
            break
        for _ in range(crop.trials):
            width, height = rng.uniform(*crop.side, size=2)
            if not crop.ratio[0] <= width * scale[0] / (height * scale[1]) <= crop.ratio[1]:
                continue
            x, y = rng.uniform(0, 1 - width), rng.uniform(0, 1 - height)
            if _meets(tried := (x, y, x + width, y + height), lying, least):
                return tried
    return _WHOLE


def centers_inside(boxes: np.ndarray, window: np.ndarray | Window) -> np.ndarray:
    """Which of the boxes (N, 4) have their center inside of the window: (N,) bool."""
    centers = (boxes[:, :2] + boxes[:, 2:]) / 2
    return ((centers > window[:2]) & (centers < window[2:])).all(axis=1)


def _meets(window: Window, boxes: np.ndarray, least: float) -> bool:
    if not centers_inside(boxes, window).any():
        return False
    return pairwise_ious(np.array([window]), boxes).max() >= least


def _draw_colors(config: AugmentConfig, draws: Sequence[float]) -> Colors | None:
    """Hue and saturation, then contrast and brightness, as one affine map of RGB."""
    if not (config.brightness_contrast or config.hue or config.saturation):
        return None
    brightness, contrast, hue, saturation = (2 * draw - 1 for draw in draws[10:14])
    colors = _color_matrix(math.radians(config.hue * hue), 1 + config.saturation * saturation)
    offset = np.full((3, 1), 255 * config.brightness_contrast * brightness)
    both = np.hstack([(1 + config.brightness_contrast * contrast) * colors, offset])
    return tuple(map(tuple, both.tolist()))


def _color_matrix(hue: float, saturation: float) -> np.ndarray:
    """(3, 3) for RGB: color turned by `hue` radians about grey and scaled by `saturation`, brightness kept."""
    cosine, sine = saturation * math.cos(hue), saturation * math.sin(hue)
    turn = np.array([[1, 0, 0], [0, cosine, -sine], [0, sine, cosine]])
    return np.linalg.solve(_YIQ, turn @ _YIQ)
