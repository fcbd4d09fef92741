"""What a source reads: records before the door, unchecked, and what could not be used."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from contracts.annotations import Alignment, Caption, Proposals, Question, Segment, Sentence, Transcript

ItemKind = Literal[
    "record", "object", "caption", "question", "answer", "label", "sentence", "alignment", "transcript", "segment"
]
Color = tuple[int, int, int]  # red, green, blue, each 0..255


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One thing in the raw data that cannot be used: a line of `data/quarantine/<dataset>.jsonl`.

    `reason` is a short fixed identifier such as `zero_area_box`, and is what the manifest counts by.
    """

    reason: str
    kind: ItemKind
    file: str
    item_id: str
    key: str = ""
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RawObject:
    """One object as the annotation file has it, unchecked.

    `box` is already `(x1, y1, x2, y2)`, four NaNs where there is none but a mask; `segmentation` is COCO polygons (list
    of flat x, y lists), a COCO RLE dict (compressed or not), or None. `category` is the class name, or `#<id>` for an
    id without a name. With `is_relative`, box and polygons are shares of the width and height of the upright image.
    """

    object_id: str
    category: str
    box: tuple[float, float, float, float]
    segmentation: Any = None
    area: float | None = None
    is_crowd: bool = False
    is_difficult: bool = False
    is_truncated: bool = False
    is_relative: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ImagePart:
    """Where in a larger file an encoded image stands: `size` bytes from byte `offset` on, such as a tar's member.

    `is_base64`: they are what stands between the quotes of a JSON text, the image in base64.
    """

    offset: int
    size: int
    is_base64: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class RawVideo:
    """A video file, or a part of it, and which of its frames are kept: each `every`th of those from `start_s` to before
    `end_s` (None: its end), or as many a second as `fps` says where the file has more. Times are seconds of the file;
    those of the clip begin with its first frame."""

    file: Path
    start_s: float = 0.0
    end_s: float | None = None
    every: int = 1
    fps: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RawRecord:
    """One sample with all that a source knows of it, unchecked. Two sources of one data set are joined by `key`.

    It has an `image`; or `frames` (files in the order of time, with `times_s`, the seconds from the clip's start); or a
    `video`, whose frames and times the door decodes; or neither but texts. `group` names what belongs together (a
    video, a document, a patient); "" where it stands alone.

    `width` and `height` are what the annotation claims (0: it claims nothing); the door compares them with the file.
    `semantic_mask` is the file of class ids; the source says how file values become labels through `label_map`
    (missing: the value is already the label, 255 is ignored), or how colors do through `label_colors`. `instance_mask`
    is a VOC SegmentationObject PNG: pixel value i is the i-th object. `labels` are names of classes that the whole
    image or clip belongs to; `frame_labels` has those of each frame, where the source knows them. `image_part` is set
    where `image` is a file that holds more than the image. `fixes` names what the source changed, once for each change.
    """

    key: str
    image_id: int | str
    annotation_file: str
    image: Path | None = None
    group: str = ""
    image_part: ImagePart | None = None
    frames: Sequence[Path] = ()
    video: RawVideo | None = None
    times_s: Sequence[float] = ()
    width: int = 0
    height: int = 0
    objects: Sequence[RawObject] = ()
    captions: Sequence[Caption] = ()
    questions: Sequence[Question] = ()
    labels: tuple[str, ...] = ()
    frame_labels: Sequence[tuple[str, ...]] = ()
    segments: Sequence[Segment] = ()
    sentences: Sequence[Sentence] = ()
    alignment: Alignment | None = None
    transcript: Transcript | None = None
    proposals: Proposals | None = None
    semantic_mask: Path | None = None
    instance_mask: Path | None = None
    label_map: Mapping[int, int] | None = None
    label_colors: Mapping[Color, int] | None = None
    fixes: tuple[str, ...] = ()
