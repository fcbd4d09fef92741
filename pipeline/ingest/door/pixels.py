"""The pixels of a record: its image with its masks, or the frames of its clip, or nothing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from contracts.raw import RawRecord
from pipeline.ingest.door.config import DoorConfig
from pipeline.ingest.door.images import CleanImage, clean_image, jpeg_of
from pipeline.ingest.door.masks import ids_to_labels, load_colors, load_ids, open_ids
from pipeline.ingest.door.rules import Refused
from pipeline.ingest.door.videos import decode_video

MAX_FRAMES = 10_000  # their numbers have four digits


@dataclass(frozen=True, slots=True, kw_only=True)
class Pixels:
    """Clean pixels of a record, `labels` and `instance_ids` (H, W) uint8 where it has such masks."""

    width: int = 0
    height: int = 0
    image: bytes = b""
    image_format: Literal["jpg", "png", ""] = ""
    frames: tuple[bytes, ...] = ()
    times_s: tuple[float, ...] = ()  # of a video's frames, which nobody knew before
    labels: np.ndarray | None = None
    instance_ids: np.ndarray | None = None
    fixes: tuple[str, ...] = ()


def clean_pixels(raw: RawRecord, num_classes: int, door: DoorConfig) -> Pixels:
    """Open and check every file of pixels that `raw` names.

    Raises:
        Refused: one of them cannot be used; its `file` says which.
        DataError: this host cannot read a file.
    """
    if raw.image is not None:
        return _image_and_masks(raw, raw.image, num_classes, door)
    if raw.frames:
        return _clip(raw, door)
    if raw.video is not None:
        with _named(raw.video.file):
            clip = decode_video(raw.video, door, MAX_FRAMES)
        if (raw.width or raw.height) and (raw.width, raw.height) != (clip.width, clip.height):
            what = f"annotation {raw.width} x {raw.height}, video {clip.width} x {clip.height}"
            raise Refused("size_mismatch", what, raw.video.file)
        return Pixels(width=clip.width, height=clip.height, frames=clip.frames, times_s=clip.times_s, fixes=clip.fixes)
    return Pixels()


@contextmanager
def _named(file: Path) -> Iterator[None]:
    try:
        yield
    except Refused as refused:
        refused.file = refused.file or file
        raise


def _image_and_masks(raw: RawRecord, file: Path, num_classes: int, door: DoorConfig) -> Pixels:
    masks: dict[Path, tuple[Image.Image, bytes]] = {}
    for path in (raw.semantic_mask, raw.instance_mask):
        if path is not None:
            with _named(path):
                data = door.read(path, "missing_mask")
                is_colored = path == raw.semantic_mask and raw.label_colors is not None
                masks[path] = (open_ids(data, door.max_pixels, colors=is_colored), data)
    with _named(file):
        image = _image(raw, file, masks[raw.semantic_mask][0].size if raw.semantic_mask else None, door)
    for path, (mask, _) in masks.items():
        if mask.size != (image.width, image.height):
            sizes = f"mask {mask.width} x {mask.height}, image {image.width} x {image.height}"
            raise Refused("mask_size_mismatch", sizes, path)
    labels = instance_ids = None
    if raw.semantic_mask is not None:
        with _named(raw.semantic_mask):
            labels = _labels(raw, *masks[raw.semantic_mask], num_classes)
    if raw.instance_mask is not None:
        with _named(raw.instance_mask):
            instance_ids = load_ids(*masks[raw.instance_mask])
    return Pixels(
        width=image.width,
        height=image.height,
        image=image.data,
        image_format=image.format,
        labels=labels,
        instance_ids=instance_ids,
        fixes=image.fixes,
    )


def _labels(raw: RawRecord, mask: Image.Image, data: bytes, num_classes: int) -> np.ndarray:
    """(H, W) uint8 labels of the label mask."""
    if raw.label_colors is not None and mask.mode in ("RGB", "RGBA", "P"):
        return load_colors(mask, data, raw.label_colors)
    return ids_to_labels(load_ids(mask, data), num_classes, raw.label_map)


def _image(raw: RawRecord, file: Path, mask_size: tuple[int, int] | None, door: DoorConfig) -> CleanImage:
    """The clean image. `mask_size` is (width, height) of the label mask, which speaks where the annotation does not."""
    claimed = (raw.width, raw.height) if raw.width or raw.height else None
    has_pixel_annotations = bool(raw.semantic_mask) or not all(item.is_relative for item in raw.objects)
    if raw.proposals is not None or any(question.candidate_boxes for question in raw.questions):
        has_pixel_annotations = True
    image = clean_image(
        door.read(file, "missing_image", raw.image_part),
        claimed=claimed or mask_size,
        has_pixel_annotations=has_pixel_annotations,
        shrink=door.shrink,
        max_pixels=door.max_pixels,
        exif=door.exif,
    )
    sizes = [(image.width, image.height)]
    if door.exif == "apply":  # tools that draw on the turned picture write the size of either
        sizes.append(image.stored)
    if claimed is not None and claimed not in sizes:
        raise Refused("size_mismatch", f"annotation {raw.width} x {raw.height}, file {image.width} x {image.height}")
    return image


def _clip(raw: RawRecord, door: DoorConfig) -> Pixels:
    """The frames as JPEGs of one size."""
    _check_times(raw.times_s, len(raw.frames))
    frames: list[bytes] = []
    fixes: list[str] = []
    size: tuple[int, int] | None = (raw.width, raw.height) if raw.width or raw.height else None
    for file in raw.frames:
        with _named(file):
            frame = clean_image(
                door.read(file, "missing_frame"),
                claimed=size,
                has_pixel_annotations=False,
                shrink=door.shrink,
                max_pixels=door.max_pixels,
                exif=door.exif,
            )
            size = size or (frame.width, frame.height)
            if size != (frame.width, frame.height):
                expected = f"{size[0]} x {size[1]} pixels are expected"
                raise Refused("frame_size_mismatch", f"{frame.width} x {frame.height}, {expected}")
            fixes += frame.fixes
            frames.append(frame.data if frame.format == "jpg" else jpeg_of(frame.data, fixes))
    assert size is not None
    return Pixels(width=size[0], height=size[1], frames=tuple(frames), fixes=tuple(fixes))


def _check_times(times_s: Sequence[float], frames: int) -> None:
    if frames > MAX_FRAMES:
        raise Refused("too_many_frames", f"{frames}, the limit is {MAX_FRAMES}")
    times = np.asarray(times_s, np.float64)
    if len(times) != frames or not np.isfinite(times).all() or (times < 0).any() or (np.diff(times) <= 0).any():
        raise Refused("bad_frame_times", f"{len(times)} times for {frames} frames")
