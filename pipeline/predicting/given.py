"""What to predict for, one by one and read when its turn comes: files, folders, patterns, a list, standard input, and
the frames of videos. So a folder of 100,000 files takes no more memory than a batch of them."""

from __future__ import annotations

import glob
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from contracts.errors import DataError
from contracts.inputs import FPS, Given
from pipeline.ingest.tree import IMAGES, VIDEOS
from pipeline.system.reading import listed

Kind = Literal["image", "clip"]
STDIN = "-"
_FORMS = "a file, a folder, a pattern such as 'photos/*.jpg' in quotes, or - for standard input"


@dataclass(frozen=True, kw_only=True)
class Item:
    """One input of the model; of the frame of a video, `name` is the video's.

    Attributes:
        name: as it was given or found; empty where the model takes texts alone.
        stem: what its picture is called by.
        data: what was read, None where that failed (`error`) or there is nothing to read.
        frame: number in the video, from 0; None: no video.
        time_s: of the frame, from the video's start.
    """

    name: str
    stem: str
    data: Given | None = None
    error: DataError | None = None
    frame: int | None = None
    time_s: float | None = None


def check_names(given: Sequence[str]) -> None:
    """Refuse what the command line names and is not there, before anything is done.

    Raises:
        DataError: no such file, or nothing matches the pattern.
    """
    for name in given:
        if name == STDIN or Path(name).exists():
            continue
        if not glob.has_magic(name):
            raise DataError("no such image file", value=name, allowed=_FORMS)
        if next(glob.iglob(name, recursive=True), None) is None:
            raise DataError("no file matches this pattern", value=name, allowed=_FORMS)


def names(given: Sequence[str], lines: str | None, kind: Kind) -> Iterator[str]:
    """Files, and where the model takes clips folders of frames, in the order of what is given; each folder's and each
    pattern's sorted. `lines`: a file with a path a line, or `-`."""
    for name in given:
        if name == STDIN:
            yield name
        elif Path(name).exists():
            yield from _below(Path(name), kind)
        else:
            for match in sorted(glob.glob(name, recursive=True)):
                yield from _below(Path(match), kind)
    if lines is not None:
        yield from _of_list(lines, kind)


def _of_list(lines: str, kind: Kind) -> Iterator[str]:
    try:
        with open(
            sys.stdin.fileno() if lines == STDIN else lines, encoding="utf-8-sig", closefd=lines != STDIN
        ) as file:
            for line in file:
                if name := line.rstrip("\r\n"):
                    yield from _below(Path(name), kind)
    except OSError as error:
        raise DataError(
            "the list cannot be read", value=error.strerror or str(error), where=f"--list {lines}"
        ) from error
    except UnicodeDecodeError:
        raise DataError("the list is no UTF-8 text", where=f"--list {lines}", allowed="a path a line") from None


def _below(path: Path, kind: Kind) -> Iterator[str]:
    """The path itself, or what a folder holds. A folder without anything to use is told when it is read."""
    if not path.is_dir():
        yield str(path)
        return
    found = _found(path, kind, ())
    first = next(found, None)
    yield str(path) if first is None else first
    yield from found


def _found(folder: Path, kind: Kind, above: tuple[tuple[int, int], ...]) -> Iterator[str]:
    """Images at any depth; of clips, each folder that has images itself, and each video."""
    about = os.stat(folder)
    here = (about.st_dev, about.st_ino)
    if here in above:
        return  # a link back to a folder that this one lies in
    children = listed(folder)
    if kind == "clip" and any(child.suffix.lower() in IMAGES for child in children):
        yield str(folder)
        return
    wanted = VIDEOS if kind == "clip" else IMAGES
    for child in children:
        if child.is_dir():
            yield from _found(child, kind, (*above, here))
        elif child.suffix.lower() in wanted:
            yield str(child)


def read(
    name: str, kind: Kind, *, fps: float | None, every: int, skipped: Callable[[str, int | None], bool]
) -> Iterator[Item]:
    """The input of that name, or inputs, where it is a video and the model takes images.

    Args:
        every: of a video's frames each so-many-th, from the first.
        skipped: whether that input (name, frame) is not wanted; it is then not read, or not turned into pixels.
    """
    path, stem = Path(name), "stdin" if name == STDIN else Path(name).stem
    is_video = kind == "image" and path.suffix.lower() in VIDEOS
    if not is_video and skipped(name, None):
        return
    try:
        if is_video:
            yield from _frames(path, every, skipped)
        else:
            yield Item(name=name, stem=stem, data=_data(name, path, kind, fps))
    except DataError as error:
        if not skipped(name, None):
            yield Item(name=name, stem=stem, error=error)


def _data(name: str, path: Path, kind: Kind, fps: float | None) -> Given:
    if kind == "clip":
        from pipeline.predicting.clips import read_clip

        return read_clip(path, fps)
    if path.is_dir():
        allowed = f"files {', '.join(IMAGES)} at any depth"
        raise DataError("this folder has no images", value=name, allowed=allowed, fix="name videos by their files")
    try:
        return sys.stdin.buffer.read() if name == STDIN else path.read_bytes()
    except FileNotFoundError:
        raise DataError("no such image file", value=name) from None
    except OSError as error:
        raise DataError("this file cannot be read", value=error.strerror or str(error), where=name) from error


def frame_rate(capture: Any) -> float:
    """Frames a second of a `cv2.VideoCapture`, by its file, or `FPS` where that says none that could be."""
    import cv2

    said = float(capture.get(cv2.CAP_PROP_FPS))
    return said if 0 < said < 1000 else float(FPS)


def _frames(path: Path, every: int, skipped: Callable[[str, int | None], bool]) -> Iterator[Item]:
    """Frame i is at i / fps seconds, as the door has it (`ingest/door/videos.py`), and goes on as its lossless PNG."""
    import cv2

    if not path.is_file():
        raise DataError("no such video file", value=str(path))
    capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)  # others take a file's name for a pattern of images
    try:
        fps, number = frame_rate(capture), 0
        while capture.grab():
            if number % every == 0 and not skipped(str(path), number):
                there, pixels = capture.retrieve()
                if there:
                    png = cv2.imencode(".png", pixels, [cv2.IMWRITE_PNG_COMPRESSION, 1])[1].tobytes()
                    stem, time_s = f"{path.stem}-{number:06d}", round(number / fps, 6)
                    yield Item(name=str(path), stem=stem, data=png, frame=number, time_s=time_s)
            number += 1
    finally:
        capture.release()
    if not number:
        raise DataError("no frames can be read from this video", value=str(path), allowed="a video that OpenCV reads")
