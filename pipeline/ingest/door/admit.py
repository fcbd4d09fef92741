"""One raw record -> a valid record, or the reason why not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from contracts.records import IGNORE_INDEX, ImagePart, Problem, RawRecord, Record
from pipeline.ingest.door.images import MAX_PIXELS, CleanImage, Exif, clean_image, read_bytes
from pipeline.ingest.door.masks import encode_labels, ids_to_labels, load_colors, load_ids, open_ids
from pipeline.ingest.door.objects import clean_labels, clean_objects
from pipeline.ingest.door.rules import Refused
from pipeline.ingest.door.shrink import Shrink
from pipeline.ingest.door.text import clean_captions, clean_questions
from pipeline.system.reading import check_folder


@dataclass(frozen=True, slots=True, kw_only=True)
class Admission:
    """What became of one raw record.

    `record` is None where the whole record is refused; `problems` then holds that one reason, of kind "record".
    Otherwise `problems` names dropped objects, captions and questions. `fixes` counts changes by rule, `labels` the
    objects and the pixels of each label, by ("object" or "pixel", label); crowds and what is ignored do not count.
    """

    record: Record | None
    problems: list[Problem] = field(default_factory=list)
    fixes: Counter[str] = field(default_factory=Counter)
    labels: Counter[tuple[str, int]] = field(default_factory=Counter)


@dataclass(frozen=True, slots=True, kw_only=True)
class DoorConfig:
    """What is the same for all records of a data set.

    Args:
        root: the data set's folder, which every node that opens files must have, and that no file may lie outside of;
            None where that is not known.
        follow_links: files may be links that lead out of `root`.
        max_pixels: of an image or mask; compared with what its header announces, before it is decoded.
        shrink: how large images are made smaller; None keeps them.
        exif: what an orientation tag means for the annotations (`pipeline/ingest/door/images.py`).
    """

    root: Path | None = None
    follow_links: bool = False
    max_pixels: int = MAX_PIXELS
    shrink: Shrink | None = None
    exif: Exif = "auto"

    def check_root(self) -> None:
        """Raise DataError unless this host has `root`."""
        if self.root is not None:
            check_folder(self.root)

    def read(self, path: Path, missing: str, part: ImagePart | None = None) -> bytes:
        return read_bytes(path, missing, self.root, follow_links=self.follow_links, part=part)


DEFAULT_DOOR = DoorConfig()


def admit(raw: RawRecord, classes: Sequence[str], door: DoorConfig = DEFAULT_DOOR) -> Admission:
    """Check and fix everything that `raw` claims. Opens the image and its masks; never raises for bad data.

    Args:
        classes: names of labels 1..C.

    Raises:
        DataError: this host cannot read a file, which says nothing about the data.
    """
    file = raw.image
    labels = instance_ids = None
    try:
        masks: dict[Path, tuple[Image.Image, bytes]] = {}
        for path in (raw.semantic_mask, raw.instance_mask):
            if path is not None:
                file = path
                data = door.read(path, "missing_mask")
                is_colored = path == raw.semantic_mask and raw.label_colors is not None
                masks[path] = (open_ids(data, door.max_pixels, colors=is_colored), data)
        file = raw.image
        image = _image(raw, masks[raw.semantic_mask][0].size if raw.semantic_mask else None, door)
        for path, (mask, _) in masks.items():
            if mask.size != (image.width, image.height):
                file = path
                raise Refused(
                    "mask_size_mismatch",
                    f"mask {mask.width} x {mask.height}, image {image.width} x {image.height}",
                )
        if raw.semantic_mask is not None:
            file = raw.semantic_mask
            labels = _labels(raw, *masks[file], len(classes))
        if raw.instance_mask is not None:
            file = raw.instance_mask
            instance_ids = load_ids(*masks[file])
    except Refused as refused:
        return Admission(record=None, problems=[_record_problem(raw, file, refused)])
    problems: list[Problem] = []
    fixes: Counter[str] = Counter((*raw.fixes, *image.fixes))
    positions = {name: i for i, name in enumerate(classes, start=1)}
    record = Record(
        key=raw.key,
        image_id=raw.image_id,
        width=image.width,
        height=image.height,
        image=image.data,
        image_format=image.format,
        objects=clean_objects(raw, positions, (image.height, image.width), instance_ids, problems, fixes),
        captions=clean_captions(raw, problems, fixes),
        questions=clean_questions(raw, problems, fixes),
        labels=clean_labels(raw, positions, problems),
        semantic_mask=encode_labels(labels) if labels is not None else b"",
    )
    return Admission(record=record, problems=problems, fixes=+fixes, labels=_label_counts(record, labels, positions))


def _labels(raw: RawRecord, mask: Image.Image, data: bytes, num_classes: int) -> np.ndarray:
    """(H, W) uint8 labels of the label mask."""
    if raw.label_colors is not None and mask.mode in ("RGB", "RGBA", "P"):
        return load_colors(mask, data, raw.label_colors)
    return ids_to_labels(load_ids(mask, data), num_classes, raw.label_map)


def _label_counts(record: Record, labels: np.ndarray | None, positions: Mapping[str, int]) -> Counter[tuple[str, int]]:
    counts = Counter(("object", label) for label in record.objects.labels[~record.objects.is_crowd].tolist())
    counts.update(("image", positions[name]) for name in record.labels)
    if labels is not None:
        pixels = np.bincount(labels.reshape(-1), minlength=IGNORE_INDEX + 1)
        counts.update(
            {("pixel", label): int(pixels[label]) for label in np.flatnonzero(pixels[:IGNORE_INDEX]).tolist()}
        )
    return counts


def _image(raw: RawRecord, mask_size: tuple[int, int] | None, door: DoorConfig) -> CleanImage:
    """The clean image. `mask_size` is (width, height) of the label mask, which speaks where the annotation does not."""
    claimed = (raw.width, raw.height) if raw.width or raw.height else None
    image = clean_image(
        door.read(raw.image, "missing_image", raw.image_part),
        claimed=claimed or mask_size,
        has_pixel_annotations=bool(raw.semantic_mask) or not all(item.is_relative for item in raw.objects),
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


def _record_problem(raw: RawRecord, file: Path, refused: Refused) -> Problem:
    return Problem(
        reason=refused.reason,
        kind="record",
        file=str(file),
        item_id=str(raw.image_id),
        key=raw.key,
        detail=refused.detail,
    )
