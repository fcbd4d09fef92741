"""Pictures of words: text blocks, bars and attention overlays. Images are (H, W, 3) uint8 RGB."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from lightning_modules.drawing.letters import text_width, write

Colour = tuple[int, int, int]

WHITE: Colour = (255, 255, 255)
BLACK: Colour = (20, 20, 20)
GREY: Colour = (110, 110, 110)
GREEN: Colour = (0, 130, 60)
RED: Colour = (200, 30, 30)
BLUE: Colour = (60, 110, 200)

LINE_PX = 17  # height of one text line
_MARGIN_PX = 6


def fit(image: np.ndarray, width: int) -> np.ndarray:
    """Resized to `width` pixels, aspect ratio kept; small images keep their pixels sharp."""
    height = max(1, round(image.shape[0] * width / image.shape[1]))
    method = cv2.INTER_AREA if width < image.shape[1] else cv2.INTER_LINEAR
    return cv2.resize(np.ascontiguousarray(image), (width, height), interpolation=method)


def wrap(text: str, width: int) -> list[str]:
    """`text` in lines of at most `width` pixels; a word that is longer alone gets its own line."""
    lines: list[str] = []
    for word in text.split():
        if lines and text_width(f"{lines[-1]} {word}") <= width:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines or [""]


def put_text(canvas: np.ndarray, text: str, x: int, y: int, colour: Colour) -> None:
    """Draws one line on `canvas` in place, its upper left corner at (x, y)."""
    write(canvas, text, x, y + LINE_PX - 5, colour)


def text_block(paragraphs: Sequence[tuple[str, Colour]], width: int) -> np.ndarray:
    """Wrapped paragraphs, each in its colour, on white: (h, width, 3)."""
    lines = [(line, colour) for text, colour in paragraphs for line in wrap(text, width - 2 * _MARGIN_PX)]
    canvas = np.full((len(lines) * LINE_PX + _MARGIN_PX, width, 3), 255, np.uint8)
    for i, (line, colour) in enumerate(lines):
        put_text(canvas, line, _MARGIN_PX, i * LINE_PX + _MARGIN_PX // 2, colour)
    return canvas


def bars(values: Sequence[tuple[str, float, Colour]], width: int) -> np.ndarray:
    """One line per (name, value in 0..1, colour): a bar with its name and percentage: (h, width, 3)."""
    canvas = np.full((max(1, len(values)) * LINE_PX, width, 3), 255, np.uint8)
    left = width // 2
    room = width - left - 48
    for i, (name, value, colour) in enumerate(values):
        top = i * LINE_PX
        put_text(canvas, wrap(name, left - 3 * _MARGIN_PX)[0], 2 * _MARGIN_PX, top, colour)
        length = round(room * float(np.clip(value, 0, 1)))
        canvas[top + 4 : top + LINE_PX - 4, left : left + max(1, length)] = colour
        put_text(canvas, f"{100 * value:.0f}%", left + length + 5, top, GREY)
    return canvas


def overlay(image: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The image, dark where `weights` (h, w), non-negative, are small and warm where they are large."""
    heat = cv2.resize(weights.astype(np.float32), (image.shape[1], image.shape[0]), interpolation=cv2.INTER_CUBIC)
    heat = np.clip(heat / max(float(heat.max()), 1e-6), 0, 1)[..., None]
    warm = np.array([255.0, 90.0, 0.0])
    mixed = image * (0.35 + 0.65 * heat)
    return np.clip(mixed * (1 - 0.25 * heat) + warm * 0.25 * heat, 0, 255).astype(np.uint8)


def stack(images: Sequence[np.ndarray]) -> np.ndarray:
    """Images one below the other, padded with white on the right to the widest."""
    width = max(image.shape[1] for image in images)
    return np.concatenate(
        [np.pad(i, ((0, 0), (0, width - i.shape[1]), (0, 0)), constant_values=255) for i in images], axis=0
    )


def grid(tiles: Sequence[np.ndarray], columns: int, gap: int = 4) -> np.ndarray:
    """Tiles of one size in rows of `columns`, on white."""
    height, width = tiles[0].shape[:2]
    rows = -(-len(tiles) // columns)
    canvas = np.full((rows * (height + gap), columns * (width + gap), 3), 255, np.uint8)
    for i, tile in enumerate(tiles):
        y, x = i // columns * (height + gap), i % columns * (width + gap)
        canvas[y : y + height, x : x + width] = tile
    return canvas
