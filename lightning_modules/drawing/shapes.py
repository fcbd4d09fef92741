"""Boxes, masks and label maps drawn on images, large enough to read. All images are (H, W, 3) uint8 RGB.

Drawing is done on an enlarged copy, so that lines and letters are thin beside the objects of a 128 px image. On a large
photograph lines and letters grow with it: it is looked at on a screen, where it is made smaller.
"""

from __future__ import annotations

import colorsys
from collections.abc import Sequence

import cv2
import numpy as np

from lightning_modules.drawing.letters import text_width, write

MIN_PANEL_PX = 384  # shorter images are enlarged by a whole factor up to about this width
PLAIN_PX = 1000  # lines and letters have their plain size on images of up to so many pixels, and grow beyond
_BAR_PX = 20
_WHITE, _DARK, _GREY = (255, 255, 255), (24, 24, 24), (200, 200, 200)


def class_color(label: int) -> tuple[int, int, int]:
    """A colour that depends on the label alone: the same class looks the same in every run. 0 is black."""
    if label == 0:
        return (0, 0, 0)
    hue = (label * 0.61803398875) % 1.0  # golden ratio: neighbours differ most
    value = (1.0, 0.85, 0.7)[label % 3]
    red, green, blue = colorsys.hsv_to_rgb(hue, 0.75, value)
    return round(red * 255), round(green * 255), round(blue * 255)


def enlargement(image: np.ndarray) -> int:
    """The whole factor that brings the image to a legible width; 1 for photographs."""
    return max(1, round(MIN_PANEL_PX / image.shape[1]))


def enlarge(image: np.ndarray, factor: int) -> np.ndarray:
    """Each pixel becomes `factor` x `factor`; always a copy."""
    return np.repeat(np.repeat(image, factor, axis=0), factor, axis=1)


def text_scale(image: np.ndarray) -> float:
    """How many times as large lines and letters are on the enlarged image: 1 up to `PLAIN_PX` on its longer side."""
    return max(1.0, enlargement(image) * max(image.shape[:2]) / PLAIN_PX)


def draw_objects(
    image: np.ndarray, boxes: np.ndarray, labels: np.ndarray, texts: Sequence[str], masks: np.ndarray | None = None
) -> np.ndarray:
    """Boxes with texts (and masks, half transparent with an outline) on the enlarged image.

    Args:
        image: (H, W, 3); boxes: (N, 4) in its pixels; labels: (N,); texts: N; masks: (N, H, W) uint8 or None.

    Returns:
        (f H, f W, 3) uint8, f = `enlargement(image)`.
    """
    factor, scale = enlargement(image), text_scale(image)
    canvas = enlarge(image, factor)
    if masks is not None:
        for mask, label in zip(masks, labels, strict=True):
            _blend_mask(canvas, enlarge(mask, factor), class_color(int(label)), scale)
    corners = np.rint(boxes * factor).astype(int)
    for (x1, y1, x2, y2), label in zip(corners, labels, strict=True):
        cv2.rectangle(canvas, (x1, y1), (x2 - 1, y2 - 1), class_color(int(label)), round(2 * scale))
    for (x1, y1, _, _), label, text in zip(corners, labels, texts, strict=True):  # after all boxes: none crosses a text
        _tag(canvas, text, int(x1), int(y1), class_color(int(label)), scale)
    return canvas


def draw_label_map(image: np.ndarray, label_map: np.ndarray, ignore_index: int) -> np.ndarray:
    """Classes as colours over the enlarged image; ignored pixels grey, background untouched. label_map (H, W)."""
    factor = enlargement(image)
    canvas = enlarge(image, factor).astype(np.float32)
    large = enlarge(label_map, factor)
    for label in np.unique(large):
        if label:
            color = _GREY if label == ignore_index else class_color(int(label))
            where = large == label
            canvas[where] = 0.25 * canvas[where] + 0.75 * np.array(color, np.float32)
    return np.rint(canvas).astype(np.uint8)


def panels(images: Sequence[np.ndarray], titles: Sequence[str]) -> np.ndarray:
    """Images of equal height side by side, each under a bar with its title."""
    scale = max(map(text_scale, images))
    height, gap_px = round(_BAR_PX * scale), round(4 * scale)
    columns = []
    for image, title in zip(images, titles, strict=True):
        bar = np.full((height, image.shape[1], 3), _DARK, np.uint8)
        write(bar, title, gap_px, round(14 * scale), _WHITE, scale)
        columns.append(np.concatenate([bar, image]))
    gap = np.full((columns[0].shape[0], gap_px, 3), 255, np.uint8)
    parts = [part for column in columns for part in (column, gap)]
    return np.concatenate(parts[:-1], axis=1)


def legend(width: int, names: Sequence[tuple[int, str]], scale: float = 1.0) -> np.ndarray:
    """A strip of `width` px that names the colours of the given (label, name) pairs; breaks lines as needed."""
    rows: list[list[tuple[int, str, int]]] = [[]]
    margin, side, text_left, row_px = (round(scale * px) for px in (4, 12, 16, _BAR_PX))
    x = margin
    for label, name in names:
        needed = round(22 * scale) + text_width(name, scale)
        if x + needed > width and rows[-1]:
            rows.append([])
            x = margin
        rows[-1].append((label, name, x))
        x += needed
    strip = np.full((row_px * len(rows), width, 3), 255, np.uint8)
    for i, row in enumerate(rows):
        y = i * row_px
        for label, name, left in row:
            cv2.rectangle(strip, (left, y + margin), (left + side, y + margin + side), class_color(label), -1)
            write(strip, name, left + text_left, y + round(14 * scale), _DARK, scale)
    return strip


def _tag(canvas: np.ndarray, text: str, x: int, y: int, color: tuple[int, int, int], scale: float) -> None:
    """The text on its colour, above the point if there is room, always inside the canvas."""
    margin, baseline = round(2 * scale), round(11 * scale)
    width, height = text_width(text, scale) + 2 * margin, round(14 * scale)
    x = max(0, min(x, canvas.shape[1] - width))
    top = y - height if y >= height else y
    cv2.rectangle(canvas, (x, top), (x + width, top + height), color, -1)
    dark_text = 0.3 * color[0] + 0.59 * color[1] + 0.11 * color[2] > 140
    write(canvas, text, x + margin, top + baseline, _DARK if dark_text else _WHITE, scale)


def _blend_mask(canvas: np.ndarray, mask: np.ndarray, color: tuple[int, int, int], scale: float) -> None:
    where = mask.astype(bool)
    canvas[where] = np.rint(0.5 * canvas[where] + 0.5 * np.array(color)).astype(np.uint8)
    outlines, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    cv2.drawContours(canvas, outlines, -1, color, round(scale))
