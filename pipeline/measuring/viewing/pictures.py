"""Pictures of `sightline view`: a record with all that lies on it, and any picture as a small data URL.

Images are (H, W, 3) uint8 RGB.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence

import cv2
import numpy as np

from contracts.records import IGNORE_INDEX, Record
from lightning_modules.augment.images import decode_image, decode_record, decode_semantic, image_size
from lightning_modules.drawing.shapes import draw_label_map, draw_objects, enlarge, enlargement, legend
from lightning_modules.drawing.text import fit
from lightning_modules.ops.masks import decode_masks

WIDTH_PX = 480  # of a record's picture
_FRAMES = 8  # of a clip, spread over it
_QUALITY = 80  # a photograph of 480 x 360 px is about 40 kB then


def data_url(picture: np.ndarray, width: int = WIDTH_PX) -> str:
    """As a JPEG inside the page, at most `width` px wide and one and a half times as high."""
    width = min(width, max(1, round(width * 1.5 * picture.shape[1] / picture.shape[0])))
    small = fit(picture, width) if picture.shape[1] > width else picture
    data = cv2.imencode(".jpg", cv2.cvtColor(small, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])[1]
    return "data:image/jpeg;base64," + base64.b64encode(data.tobytes()).decode()


def drawn(record: Record, classes: Sequence[str]) -> list[str]:
    """The record's pictures as data URLs: with its objects, and its label map where it has one; frames of a clip."""
    if record.media == "clip":
        places = np.unique(np.linspace(0, len(record.frames) - 1, _FRAMES).round().astype(int))
        frames = [fit(decode_image(record.frames[i]), WIDTH_PX // 4) for i in places]
        rows = [np.concatenate(frames[i : i + 4], axis=1) for i in range(0, len(frames), 4)]
        return [data_url(row) for row in rows]
    if record.media == "text":
        return []
    image, objects = decode_record(record), record.objects
    pictures = [enlarge(image, enlargement(image))]
    if len(objects):
        pictures = [draw_objects(image, objects.boxes, objects.labels, names(record, classes), object_masks(record))]
    if record.semantic_mask:
        pictures.append(label_map(image, decode_semantic(record.semantic_mask), classes))
    return [data_url(picture) for picture in pictures]


def names(record: Record, classes: Sequence[str]) -> list[str]:
    """What each object is called in a picture."""
    flags = zip(record.objects.labels, record.objects.is_crowd, record.objects.is_difficult, strict=True)
    return [
        classes[label - 1] + " (crowd)" * bool(crowd) + " (difficult)" * bool(difficult)
        for label, crowd, difficult in flags
    ]


def object_masks(record: Record) -> np.ndarray:
    """(N, height, width) uint8; of an object without a mask all 0."""
    objects, size = record.objects, (record.height, record.width)
    masks = np.zeros((len(objects), *size), np.uint8)
    has_mask = [i for i, mask in enumerate(objects.masks) if mask]
    masks[has_mask] = decode_masks([objects.masks[i] for i in has_mask], size)
    return masks


def label_map(image: np.ndarray, labels: np.ndarray, classes: Sequence[str]) -> np.ndarray:
    """The classes of pixels, labels (H, W) uint8, over the image, with a legend."""
    found = sorted(set(np.unique(labels).tolist()) - {0, IGNORE_INDEX})
    picture = draw_label_map(image, labels, IGNORE_INDEX)
    return np.concatenate([picture, legend(picture.shape[1], [(i, classes[i - 1]) for i in found])])


def thumbnail(record: Record, least: int) -> np.ndarray | None:
    """The image, or a clip's middle frame, decoded no larger than needed for `least` px a side; None: only texts."""
    if record.media == "text":
        return None
    data = record.image or record.frames[len(record.frames) // 2]
    spare = min(image_size(data)) / least
    return decode_image(data, shrink=next((k for k in (8, 4, 2) if k <= spare), 1))
