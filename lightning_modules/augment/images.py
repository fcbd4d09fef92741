"""Encoded images -> arrays."""

from __future__ import annotations

import struct

import cv2
import numpy as np
import simplejpeg

from contracts.errors import DataError
from contracts.records import Record

cv2.setNumThreads(0)  # loader workers are the parallelism

_JPEG = b"\xff\xd8"
_PNG = b"\x89PNG\r\n\x1a\n"


def image_size(data: bytes) -> tuple[int, int]:
    """(height, width) of an encoded JPEG or PNG, from its header.

    Raises:
        DataError: the bytes are no image.
    """
    try:
        if data.startswith(_JPEG):
            height, width, *_ = simplejpeg.decode_jpeg_header(data, strict=False)
            return height, width
        if data.startswith(_PNG):
            width, height = struct.unpack(">II", data[16:24])
            return height, width
    except (ValueError, struct.error):
        pass
    raise _undecodable(data)


def decode_image(data: bytes, *, shrink: int = 1) -> np.ndarray:
    """Encoded JPEG or PNG -> (H, W, 3) uint8 RGB; grey becomes RGB; EXIF rotation is not applied.

    JPEGs are decoded as libjpeg-turbo does by default: accurate integer DCT, smooth ("fancy") chroma upsampling.

    Args:
        shrink: 1, 2, 4 or 8: each block of so many pixels a side becomes their average; the last ones of a row or
            column are filled up with its border. With a JPEG the inverse DCT does it, which saves up to a third of
            the time.

    Raises:
        DataError: the bytes are no image.
    """
    try:
        if data.startswith(_JPEG):
            height, width = (-(-length // shrink) for length in image_size(data)) if shrink > 1 else (0, 0)
            return simplejpeg.decode_jpeg(data, min_height=height, min_width=width, strict=False)  # the door was strict
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION)
    except (ValueError, cv2.error) as error:
        raise _undecodable(data) from error
    if image is None:
        raise _undecodable(data)
    if shrink > 1:
        rest = [-length % shrink for length in image.shape[:2]]
        if any(rest):
            image = cv2.copyMakeBorder(image, 0, rest[0], 0, rest[1], cv2.BORDER_REPLICATE)
        size = image.shape[1] // shrink, image.shape[0] // shrink
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    return image


def decode_semantic(data: bytes) -> np.ndarray:
    """Encoded single-channel 8-bit PNG -> (H, W) uint8 labels.

    Raises:
        DataError: the bytes are no such image.
    """
    labels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if labels is None or labels.ndim != 2 or labels.dtype != np.uint8:
        raise DataError(
            "a semantic mask cannot be decoded",
            value=data[:16] if labels is None else (labels.shape, str(labels.dtype)),
            allowed="an 8-bit single-channel PNG of labels without palette",
        )
    return labels


def decode_record(record: Record) -> np.ndarray:
    """(height, width, 3) uint8 RGB of the record's own size, to draw annotations on; shards may store fewer pixels."""
    image = decode_image(record.image)
    if image.shape[:2] == (record.height, record.width):
        return image
    return cv2.resize(image, (record.width, record.height), interpolation=cv2.INTER_LINEAR)


def _undecodable(data: bytes) -> DataError:
    return DataError("an image cannot be decoded", value=data[:16], allowed="a complete JPEG or PNG file")
