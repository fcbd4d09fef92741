"""One map from an image and its annotations to the output: crop, mirror, zoom, shift, rotation and resizing at once.

Frame: the height H and width W that annotations are in. Stored: the decoded image, of the same picture, whose size may
differ and need not be whole: decoded at 1/8, 1025 columns are 128.125, the last of 129 holds one of them and filling.
Coordinates are continuous, x to the right and y down: pixel i covers [i, i + 1).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import cv2
import numpy as np

FILL_RGB = (124, 116, 104)  # ImageNet's mean colour: zero after normalisation

Size = tuple[int, int]
Span = tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class Motion:
    """What is done to the picture. The default does nothing.

    Attributes:
        crop: left, top, right, bottom of what is shown, as fractions; below 0 or above 1 there is no picture.
        mirror, upside_down: exchange left and right, top and bottom.
        zoom: factor about the middle.
        shift: x and y, as fractions of the size.
        angle: in radians, clockwise.
    """

    crop: tuple[float, float, float, float] = (0.0, 0.0, 1.0, 1.0)
    mirror: bool = False
    upside_down: bool = False
    zoom: float = 1.0
    shift: tuple[float, float] = (0.0, 0.0)
    angle: float = 0.0

    @property
    def flips(self) -> tuple[bool, bool]:
        """Along x and along y."""
        return self.mirror, self.upside_down


class View:
    """Shows images, labels and boxes under one motion.

    Args:
        frame: (height, width).
        stored: the same in stored pixels; a last one that is partial is not shown.
        content: (height, width) that the cropped picture gets in the output's upper left corner before it is moved.
        output: (height, width).

    Without rotation whole pixels of the stored image are shown on whole pixels of the output: an edge that falls
    between two is moved to one of them, for everything alike, because interpolating a rectangle is four times as fast
    as an arbitrary map. At least one pixel is always shown.
    """

    def __init__(self, motion: Motion, *, frame: Size, stored: tuple[float, float], content: Size, output: Size):
        self.output = output
        left, top, right, bottom = motion.crop
        whole = [max(1, int(length)) for length in stored]
        self._rotated = motion.angle != 0
        axes = ((1, left, right), (0, top, bottom))
        self._parts = _picture_parts(motion)
        kept = [(d, max(lo, 0.0) * stored[d], min(hi, 1.0) * stored[d]) for d, lo, hi in axes]
        if self._rotated:
            ranges = [_pixels(lo, hi, whole[d]) for d, lo, hi in kept]
            self._target = ((0, output[1]), (0, output[0]))
        else:
            shown = [
                _shown(motion, i, (lo, hi), whole[d], content[d], self._parts[i], output[d])
                for i, (d, lo, hi) in enumerate(kept)
            ]
            ranges = [source for source, _ in shown]
            self._target = (shown[0][1], shown[1][1])
        self._source = (ranges[0], ranges[1])
        self._per_pixel = (frame[1] / stored[1], frame[0] / stored[0])  # frame pixels in a stored one, x and y
        self._motion, self._content = motion, content

    @cached_property
    def _stored_to_output(self) -> np.ndarray:
        if self._rotated:
            return _rotation(self._motion, self._source, self._parts, self._content)
        return _rectangles(self._source, self._target, self._motion.flips)

    @cached_property
    def _frame_to_output(self) -> np.ndarray:
        return self._stored_to_output @ np.diag([1 / self._per_pixel[0], 1 / self._per_pixel[1], 1.0])

    def show_image(self, image: np.ndarray, out: np.ndarray, *, antialias: bool) -> None:
        """Write the stored image (h', w', 3) uint8 to `out` (h, w, 3) uint8, grey where there is no picture.

        Args:
            antialias: average over the area of an output pixel where the picture shrinks; else bilinear.
        """
        (x0, x1), (y0, y1) = self._source
        how = cv2.INTER_LINEAR
        if antialias and not self._rotated and self._shrinks:
            how = cv2.INTER_AREA
        self._show(image[y0:y1, x0:x1], (x0, y0), self._stored_to_output, out, how, FILL_RGB)

    def show_labels(self, labels: np.ndarray, out: np.ndarray) -> None:
        """Write (H, W) uint8 in the frame to `out` (h, w) uint8, nearest neighbour, 0 where there is no picture."""
        (x0, x1), (y0, y1) = (
            _pixels(lo * scale, hi * scale, length)
            for (lo, hi), scale, length in zip(self._source, self._per_pixel, labels.shape[::-1], strict=True)
        )
        how = cv2.INTER_NEAREST if self._rotated else cv2.INTER_NEAREST_EXACT
        self._show(labels[y0:y1, x0:x1], (x0, y0), self._frame_to_output, out, how, 0)

    def move_boxes(self, boxes: np.ndarray, *, clip: bool) -> np.ndarray:
        """(N, 4) in the frame -> (N, 4) float32 in the output: the least box around each moved one.

        Args:
            clip: to what is shown; a box that is not has no area then.
        """
        if not len(boxes):
            return np.zeros((0, 4), np.float32)
        boxes = boxes.astype(np.float64)
        if clip:
            for axis, ((lo, hi), scale) in enumerate(zip(self._source, self._per_pixel, strict=True)):
                boxes[:, axis::2] = boxes[:, axis::2].clip(lo * scale, hi * scale)
        moved = self._moved(boxes[:, [0, 1, 2, 1, 2, 3, 0, 3]].reshape(-1, 4, 2))
        out = np.concatenate([moved.min(axis=1), moved.max(axis=1)], axis=1)
        if clip:
            out = out.clip(0, [*self.output[::-1]] * 2)
        return out.astype(np.float32)

    def move_points(self, points: np.ndarray) -> np.ndarray:
        """(.., 2) x and y in the frame -> (.., 2) float32 in the output, also where that lies outside of it."""
        return self._moved(points.astype(np.float64)).astype(np.float32)

    def _moved(self, points: np.ndarray) -> np.ndarray:
        return points @ self._frame_to_output[:2, :2].T + self._frame_to_output[:2, 2]

    @property
    def _shrinks(self) -> bool:
        return any(u1 - u0 < x1 - x0 for (x0, x1), (u0, u1) in zip(self._source, self._target, strict=True))

    def _show(
        self, part: np.ndarray, corner: tuple[int, int], matrix: np.ndarray, out: np.ndarray, how: int, fill: Any
    ) -> None:
        """Write `part`, whose upper left pixel is `corner` of what `matrix` maps to the output, to `out`."""
        if self._rotated:
            # OpenCV's coordinates are those of pixel centres.
            centred = _move(-0.5, -0.5) @ matrix @ _move(corner[0] + 0.5, corner[1] + 0.5)
            cv2.warpAffine(part, centred[:2], self.output[::-1], dst=out, flags=how, borderValue=fill)
            return
        (u0, u1), (v0, v1) = self._target
        target = out[v0:v1, u0:u1]
        if target.shape != out.shape:
            out[:] = fill
        if any(self._motion.flips):
            shown = cv2.resize(part, (u1 - u0, v1 - v0), interpolation=how)
            cv2.flip(shown, {(True, False): 1, (False, True): 0, (True, True): -1}[self._motion.flips], dst=target)
        else:
            cv2.resize(part, (u1 - u0, v1 - v0), dst=target, interpolation=how)


def _picture_parts(motion: Motion) -> tuple[Span, Span]:
    """Where the picture lies in the content along x and y, as fractions: all of it unless the crop is larger."""
    left, top, right, bottom = motion.crop
    if min(left, top) >= 0 and max(right, bottom) <= 1:
        return (0.0, 1.0), (0.0, 1.0)
    x, y = (
        ((max(lo, 0.0) - lo) / (hi - lo), (min(hi, 1.0) - lo) / (hi - lo)) for lo, hi in ((left, right), (top, bottom))
    )
    return (1 - x[1], 1 - x[0]) if motion.mirror else x, (1 - y[1], 1 - y[0]) if motion.upside_down else y


def _pixels(lo: float, hi: float, length: int) -> tuple[int, int]:
    """The whole pixels nearest to [lo, hi] of an axis, at least one."""
    first = min(max(0, round(lo)), length - 1)
    return first, max(first + 1, min(round(hi), length))


def _shown(
    motion: Motion, axis: int, kept: Span, stored: int, content: int, part: Span, output: int
) -> tuple[tuple[int, int], tuple[int, int]]:
    """Along one axis, the stored pixels that are shown and the output's pixels that show them.

    Args:
        kept: the stored pixels within the crop; part: where these lie in the content, as fractions.
    """
    middle, half = content * (0.5 + motion.shift[axis]), content * motion.zoom / 2
    first, last = middle - half, middle + half
    if part != (0, 1):
        first, last = first + 2 * half * part[0], first + 2 * half * part[1]
    target = _pixels(first, last, output)
    per_pixel = (kept[1] - kept[0]) / (2 * half if part == (0, 1) else last - first)
    lo, hi = (kept[0] + (edge - first) * per_pixel for edge in target)
    if motion.flips[axis]:
        lo, hi = kept[0] + kept[1] - hi, kept[0] + kept[1] - lo
    return _pixels(lo, hi, stored), target


def _rectangles(source: tuple[tuple[int, int], ...], target: tuple[Span, ...], flip: tuple[bool, bool]) -> np.ndarray:
    matrix = np.eye(3)
    for axis, ((x0, x1), (u0, u1)) in enumerate(zip(source, target, strict=True)):
        scale = (u1 - u0) / (x1 - x0)
        if flip[axis]:
            matrix[axis, axis], matrix[axis, 2] = -scale, u1 + scale * x0
        else:
            matrix[axis, axis], matrix[axis, 2] = scale, u0 - scale * x0
    return matrix


def _rotation(
    motion: Motion, source: tuple[tuple[int, int], ...], parts: tuple[Span, ...], content: Size
) -> np.ndarray:
    width, height = content[1], content[0]
    target = tuple((length * lo, length * hi) for length, (lo, hi) in zip((width, height), parts, strict=True))
    onto_content = _rectangles(source, target, motion.flips)
    cosine, sine = motion.zoom * math.cos(motion.angle), motion.zoom * math.sin(motion.angle)
    turn = np.array([[cosine, -sine, 0], [sine, cosine, 0], [0, 0, 1.0]])
    there = _move(width * (0.5 + motion.shift[0]), height * (0.5 + motion.shift[1]))
    return there @ turn @ _move(-width / 2, -height / 2) @ onto_content


def _move(x: float, y: float) -> np.ndarray:
    return np.array([[1.0, 0, x], [0, 1.0, y], [0, 0, 1.0]])
