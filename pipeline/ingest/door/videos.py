"""Videos -> the frames that are kept of them, as JPEGs of one size, with their times.

A video is decoded once, from its start to the end of the part that is asked for: OpenCV's own jump to a frame lands
beside it in files whose key frames are far apart. Frame i is at i / fps seconds of the file, with the frames a second
that the file says; files that vary them are taken as even.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import simplejpeg

from contracts.inputs import FPS
from contracts.raw import ImagePart, RawVideo
from pipeline.ingest.door.config import DoorConfig
from pipeline.ingest.door.rules import Refused

if TYPE_CHECKING:
    import cv2

QUALITY = 95  # of frames that are not made smaller
_HEAD = ImagePart(offset=0, size=64)
_WHOLE_SHARE = 0.9  # of the announced frames: containers count roughly
_EPS = 1e-6


@dataclass(frozen=True, slots=True, kw_only=True)
class Clip:
    """Frames as JPEGs with the seconds from the first one; width and height of the video's own pixels."""

    frames: tuple[bytes, ...]
    times_s: tuple[float, ...]
    width: int
    height: int
    fixes: tuple[str, ...] = ()


def decode_video(video: RawVideo, door: DoorConfig, max_frames: int) -> Clip:
    """The frames that `video` asks for, made smaller as `door` says.

    Raises:
        Refused: there is no such file, no frame of it can be decoded, or there are too many pixels or frames.
        DataError: this host cannot read the file.
    """
    door.read(video.file, "missing_video", _HEAD)  # what the machine cannot read is its own error, none of the data
    frames: list[bytes] = []
    times_s: list[float] = []
    with door.local(video.file) as file, _opened(file) as capture:
        width, height, fps, announced = _header(capture)
        if width * height > door.max_pixels:
            raise Refused("too_many_pixels", f"{width} x {height}, the limit is {door.max_pixels / 1e6:g} million")
        count = 0
        for time_s, pixels in _kept(capture, video, fps):
            count += 1
            if pixels is None:
                continue
            if len(frames) == max_frames:
                raise Refused("too_many_frames", f"more than {max_frames}; `fps` or `every` keeps fewer of a video")
            height, width = pixels.shape[:2]
            times_s.append(time_s)
            shrunk = door.shrink is not None and door.shrink.applies((width, height))
            assert door.shrink is not None or not shrunk
            frames.append(door.shrink.pixels(pixels) if shrunk else encode_frame(pixels))  # type: ignore[union-attr]
    if not frames:
        part = "" if video.start_s == 0 and video.end_s is None else f" from {video.start_s} s to {video.end_s} s"
        raise Refused("undecodable_video", f"{count} frames were decoded, none{part}")
    fixes = ["image_shrunk"] * len(frames) if door.shrink and door.shrink.applies((width, height)) else []
    if video.end_s is None and count < _WHOLE_SHARE * announced:
        fixes.append("video_ends_early")
    return Clip(
        frames=tuple(frames), times_s=tuple(round(t - times_s[0], 6) for t in times_s), width=width, height=height,
        fixes=tuple(fixes),
    )  # fmt: skip


def encode_frame(pixels: np.ndarray) -> bytes:
    """(H, W, 3) uint8 RGB -> a JPEG of quality 95, 4:4:4."""
    return simplejpeg.encode_jpeg(np.ascontiguousarray(pixels), QUALITY, "rgb", "444")


@contextmanager
def _opened(file: Path) -> Iterator[cv2.VideoCapture]:
    import cv2  # here: it takes longer to import than the rest of the door

    capture = cv2.VideoCapture(str(file), cv2.CAP_FFMPEG)  # others take a file's name for a pattern of images
    try:
        yield capture
    finally:
        capture.release()


def _header(capture: cv2.VideoCapture) -> tuple[int, int, float, int]:
    """Width, height, frames a second and number of frames, as the file announces them; 0 where it does not."""
    import cv2

    said = capture.get(cv2.CAP_PROP_FPS)
    sides = (int(capture.get(side)) for side in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT))
    width, height = sides
    return width, height, said if 0 < said < 1000 else FPS, max(0, int(capture.get(cv2.CAP_PROP_FRAME_COUNT)))


def _kept(capture: cv2.VideoCapture, video: RawVideo, fps: float) -> Iterator[tuple[float, np.ndarray | None]]:
    """Of each frame up to the end of the part: its time in the file, and its pixels, RGB, where it is to be kept."""
    import cv2

    number, inside, last_slot = 0, 0, -1
    while capture.grab():
        time_s = number / fps
        number += 1
        if video.end_s is not None and time_s >= video.end_s - _EPS:
            return
        if time_s < video.start_s - _EPS:
            yield time_s, None
            continue
        slot = inside // video.every if video.fps is None else int(inside * video.fps / fps + _EPS)
        inside += 1
        if slot == last_slot:
            yield time_s, None
            continue
        last_slot = slot
        there, pixels = capture.retrieve()
        yield time_s, cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB) if there else None
