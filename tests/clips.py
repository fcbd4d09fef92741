"""Small clips for tests: records with frames, and data sets of videos."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import simplejpeg

from contracts.records import Record


def frame(value: int, size: int = 24) -> np.ndarray:
    """A grey square with a light column, further right the larger `value` is."""
    pixels = np.full((size, size, 3), 40, np.uint8)
    pixels[:, (3 * value) % size : (3 * value) % size + 3] = 220
    return pixels


def clip_record(key: str, values: Sequence[int], **parts: Any) -> Record:
    """A record of one frame for each value, ten a second."""
    frames = tuple(simplejpeg.encode_jpeg(frame(value), 95, "rgb", "444") for value in values)
    times = tuple(i / 10 for i in range(len(frames)))
    return Record(key=key, image_id=key, width=24, height=24, frames=frames, times_s=times, **parts)


def write_clip(path: Path, values: Sequence[int], fps: float = 10.0, size: int = 24) -> Path:
    """A video file without loss, a frame for each value."""
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*"FFV1"), fps, (size, size))
    assert writer.isOpened()
    for value in values:
        writer.write(frame(value, size))
    writer.release()
    return path


def seen(data: bytes) -> int:
    """The value of an encoded frame."""
    pixels = simplejpeg.decode_jpeg(data, strict=False)
    return int(pixels[2, :, 0].astype(int).argmax()) // (3 * pixels.shape[0] // 24)
