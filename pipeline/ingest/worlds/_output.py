"""What the generated worlds share on the way to disk: split sizes, checks of settings, JPEG, JSON, mask outlines."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from contracts.ranges import SEED, Range, check_ranges

# What a world can be drawn with; more objects find no place in a scene.
RANGES = {"seed": SEED, "image_size": Range(64, 1024), "jpeg_quality": Range(30, 100), "max_objects": Range(1, 7)}
_NUM_IMAGES = Range(1, 400_000)


@dataclass(frozen=True, kw_only=True)
class SplitSizes:
    """Number of records of each split."""

    train: int
    val: int

    @property
    def total(self) -> int:
        return self.train + self.val

    def __post_init__(self) -> None:
        check_ranges(self, train=_NUM_IMAGES, val=_NUM_IMAGES)


def image_rng(seed: int, stream: int, index: int) -> np.random.Generator:
    """The generator of one image: images do not depend on each other, nor on how many there are.

    `stream` is a number of its own for each split of each world.
    """
    return np.random.default_rng([seed, stream, index])


def encode_jpeg(image: np.ndarray, quality: int) -> bytes:
    """(H, W, 3) uint8 RGB -> JPEG bytes."""
    done, data = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality])
    assert done
    return data.tobytes()


def write_json(path: Path, document: Any) -> None:
    """Compact JSON, keys in the order given, so that equal documents are equal bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document, separators=(",", ":"), allow_nan=False), encoding="utf-8")


def mask_polygons(mask: np.ndarray) -> list[list[float]]:
    """Outline of a mask as COCO polygons: one flat x, y list for each connected part, in pixel-edge coordinates.

    The outline runs a quarter pixel inside the edge of the mask's pixels, so it encloses exactly their centres and
    `pycocotools` decodes it to the same mask. COCO polygons have no holes: a part with a hole is cut in two through it.

    Args:
        mask: (H, W) bool.
    """
    fine = np.repeat(np.repeat(mask.astype(np.uint8), 2, axis=0), 2, axis=1)
    contours, hierarchy = cv2.findContours(fine, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    holes = [c for c, links in zip(contours, hierarchy[0] if contours else (), strict=True) if links[3] >= 0]
    if holes:
        column = int(holes[0][:, 0, 0].min() + holes[0][:, 0, 0].max() + 2) // 4
        left, right = mask.copy(), mask.copy()
        left[:, column:] = False
        right[:, :column] = False
        return mask_polygons(left) + mask_polygons(right)
    return [np.round((c[:, 0, :] + 0.5) / 2, 2).ravel().tolist() for c in contours]


def mask_run_lengths(mask: np.ndarray) -> dict[str, list[int]]:
    """(H, W) bool -> COCO uncompressed RLE: runs down the columns, the first one of zeros (possibly none)."""
    flat = np.concatenate([[False], mask.ravel(order="F"), [False]])
    changes = np.flatnonzero(flat[1:] != flat[:-1])
    runs = np.diff(np.concatenate([[0], changes, [mask.size]])).tolist()
    if runs[-1] == 0:
        runs.pop()
    return {"counts": runs, "size": list(mask.shape)}
