"""Boxes, masks and label maps drawn on images, large enough to read. All images are (H, W, 3) uint8 RGB.

Drawing is done on an enlarged copy, so that lines and letters are thin beside the objects of a 128 px image.
"""

from __future__ import annotations

import colorsys
from collections.abc import Sequence

import cv2
import numpy as np

from lightning_modules.drawing.letters import text_width, write

MIN_PANEL_PX = 384  # shorter images are enlarged by a whole factor up to about this width
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


def draw_objects(
    image: np.ndarray, boxes: np.ndarray, labels: np.ndarray, texts: Sequence[str], masks: np.ndarray | None = None
) -> np.ndarray:
    """Boxes with texts (and masks, half transparent with an outline) on the enlarged image.

    Args:
        image: (H, W, 3); boxes: (N, 4) in its pixels; labels: (N,); texts: N; masks: (N, H, W) uint8 or None.

    Returns:
        (f H, f W, 3) uint8, f = `enlargement(image)`.
    """
    factor = enlargement(image)
    canvas = enlarge(image, factor)
    if masks is not None:
        for mask, label in zip(masks, labels, strict=True):
            _blend_mask(canvas, enlarge(mask, factor), class_color(int(label)))
    corners = np.rint(boxes * factor).astype(int)
    for (x1, y1, x2, y2), label in zip(corners, labels, strict=True):
        cv2.rectangle(canvas, (x1, y1), (x2 - 1, y2 - 1), class_color(int(label)), 2)
    for (x1, y1, _, _), label, text in zip(corners, labels, texts, strict=True):  # after all boxes: none crosses a text
        _tag(canvas, text, int(x1), int(y1), class_color(int(label)))
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
    columns = []
    for image, title in zip(images, titles, strict=True):
        bar = np.full((_BAR_PX, image.shape[1], 3), _DARK, np.uint8)
        write(bar, title, 4, 14, _WHITE)
        columns.append(np.concatenate([bar, image]))
    gap = np.full((columns[0].shape[0], 4, 3), 255, np.uint8)
    parts = [part for column in columns for part in (column, gap)]
    return np.concatenate(parts[:-1], axis=1)


def legend(width: int, names: Sequence[tuple[int, str]]) -> np.ndarray:
    """A strip of `width` px that names the colours of the given (label, name) pairs; breaks lines as needed."""
    rows: list[list[tuple[int, str, int]]] = [[]]
    x = 4
    for label, name in names:
        needed = 22 + text_width(name)
        if x + needed > width and rows[-1]:
            rows.append([])
            x = 4
        rows[-1].append((label, name, x))
        x += needed
    strip = np.full((_BAR_PX * len(rows), width, 3), 255, np.uint8)
    for i, row in enumerate(rows):
        y = i * _BAR_PX
        for label, name, left in row:
            cv2.rectangle(strip, (left, y + 4), (left + 12, y + 16), class_color(label), -1)
            write(strip, name, left + 16, y + 14, _DARK)
    return strip


def _tag(canvas: np.ndarray, text: str, x: int, y: int, color: tuple[int, int, int]) -> None:
    """The text on its colour, above the point if there is room, always inside the canvas."""
    width, height = text_width(text) + 4, 14
    x = max(0, min(x, canvas.shape[1] - width))
    top = y - height if y >= height else y
    cv2.rectangle(canvas, (x, top), (x + width, top + height), color, -1)
    dark_text = 0.3 * color[0] + 0.59 * color[1] + 0.11 * color[2] > 140
    write(canvas, text, x + 2, top + 11, _DARK if dark_text else _WHITE)


def _blend_mask(canvas: np.ndarray, mask: np.ndarray, color: tuple[int, int, int]) -> None:
    where = mask.astype(bool)
    canvas[where] = np.rint(0.5 * canvas[where] + 0.5 * np.array(color)).astype(np.uint8)
    outlines, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    cv2.drawContours(canvas, outlines, -1, color, 1)
