"""A clip from the command line: a folder of frames, or a file that holds several, an animated image or a video."""

from __future__ import annotations

import io
import re
import warnings
from itertools import accumulate
from pathlib import Path

from PIL import Image, ImageSequence, UnidentifiedImageError

from contracts.errors import DataError
from contracts.inputs import FPS, Clip
from contracts.raw import RawVideo
from pipeline.ingest.door import DEFAULT_DOOR, RULES
from pipeline.ingest.door.pixels import MAX_FRAMES
from pipeline.ingest.door.rules import Refused
from pipeline.ingest.door.videos import decode_video
from pipeline.ingest.sources._files import IMAGE_SUFFIXES
from pipeline.system.reading import listed

_FORMS = "a folder of image files, an animated GIF, WebP, PNG or TIFF, or a video that OpenCV reads"
_NUMBER = re.compile(r"(\d+)\D*$", re.ASCII)


def read_clip(path: Path, fps: float | None = None) -> Clip:
    """The frames of `path` in the order of time.

    Args:
        path: a folder, whose frames are in the order of the numbers that their names end in; or a file.
        fps: frames a second; None: what the file says, 25 where it does not.

    Raises:
        DataError: nothing is there, or it has no frames that can be read, or more than `MAX_FRAMES`.
    """
    if path.is_dir():
        return Clip.even([frame.read_bytes() for frame in _few(_frames_of(path), path)], fps or FPS)
    if not path.is_file():
        raise DataError("no such file or folder", value=str(path), allowed=_FORMS)
    clip = _of_image(path, fps) or _of_video(path, fps)
    if not clip:
        raise DataError("no frames can be read from this file", value=str(path), allowed=_FORMS)
    return clip


def _frames_of(folder: Path) -> list[Path]:
    files = [file for file in listed(folder) if file.suffix.lower() in IMAGE_SUFFIXES]
    if not files:
        raise DataError("this folder has no frames", value=str(folder), allowed=f"files {', '.join(IMAGE_SUFFIXES)}")

    def order(file: Path) -> tuple[int, str]:
        number = _NUMBER.search(file.stem)
        return int(number[1]) if number else -1, file.name

    return sorted(files, key=order)


def _few(frames: list[Path], path: Path) -> list[Path]:
    if len(frames) > MAX_FRAMES:
        raise _too_many(path)
    return frames


def _too_many(path: Path) -> DataError:
    return DataError("a clip has too many frames", value=str(path), allowed=f"at most {MAX_FRAMES}", fix="cut it")


def _of_image(path: Path, fps: float | None) -> Clip | None:
    """Of an animated image, or of a plain one, which is a clip of one frame; None where Pillow knows no such format."""
    frames: list[bytes] = []
    pauses_s: list[float] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the door looks at each frame
        try:
            with Image.open(path) as image:
                for frame in ImageSequence.Iterator(image):
                    if len(frames) == MAX_FRAMES:
                        raise _too_many(path)
                    out = io.BytesIO()
                    frame.convert("RGB").save(out, "PNG", compress_level=1)
                    frames.append(out.getvalue())
                    pauses_s.append(frame.info.get("duration", 0) / 1000 or 1 / FPS)
        except UnidentifiedImageError:
            return None
        except DataError:
            raise
        except Exception as error:  # damaged files make Pillow raise errors of a dozen types
            raise DataError("this file cannot be read", value=repr(error)[:200], where=str(path)) from error
    if fps is not None:
        return Clip.even(frames, fps)
    return Clip(frames=tuple(frames), times_s=tuple(accumulate(pauses_s[:-1], initial=0.0)))


def _of_video(path: Path, fps: float | None) -> Clip | None:
    """As the door decodes it; None where OpenCV finds no frame."""
    try:
        video = decode_video(RawVideo(file=path.resolve()), DEFAULT_DOOR, MAX_FRAMES)
    except Refused as refused:
        if refused.reason == "undecodable_video":
            return None
        if refused.reason == "too_many_frames":
            raise _too_many(path) from None
        raise DataError(
            f"this video cannot be used: {RULES[refused.reason]}", value=refused.detail, where=str(path)
        ) from None
    return Clip(frames=video.frames, times_s=video.times_s) if fps is None else Clip.even(video.frames, fps)
