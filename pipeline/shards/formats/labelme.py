"""LabelMe's JSON beside each picture (https://github.com/wkentaro/labelme): rectangles, and polygons around masks."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from contracts.records import Record
from lightning_modules.augment.images import image_size
from lightning_modules.ops.masks import decode_masks
from pipeline.shards.formats import Splits, put, with_image

_VERSION = "5.5.0"  # of the format that is written


def write(folder: Path, splits: Splits, classes: Sequence[str]) -> Counter[str]:
    """Objects that are no crowd; a mask is the outlines of its parts, in one group, without its holes. Labels of images
    are flags. Captions and questions have no place here."""
    left_out: Counter[str] = Counter()
    for split, records in splits.items():
        for record in with_image(records, left_out):
            height, width = image_size(record.image)
            scale = np.array([width / record.width, height / record.height])  # the picture may be stored smaller
            document: dict[str, Any] = {
                "version": _VERSION,
                "flags": dict.fromkeys(record.labels, True),
                "shapes": _shapes(record, classes, scale),
                "imagePath": f"{record.key}.{record.image_format}",
                "imageData": None,
                "imageHeight": height,
                "imageWidth": width,
            }
            put(folder / split / document["imagePath"], record.image)
            put(folder / split / f"{record.key}.json", json.dumps(document, ensure_ascii=False, indent=1))
            left_out["crowd"] += int(record.objects.is_crowd.sum())
            left_out["caption"] += len(record.captions)
            left_out["question"] += len(record.questions)
    return +left_out


def _shapes(record: Record, classes: Sequence[str], scale: np.ndarray) -> list[dict[str, Any]]:
    shapes = []
    objects = record.objects
    for i in np.flatnonzero(~objects.is_crowd).tolist():
        if objects.masks[i]:
            (mask,) = decode_masks([objects.masks[i]], (record.height, record.width))
            kind, parts = "polygon", _outlines(mask)
        else:
            kind, parts = "rectangle", [objects.boxes[i].reshape(2, 2)]
        shapes += [
            {
                "label": classes[objects.labels[i] - 1],
                "points": (points * scale).tolist(),
                "group_id": i if len(parts) > 1 else None,
                "shape_type": kind,
                "flags": {},
            }
            for points in parts
        ]
    return shapes


def _outlines(mask: np.ndarray) -> list[np.ndarray]:
    """(P, 2) corners of each part of a mask (H, W) uint8, along the edges of its pixels."""
    # OpenCV goes through the centres of the outermost pixels. With each pixel as 2 x 2, grown by one to the right and
    # below, those centres are the corners of pixels.
    doubled = np.zeros((2 * mask.shape[0] + 1, 2 * mask.shape[1] + 1), np.uint8)
    for dy in (0, 1, 2):
        for dx in (0, 1, 2):
            doubled[dy : dy + 2 * mask.shape[0] : 2, dx : dx + 2 * mask.shape[1] : 2] |= mask
    outlines, _ = cv2.findContours(doubled, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    return [outline[:, 0].astype(np.float64) / 2 for outline in outlines if len(outline) > 2]
