"""One raw record -> a valid record, or the reason why not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from contracts.raw import Problem, RawRecord
from contracts.records import IGNORE_INDEX, Objects, Record
from pipeline.ingest.door.choices import clean_questions
from pipeline.ingest.door.clips import clean_frame_labels, clean_segments
from pipeline.ingest.door.config import DEFAULT_DOOR, DoorConfig
from pipeline.ingest.door.masks import encode_labels
from pipeline.ingest.door.objects import clean_labels, clean_objects, clean_proposals, find_proposals
from pipeline.ingest.door.pixels import Pixels, clean_pixels
from pipeline.ingest.door.rules import Refused
from pipeline.ingest.door.text import clean_alignment, clean_captions, clean_sentences, clean_transcript


@dataclass(frozen=True, slots=True, kw_only=True)
class Admission:
    """What became of one raw record.

    `record` is None where the whole record is refused; `problems` then holds that one reason, of kind "record".
    Otherwise `problems` names dropped objects, captions, questions and so on. `fixes` counts changes by rule, `labels`
    the objects, the pixels, the images (or clips) and the frames of each label, by ("object", "pixel", "image" or
    "frame", label); crowds and what is ignored do not count.
    """

    record: Record | None
    problems: list[Problem] = field(default_factory=list)
    fixes: Counter[str] = field(default_factory=Counter)
    labels: Counter[tuple[str, int]] = field(default_factory=Counter)


def admit(raw: RawRecord, classes: Sequence[str], door: DoorConfig = DEFAULT_DOOR) -> Admission:
    """Check and fix everything that `raw` claims. Opens its image and masks, or frames; never raises for bad data.

    Args:
        classes: names of labels 1..C.

    Raises:
        DataError: this host cannot read a file, which says nothing about the data.
    """
    problems: list[Problem] = []
    try:
        pixels = clean_pixels(raw, len(classes), door)
        fixes: Counter[str] = Counter((*raw.fixes, *pixels.fixes))
        if raw.video is not None:
            raw = replace(raw, times_s=pixels.times_s)
        positions = {name: i for i, name in enumerate(classes, start=1)}
        record = _record(raw, pixels, positions, problems, fixes)
        if door.search is not None and record.proposals is None and record.media == "image":
            record = replace(record, proposals=find_proposals(record, door.search))
    except Refused as refused:
        return Admission(record=None, problems=[_record_problem(raw, refused)])
    counts = _label_counts(record, pixels.labels, positions)
    return Admission(record=record, problems=problems, fixes=+fixes, labels=counts)


def _record(
    raw: RawRecord, pixels: Pixels, positions: Mapping[str, int], problems: list[Problem], fixes: Counter[str]
) -> Record:
    size = (pixels.height, pixels.width)
    sentences = clean_sentences(raw, problems, fixes)
    transcript = clean_transcript(raw, problems, fixes)
    if not pixels.width and not sentences and transcript is None:
        raise Refused("empty_record")
    has_objects = raw.objects or pixels.instance_ids is not None
    return Record(
        key=raw.key,
        image_id=raw.image_id,
        group=raw.group,
        width=pixels.width,
        height=pixels.height,
        image=pixels.image,
        image_format=pixels.image_format,
        frames=pixels.frames,
        times_s=tuple(map(float, raw.times_s)),
        objects=clean_objects(raw, positions, size, pixels.instance_ids, problems, fixes) if has_objects else Objects(),
        captions=clean_captions(raw, problems, fixes),
        questions=clean_questions(raw, size, problems, fixes),
        labels=clean_labels(raw, positions, problems),
        frame_labels=clean_frame_labels(raw, positions, problems),
        segments=clean_segments(raw, positions, problems, fixes),
        sentences=sentences,
        alignment=clean_alignment(raw, sentences, problems),
        transcript=transcript,
        proposals=clean_proposals(raw, size, fixes),
        semantic_mask=encode_labels(pixels.labels) if pixels.labels is not None else b"",
    )


def _label_counts(record: Record, labels: np.ndarray | None, positions: Mapping[str, int]) -> Counter[tuple[str, int]]:
    counts = Counter(("object", label) for label in record.objects.labels[~record.objects.is_crowd].tolist())
    counts.update(("image", positions[name]) for name in record.labels)
    counts.update(("frame", positions[name]) for names in record.labels_by_frame() for name in names)
    if labels is not None:
        pixels = np.bincount(labels.reshape(-1), minlength=IGNORE_INDEX + 1)
        counts.update(
            {("pixel", label): int(pixels[label]) for label in np.flatnonzero(pixels[:IGNORE_INDEX]).tolist()}
        )
    return counts


def _record_problem(raw: RawRecord, refused: Refused) -> Problem:
    file = refused.file or raw.image or (raw.video.file if raw.video else None)
    return Problem(
        reason=refused.reason,
        kind="record",
        file=raw.annotation_file if file is None else str(file),
        item_id=str(raw.image_id),
        key=raw.key,
        detail=refused.detail,
    )
