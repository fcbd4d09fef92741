"""One raw record -> a valid record, or the reason why not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from contracts.records import Problem, RawRecord, Record
from pipeline.door.images import CleanImage, clean_image, read_bytes
from pipeline.door.masks import decode_ids, encode_labels, ids_to_labels
from pipeline.door.objects import clean_objects
from pipeline.door.rules import Refused
from pipeline.door.shrink import Shrink
from pipeline.door.text import clean_captions, clean_questions


@dataclass(frozen=True, slots=True, kw_only=True)
class Admission:
    """What became of one raw record.

    `record` is None where the whole record is refused; `problems` then holds that one reason, of kind "record".
    Otherwise `problems` names dropped objects, captions and questions. `fixes` counts changes by rule.
    """

    record: Record | None
    problems: list[Problem] = field(default_factory=list)
    fixes: Counter[str] = field(default_factory=Counter)


def admit(raw: RawRecord, classes: Sequence[str], shrink: Shrink | None = None) -> Admission:
    """Check and fix everything that `raw` claims. Opens the image and its masks; never raises for bad data.

    Args:
        classes: names of labels 1..C.
        shrink: how large images are made smaller; None keeps them.
    """
    file = raw.image
    try:
        labels = instance_ids = None
        if raw.semantic_mask is not None:
            file = raw.semantic_mask
            labels = ids_to_labels(decode_ids(read_bytes(file, "missing_mask")), len(classes), raw.label_map)
        if raw.instance_mask is not None:
            file = raw.instance_mask
            instance_ids = decode_ids(read_bytes(file, "missing_mask"))
        file = raw.image
        image = _image(raw, labels, shrink)
        for path, mask in ((raw.semantic_mask, labels), (raw.instance_mask, instance_ids)):
            if mask is not None and mask.shape != (image.height, image.width):
                assert path is not None
                file = path
                raise Refused(
                    "mask_size_mismatch",
                    f"mask {mask.shape[1]} x {mask.shape[0]}, image {image.width} x {image.height}",
                )
    except Refused as refused:
        return Admission(record=None, problems=[_record_problem(raw, file, refused)])
    problems: list[Problem] = []
    fixes: Counter[str] = Counter(image.fixes)
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
        semantic_mask=encode_labels(labels) if labels is not None else b"",
    )
    return Admission(record=record, problems=problems, fixes=+fixes)


def _image(raw: RawRecord, labels: np.ndarray | None, shrink: Shrink | None) -> CleanImage:
    claimed = (raw.width, raw.height) if raw.width or raw.height else None
    reference = (labels.shape[1], labels.shape[0]) if claimed is None and labels is not None else claimed
    image = clean_image(
        read_bytes(raw.image, "missing_image"),
        claimed=reference,
        has_pixel_annotations=bool(raw.objects or raw.semantic_mask),
        shrink=shrink,
    )
    if claimed is not None and claimed != (image.width, image.height):
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
