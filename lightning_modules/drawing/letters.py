"""Letters on images, in any script that DejaVu Sans has; of others, a box for each letter.

Latin, Greek, Cyrillic, Arabic, Hebrew, Armenian, Georgian and many signs are in it; Chinese, Japanese, Korean, Thai and
the scripts of India are not. The font comes with matplotlib, so that pictures are the same on every machine.
"""

from __future__ import annotations

import math
import unicodedata
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from lightning_modules.drawing.arabic import visual

SIZE_PX = 11
_DESCENT_PX = 8  # below the baseline: more than any letter has


def text_width(text: str, scale: float = 1.0) -> int:
    """Pixels of one line, of letters `scale` times as large."""
    return math.ceil(_font(scale).getlength(_line(text)))


def write(
    canvas: np.ndarray, text: str, x: int, baseline: int, colour: tuple[int, int, int], scale: float = 1.0
) -> None:
    """Draw one line in place on (H, W, 3) uint8, its letters standing on row `baseline`, from column `x` on.

    What does not fit on the canvas is cut off. Right-to-left text begins at the right end of its own line.
    """
    line = _line(text)
    above, below = round(2 * SIZE_PX * scale), round(_DESCENT_PX * scale)
    top, left = max(0, baseline - above), max(0, x)
    height = min(canvas.shape[0], baseline + below) - top
    width = min(canvas.shape[1] - left, x - left + text_width(text, scale) + below)  # not all of a large photograph
    if height <= 0 or width <= 0:
        return
    ink = Image.new("L", (width, height))
    ImageDraw.Draw(ink).text((x - left, baseline - top), line, font=_font(scale), fill=255, anchor="ls")
    alpha = np.asarray(ink, np.float32)[..., None] / 255
    area = canvas[top : top + height, left : left + width]
    area[:] = np.rint(area + alpha * (np.array(colour, np.float32) - area))


def _line(text: str) -> str:
    """As it is drawn. A line break or a control character would end the line or the program."""
    return visual("".join(" " if unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") else c for c in text))


@cache
def _font(scale: float = 1.0) -> ImageFont.FreeTypeFont:
    matplotlib = find_spec("matplotlib")  # without importing it, which takes as long as drawing a hundred pictures
    assert matplotlib is not None and matplotlib.origin is not None
    file = Path(matplotlib.origin).parent / "mpl-data/fonts/ttf/DejaVuSans.ttf"
    return ImageFont.truetype(file, round(SIZE_PX * scale), layout_engine=ImageFont.Layout.BASIC)
