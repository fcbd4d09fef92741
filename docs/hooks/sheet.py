"""The picture of README.md, from what `make repro` has drawn of the generated world: `python -m docs.hooks.sheet`.

It shows the first validation images, mistakes and all, as `plots/<run>/pictures` has them after the evaluation.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from PIL import Image

from lightning_modules.drawing.text import BLACK, GREY, fit, text_block

WIDTH, GAP = 420, 16  # pixels of a column, and between two
TARGET = Path("docs/images/predictions.jpg")
# Columns of (run, which of its pictures, what it does).
COLUMNS = (
    (
        ("captioning_attention", 2, "Captions, and the places behind each word (Show, Attend and Tell)"),
        ("detection_faster_rcnn", 3, "Boxes (Faster R-CNN)"),
    ),
    (("vqa_lstm", 2, "Answers to questions: green is right (VQA)"),),
    (
        ("instances_mask_rcnn", 2, "Boxes with masks (Mask R-CNN)"),
        ("segmentation_fcn", 3, "A class for each pixel (FCN)"),
        ("segmentation_fcn", 5, ""),
    ),
)


def sheet(plots: Path) -> np.ndarray:
    """(h, w, 3) uint8 RGB: the columns side by side, on white."""
    columns = [np.concatenate([_block(plots, *entry) for entry in column]) for column in COLUMNS]
    height = max(map(len, columns))
    out = np.full((height + 2 * GAP, len(columns) * (WIDTH + GAP) + GAP, 3), 255, np.uint8)
    for i, column in enumerate(columns):
        left = GAP + i * (WIDTH + GAP)
        out[GAP : GAP + len(column), left : left + WIDTH] = column
    return out


def _block(plots: Path, run: str, index: int, title: str) -> np.ndarray:
    pictures = sorted((plots / run / "pictures").glob("*.png"))
    if len(pictures) <= index:
        sys.exit(f"no picture {index} in {plots / run / 'pictures'}: run `make repro` first")
    with Image.open(pictures[index]) as image:
        drawn = fit(np.asarray(image.convert("RGB")), WIDTH)
    texts = [text_block([(run, GREY), (title, BLACK)], WIDTH)] if title else []
    return np.concatenate([*texts, drawn, np.full((GAP, WIDTH, 3), 255, np.uint8)])


def main() -> None:
    plots = Path(sys.argv[1] if len(sys.argv) > 1 else "plots")
    TARGET.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(sheet(plots)).save(TARGET, quality=84, subsampling=0, optimize=True)
    print(f"{TARGET}: {TARGET.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
