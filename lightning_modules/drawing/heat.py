"""A matrix of weights between two lists of words, such as attention: (H, W, 3) uint8 RGB."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np

from lightning_modules.drawing.letters import text_width
from lightning_modules.drawing.text import BLACK, LINE_PX, put_text

CELL_PX = 20
_GAP_PX = 5
_MARK = np.array((230, 120, 0), np.uint8)  # tells itself from black, white and all greys


def heat_map(
    rows: Sequence[str], columns: Sequence[str], weights: np.ndarray, marked: Collection[tuple[int, int]] = ()
) -> np.ndarray:
    """Black for 0, white for 1, as 1409.0473 draws it; the columns' names stand upright above.

    Args:
        weights: (R, C), in 0..1.
        marked: places (row, column) with a frame around, such as what people aligned.
    """
    left = max(map(text_width, rows), default=0) + 2 * _GAP_PX
    top = max(map(text_width, columns), default=0) + 2 * _GAP_PX
    canvas = np.full((top + CELL_PX * len(rows) + 1, left + CELL_PX * len(columns) + 1, 3), 255, np.uint8)
    for i, name in enumerate(rows):
        x = left - _GAP_PX - text_width(name)
        put_text(canvas, name, x, top + i * CELL_PX + (CELL_PX - LINE_PX) // 2, BLACK)
    for j, name in enumerate(columns):
        strip = np.full((CELL_PX, top - _GAP_PX, 3), 255, np.uint8)
        put_text(strip, name, 0, (CELL_PX - LINE_PX) // 2, BLACK)
        canvas[: top - _GAP_PX, left + j * CELL_PX : left + (j + 1) * CELL_PX] = np.rot90(strip)
    grey = np.rint(255 * np.clip(np.asarray(weights, np.float64), 0, 1)).astype(np.uint8)
    for i in range(len(rows)):
        for j in range(len(columns)):
            cell = canvas[top + i * CELL_PX : top + (i + 1) * CELL_PX, left + j * CELL_PX : left + (j + 1) * CELL_PX]
            cell[:] = grey[i, j]
            if (i, j) in marked:
                for side in (np.s_[:2], np.s_[-2:], np.s_[:, :2], np.s_[:, -2:]):
                    cell[side] = _MARK
    return canvas
