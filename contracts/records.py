"""Records: one sample with all that is known of it. Its parts (`annotations.py`) are imported from here, too.

Shapes: N objects of an image of height H and width W; T frames of a clip.
Boxes are float32 `(x1, y1, x2, y2)` in absolute pixels, `0 <= x1 < x2 <= W`, `0 <= y1 < y2 <= H`.
Labels are int64 in `1..C`, the position in the data set's class list plus one; 0 is background.
Semantic masks hold the same labels; `IGNORE_INDEX` marks pixels that count neither for loss nor for metric.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from contracts import by_name
from contracts.annotations import (
    ROLES,
    Alignment,
    Box,
    Caption,
    Direction,
    Objects,
    Proposals,
    Question,
    Role,
    Segment,
    Sentence,
    Transcript,
)
from contracts.errors import ConfigError, DataError
from contracts.text import pieces

__all__ = [
    "COUNTS",
    "IGNORE_INDEX",
    "ROLES",
    "SCHEMA_VERSION",
    "Alignment",
    "Box",
    "Caption",
    "Count",
    "DataSpec",
    "Direction",
    "Objects",
    "Proposals",
    "Question",
    "Record",
    "Role",
    "Segment",
    "Sentence",
    "Transcript",
    "check_counts",
    "end_s",
]

SCHEMA_VERSION = 3
IGNORE_INDEX = 255

# What can be counted of a record: columns of a shard's index, totals of a manifest, and what a task may require.
# `num_sources`, `num_targets` and `num_texts` are sentences of that role, `num_choices` questions with candidates of
# which one is known to be right, `num_frame_labels` frames that have a class, `has_*` 0 or 1. `length` is what
# sequences are sorted by: the frames of a clip, else the words and marks of the longest text or the letters to read.
Count = Literal[
    "num_objects", "num_masks", "num_captions", "num_questions", "num_choices", "num_labels", "has_semantic",
    "num_frames", "num_segments", "num_frame_labels", "num_sentences", "num_sources", "num_targets", "num_texts",
    "has_alignment", "has_transcript", "num_proposals", "length",
]  # fmt: skip
COUNTS: tuple[Count, ...] = get_args(Count)


def check_counts(names: Sequence[str], where: str = "") -> None:
    """Raise ConfigError unless each of `names` can be counted of a record."""
    if unknown := [name for name in names if name not in COUNTS]:
        raise ConfigError(
            "nothing of a record is counted by this name", value=unknown, where=where, allowed=", ".join(COUNTS),
            fix="correct `requires` or `length_column` of the task",
        )  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One valid sample with all that is known of it: what a tar sample holds and what a task encodes.

    It has an `image`; or `frames`, JPEGs of one size, T of them with `times_s` (seconds from the clip's start,
    ascending); or neither, only texts. `media` says which. `group` names what belongs together (a video, a document, a
    patient): what is drawn when scores are resampled, and what is never in two splits; by default the record alone.

    `image` is an encoded RGB or grey JPEG or PNG, upright (no EXIF rotation left to apply). Image and frames have the
    aspect of `height` x `width` and may have fewer pixels (`shards.short_side`); boxes, areas, masks and
    `semantic_mask` are always in the coordinates of `height` x `width`, the original image; both are 0 without pixels.
    `semantic_mask` is an encoded 8-bit single-channel PNG of labels, `height` x `width` pixels, or b"".
    `labels` are names of classes, of the data set's list, that the whole image or clip belongs to; `frame_labels` has
    those of each frame (T tuples, or none at all). `proposals` is None where nobody looked for any.
    """

    key: str
    image_id: int | str
    group: str = ""
    width: int = 0
    height: int = 0
    image: bytes = b""
    image_format: Literal["jpg", "png", ""] = ""
    frames: tuple[bytes, ...] = ()
    times_s: tuple[float, ...] = ()
    objects: Objects = field(default_factory=Objects)
    captions: tuple[Caption, ...] = ()
    questions: tuple[Question, ...] = ()
    labels: tuple[str, ...] = ()
    frame_labels: tuple[tuple[str, ...], ...] = ()
    segments: tuple[Segment, ...] = ()
    sentences: tuple[Sentence, ...] = ()
    alignment: Alignment | None = None
    transcript: Transcript | None = None
    proposals: Proposals | None = None
    semantic_mask: bytes = b""

    def __post_init__(self) -> None:
        if not self.group:
            object.__setattr__(self, "group", self.key)

    @property
    def media(self) -> Literal["image", "clip", "text"]:
        return "image" if self.image_format else "clip" if self.frames else "text"

    def sentence(self, role: Role) -> Sentence | None:
        """The first sentence of this role."""
        return next((sentence for sentence in self.sentences if sentence.role == role), None)

    def labels_by_frame(self) -> tuple[tuple[str, ...], ...]:
        """The classes of each frame (T tuples): `frame_labels`, else those of the segments that its time is in."""
        if self.frame_labels:
            return self.frame_labels
        return tuple(
            tuple(dict.fromkeys(s.label for s in self.segments if s.start_s <= time < s.end_s)) for time in self.times_s
        )

    def counts(self) -> dict[str, int]:
        """What can be counted of the record, without what is 0. Crowds do not count as objects."""
        usable = ~self.objects.is_crowd
        roles = [sentence.role for sentence in self.sentences]
        counts = {
            "num_objects": int(usable.sum()),
            "num_masks": sum(1 for mask, keep in zip(self.objects.masks, usable, strict=True) if mask and keep),
            "num_captions": len(self.captions),
            "num_questions": len(self.questions),
            "num_choices": sum(question.answer_index is not None for question in self.questions),
            "num_labels": len(self.labels),
            "has_semantic": int(bool(self.semantic_mask)),
            "num_frames": len(self.frames),
            "num_segments": len(self.segments),
            "num_frame_labels": sum(map(bool, self.labels_by_frame())),
            "num_sentences": len(roles),
            "num_sources": roles.count("source"),
            "num_targets": roles.count("target"),
            "num_texts": roles.count("text"),
            "has_alignment": int(self.alignment is not None),
            "has_transcript": int(self.transcript is not None),
            "num_proposals": len(self.proposals.boxes) if self.proposals is not None else 0,
            "length": len(self.frames) or self._longest_text(),
        }
        return {name: count for name, count in counts.items() if count}

    def _longest_text(self) -> int:
        """In tokens: sorted by characters, batches of sentences in two languages have twice as much padding."""
        texts = [part.text for parts in (self.sentences, self.captions, self.questions) for part in parts]
        return max([*map(len, map(pieces, texts)), len(self.transcript.text) if self.transcript else 0])

    def annotation_json(self) -> bytes:
        """Everything but the pixels as canonical JSON, by name, absent parts absent: equal records give equal bytes."""
        document: dict[str, Any] = {"schema": SCHEMA_VERSION, "key": self.key, "image_id": self.image_id}
        if self.group != self.key:
            document["group"] = self.group
        if self.media != "text":
            document["width"], document["height"] = self.width, self.height
        for name in _PARTS:
            if value := getattr(self, name):
                document[name] = by_name.as_plain(value)
        return json.dumps(document, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()

    @staticmethod
    def from_parts(
        annotation: bytes,
        image: bytes = b"",
        image_format: Literal["jpg", "png", ""] = "",
        semantic_mask: bytes = b"",
        *,
        frames: tuple[bytes, ...] = (),
        where: str = "",
    ) -> Record:
        """The inverse of `annotation_json`, with the pixels' bytes put beside it.

        Raises:
            DataError: `annotation`, which lies at `where`, is not what `annotation_json` writes.
        """
        try:
            d = json.loads(annotation)
            if (version := d.pop("schema")) != SCHEMA_VERSION:
                raise ValueError(f"schema {version} in place of {SCHEMA_VERSION}")
            head = {name: read(d.pop(name)) for name, read in _HEAD.items() if name in d}
            parts = {name: _PARTS[name](value) for name, value in d.items()}
            record = Record(
                **head, **parts, image=image, image_format=image_format, frames=frames, semantic_mask=semantic_mask
            )
            _check(record)
            return record
        except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError) as error:
            raise DataError(
                "an annotation is not one that was written here",
                value=f"{type(error).__name__}: {error}"[:200],
                where=where,
                fix="run the shard stage again",
            ) from None


_HEAD: dict[str, Callable[[Any], Any]] = {
    "key": by_name.text,
    "image_id": by_name.identifier,
    "group": by_name.text,
    "width": by_name.whole,
    "height": by_name.whole,
}
# The parts of an annotation in the order in which they are written, and how each is read.
_PARTS: dict[str, Callable[[Any], Any]] = {
    "times_s": by_name.numbers,
    "objects": Objects.read,
    "captions": by_name.many(by_name.item(Caption)),
    "questions": by_name.many(by_name.item(Question)),
    "labels": by_name.texts,
    "frame_labels": by_name.many(by_name.texts),
    "segments": by_name.many(by_name.item(Segment)),
    "sentences": by_name.many(by_name.item(Sentence)),
    "alignment": by_name.item(Alignment),
    "transcript": by_name.item(Transcript),
    "proposals": Proposals.read,
}


def _check(record: Record) -> None:
    """Raise ValueError where pixels and annotation contradict each other."""
    sides = (record.width, record.height)
    if min(sides) < 1 if record.media != "text" else any(sides):
        raise ValueError(f"a sample of kind {record.media} that is {record.width} x {record.height}")
    if len(record.times_s) != len(record.frames) or len(record.frame_labels) not in (0, len(record.frames)):
        raise ValueError(f"{len(record.frames)} frames, their times or labels are another number")


def end_s(times_s: Sequence[float]) -> float:
    """Where a clip ends: its last frame lasts as long as the others do on average; a single frame lasts one second."""
    if len(times_s) < 2:
        return times_s[0] + 1.0
    return times_s[-1] + (times_s[-1] - times_s[0]) / (len(times_s) - 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class DataSpec:
    """What a task may know of its data set besides the records; kept in the checkpoint as a plain dict.

    `classes[i]` is the name of label i + 1. `vocabulary` holds what the vocab stage counted of the task's `texts`: by
    their names, [token, count], most frequent first.
    """

    dataset: str
    classes: tuple[str, ...]
    vocabulary: Mapping[str, list[list[Any]]] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        return {"dataset": self.dataset, "classes": list(self.classes), "vocabulary": dict(self.vocabulary)}

    @staticmethod
    def from_dict(d: Mapping[str, Any]) -> DataSpec:
        return DataSpec(dataset=d["dataset"], classes=tuple(d["classes"]), vocabulary=dict(d["vocabulary"]))
