"""Pictures of clips: frames in a row, values over time, and labels of frames as a band. Images (H, W, 3) uint8 RGB."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import cv2
import numpy as np

from lightning_modules.drawing.letters import text_width, write
from lightning_modules.drawing.shapes import class_color
from lightning_modules.drawing.text import BLACK, GREY, Colour, fit

_GAP_PX, _AXIS_PX, _ROW_PX = 3, 34, 20


def film(frames: Sequence[np.ndarray], width: int, *, most: int = 8, most_height: int = 240) -> np.ndarray:
    """At most `most` of the frames, evenly chosen with the first and the last, side by side: (h, width, 3)."""
    count = min(most, len(frames))
    chosen = np.unique(np.linspace(0, len(frames) - 1, count).round().astype(int))
    cell = (width - _GAP_PX * (len(chosen) - 1)) // len(chosen)
    cell = min(cell, max(1, round(most_height * frames[0].shape[1] / frames[0].shape[0])))
    shown = [_sharp(frames[i], cell) for i in chosen]
    canvas = np.full((shown[0].shape[0], width, 3), 255, np.uint8)
    for i, frame in enumerate(shown):
        left = i * (cell + _GAP_PX)
        canvas[:, left : left + cell] = frame
    return canvas


def _sharp(frame: np.ndarray, width: int) -> np.ndarray:
    """Small frames become large pixels, no blur."""
    factor = width // frame.shape[1]
    return fit(np.repeat(np.repeat(frame, factor, axis=0), factor, axis=1) if factor > 1 else frame, width)


def curves(lines: Sequence[tuple[str, Sequence[float], Colour]], width: int, height: int, *, below: str) -> np.ndarray:
    """Values in 0..1 over equal steps from left to right, a line each, named at the top; `below` says what the steps
    are: (h, width, 3)."""
    head = _ROW_PX * len(lines) if len(lines) > 3 else _ROW_PX
    canvas = np.full((head + height + _ROW_PX, width, 3), 255, np.uint8)
    right, bottom = width - 8, head + height - 4
    for value in (0.0, 0.5, 1.0):
        y = round(bottom - value * (height - 12))
        cv2.line(canvas, (_AXIS_PX, y), (right, y), (225, 225, 225), 1)
        write(canvas, f"{value:g}", 6, y + 4, GREY)
    x = _AXIS_PX
    for number, (name, values, colour) in enumerate(lines):
        steps = max(1, len(values) - 1)
        points = [
            (round(_AXIS_PX + (right - _AXIS_PX) * i / steps), round(bottom - float(np.clip(v, 0, 1)) * (height - 12)))
            for i, v in enumerate(values)
        ]
        for start, end in pairwise(points):
            cv2.line(canvas, start, end, colour, 2, cv2.LINE_AA)
        if len(lines) > 3:
            write(canvas, name, _AXIS_PX, number * _ROW_PX + 14, colour)
        else:
            write(canvas, name, x, 14, colour)
            x += text_width(name) + 18
    write(canvas, below, _AXIS_PX, head + height + 12, GREY)
    return canvas


def band_start(rows: Sequence[tuple[str, Sequence[int]]]) -> int:
    """The column where the bands begin, behind their titles."""
    return 8 + max(text_width(title) for title, _ in rows)


def bands(rows: Sequence[tuple[str, Sequence[int]]], width: int) -> np.ndarray:
    """Labels of frames as colored bands, one under the other: `rows` of (title, label of each frame), 0 white.

    The colors are those of `class_color`, which `drawing.shapes.legend` names: (h, width, 3)."""
    left = band_start(rows)
    canvas = np.full((_ROW_PX * len(rows), width, 3), 255, np.uint8)
    for number, (title, labels) in enumerate(rows):
        top = number * _ROW_PX
        write(canvas, title, 4, top + 14, BLACK)
        edges = np.linspace(left, width, len(labels) + 1).round().astype(int)
        for label, start, end in zip(labels, edges, edges[1:], strict=False):
            canvas[top + 3 : top + _ROW_PX - 2, start:end] = class_color(label) if label else (255, 255, 255)
            canvas[top + 3 : top + _ROW_PX - 2, end - 1 : end] //= 2
        cv2.rectangle(canvas, (left, top + 3), (width - 1, top + _ROW_PX - 3), GREY, 1)
    return canvas
