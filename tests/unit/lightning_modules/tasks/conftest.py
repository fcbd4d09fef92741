"""Records of squares and discs, drawn here: label 1 a square, label 2 a disc."""

import cv2
import numpy as np
import pytest

from contracts.records import DataSpec, Objects, Record
from lightning_modules.ops.masks import encode_masks

HEIGHT, WIDTH = 48, 64


def shape_record(index: int, *, empty: bool = False, crowd: bool = False, difficult: bool = False) -> Record:
    rng = np.random.default_rng(index)
    image = rng.integers(90, 110, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    semantic = np.zeros((HEIGHT, WIDTH), np.uint8)
    masks = np.zeros((0 if empty else 2, HEIGHT, WIDTH), np.uint8)
    if not empty:
        x, y = int(rng.integers(0, 8)), int(rng.integers(0, 20))
        masks[0, y : y + 22, x : x + 22] = 1
        cv2.circle(masks[1], (WIDTH - 16, int(rng.integers(14, 34))), 12, 1, -1)
        for mask, label, color in zip(masks, (1, 2), ((220, 40, 40), (40, 60, 220)), strict=True):
            image[mask == 1], semantic[mask == 1] = color, label
    semantic[:2] = 255
    boxes = [[m.any(0).argmax(), m.any(1).argmax(), *(np.argwhere(m).max(0)[::-1] + 1)] for m in masks]
    flags = np.zeros(len(masks), bool)
    return Record(
        key=f"image-{index:03d}",
        image_id=index,
        width=WIDTH,
        height=HEIGHT,
        image=cv2.imencode(".png", image[..., ::-1])[1].tobytes(),
        image_format="png",
        objects=Objects(
            ids=[str(i) for i in range(len(masks))],
            boxes=np.array(boxes, np.float32).reshape(-1, 4),
            labels=np.array([1, 2][: len(masks)], np.int64),
            areas=masks.sum((1, 2)).astype(np.float64),
            is_crowd=flags | np.array([crowd, False][: len(masks)], bool),
            is_difficult=flags | np.array([difficult, False][: len(masks)], bool),
            is_truncated=flags,
            masks=encode_masks(masks),
        ),
        semantic_mask=cv2.imencode(".png", semantic)[1].tobytes(),
    )


@pytest.fixture
def data() -> DataSpec:
    return DataSpec(dataset="shapes", classes=("square", "disc"))


@pytest.fixture
def make_record():
    return shape_record
