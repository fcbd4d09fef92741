"""Records: what is known of one image, before (`RawRecord`) and after (`Record`) validation.

Shapes: N objects of an image of height H and width W.
Boxes are float32 `(x1, y1, x2, y2)` in absolute pixels, `0 <= x1 < x2 <= W`, `0 <= y1 < y2 <= H`.
Labels are int64 in `1..C`, the position in the data set's class list plus one; 0 is background.
Semantic masks hold the same labels; `IGNORE_INDEX` marks pixels that count neither for loss nor for metric.
Masks are COCO compressed run lengths: the `counts` string of a `{"size": [H, W], "counts": str}`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from contracts.errors import DataError

SCHEMA_VERSION = 2
IGNORE_INDEX = 255

ItemKind = Literal["record", "object", "caption", "question", "answer", "label"]
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
class Caption:
    caption_id: int | str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A VQA question. `answers` has the annotators' answers as written (ten in VQA v2), empty for a test split."""

    question_id: int | str
    text: str
    answers: tuple[str, ...] = ()
    multiple_choice_answer: str = ""
    question_type: str = ""
    answer_type: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImagePart:
    """Where in a larger file an encoded image stands: `size` bytes from byte `offset` on, such as a tar's member.

    `is_base64`: they are what stands between the quotes of a JSON text, the image in base64.
    """

    offset: int
    size: int
    is_base64: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class RawRecord:
    """One image with all that a source knows of it, unchecked. Two sources of one data set are joined by `key`.

    `width` and `height` are what the annotation claims (0: it claims nothing); the door compares them with the file.
    `semantic_mask` is the file of class ids; the source says how file values become labels through `label_map`
    (missing: the value is already the label, 255 is ignored), or how colors do through `label_colors`. `instance_mask`
    is a VOC SegmentationObject PNG: pixel value i is the i-th object. `labels` are names of classes that the whole
    image belongs to. `image_part` is set where `image` is a file that holds more than the image. `fixes` names what the
    source changed, once for each change.
    """

    key: str
    image_id: int | str
    image: Path
    annotation_file: str
    image_part: ImagePart | None = None
    width: int = 0
    height: int = 0
    objects: Sequence[RawObject] = ()
    captions: Sequence[Caption] = ()
    questions: Sequence[Question] = ()
    labels: tuple[str, ...] = ()
    semantic_mask: Path | None = None
    instance_mask: Path | None = None
    label_map: Mapping[int, int] | None = None
    label_colors: Mapping[Color, int] | None = None
    fixes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Objects:
    """The valid objects of one image, in columns. `masks[i]` is "" where object i has no mask."""

    ids: list[str] = field(default_factory=list)
    boxes: np.ndarray = field(default_factory=lambda: np.zeros((0, 4), np.float32))  # (N, 4) float32
    labels: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))  # (N,) int64, 1..C
    areas: np.ndarray = field(default_factory=lambda: np.zeros(0, np.float64))  # (N,) square pixels, of the mask if any
    is_crowd: np.ndarray = field(default_factory=lambda: np.zeros(0, bool))
    is_difficult: np.ndarray = field(default_factory=lambda: np.zeros(0, bool))
    is_truncated: np.ndarray = field(default_factory=lambda: np.zeros(0, bool))
    masks: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One valid image with all that is known of it: what a tar sample holds and what a task encodes.

    `image` is an encoded RGB or grey JPEG or PNG, upright (no EXIF rotation left to apply). It has the aspect of
    `height` x `width` and may have fewer pixels (`shards.short_side`); boxes, areas, masks and `semantic_mask` are
    always in the coordinates of `height` x `width`, the original image.
    `semantic_mask` is an encoded 8-bit single-channel PNG of labels, `height` x `width` pixels, or b"".
    `labels` are names of classes, of the data set's list, that the whole image belongs to.
    """

    key: str
    image_id: int | str
    width: int
    height: int
    image: bytes
    image_format: Literal["jpg", "png"]
    objects: Objects = field(default_factory=Objects)
    captions: tuple[Caption, ...] = ()
    questions: tuple[Question, ...] = ()
    labels: tuple[str, ...] = ()
    semantic_mask: bytes = b""

    def annotation_json(self) -> bytes:
        """Everything but the pixels as canonical JSON: equal records give equal bytes."""
        o = self.objects
        document: dict[str, Any] = {
            "schema": SCHEMA_VERSION,
            "key": self.key,
            "image_id": self.image_id,
            "width": self.width,
            "height": self.height,
            "objects": {
                "ids": o.ids,
                "boxes": o.boxes.tolist(),
                "labels": o.labels.tolist(),
                "areas": o.areas.tolist(),
                "is_crowd": o.is_crowd.tolist(),
                "is_difficult": o.is_difficult.tolist(),
                "is_truncated": o.is_truncated.tolist(),
                "masks": o.masks,
            },
            "captions": [[c.caption_id, c.text] for c in self.captions],
            "questions": [
                [q.question_id, q.text, list(q.answers), q.multiple_choice_answer, q.question_type, q.answer_type]
                for q in self.questions
            ],
        }
        if self.labels:
            document["labels"] = list(self.labels)
        return json.dumps(document, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()

    @staticmethod
    def from_parts(
        annotation: bytes, image: bytes, image_format: str, semantic_mask: bytes = b"", *, where: str = ""
    ) -> Record:
        """The inverse of `annotation_json`, with the pixels' bytes put beside it.

        Raises:
            DataError: `annotation`, which lies at `where`, is not what `annotation_json` writes.
        """
        try:
            d = json.loads(annotation)
            if d["schema"] != SCHEMA_VERSION:
                raise ValueError(f"schema {d['schema']} in place of {SCHEMA_VERSION}")
            return _from_document(d, image, image_format, semantic_mask)
        except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError) as error:
            raise DataError(
                "an annotation is not one that was written here",
                value=f"{type(error).__name__}: {error}"[:200],
                where=where,
                fix="run the shard stage again",
            ) from None


def _from_document(d: Mapping[str, Any], image: bytes, image_format: str, semantic_mask: bytes) -> Record:
    o = d["objects"]
    if len({len(column) for column in o.values()}) != 1:
        raise ValueError("the columns of objects differ in length")
    if not isinstance(d["key"], str) or min(d["width"], d["height"]) < 1:
        raise ValueError("no key, or an image without pixels")
    if not all(isinstance(name, str) for name in d.get("labels", ())):
        raise ValueError("a label that is no name")
    return Record(
        key=d["key"],
        image_id=d["image_id"],
        width=d["width"],
        height=d["height"],
        image=image,
        image_format="png" if image_format == "png" else "jpg",
        objects=Objects(
            ids=o["ids"],
            boxes=np.asarray(o["boxes"], np.float32).reshape(-1, 4),
            labels=np.asarray(o["labels"], np.int64),
            areas=np.asarray(o["areas"], np.float64),
            is_crowd=np.asarray(o["is_crowd"], bool),
            is_difficult=np.asarray(o["is_difficult"], bool),
            is_truncated=np.asarray(o["is_truncated"], bool),
            masks=o["masks"],
        ),
        captions=tuple(Caption(caption_id=i, text=t) for i, t in d["captions"]),
        questions=tuple(
            Question(
                question_id=i, text=t, answers=tuple(a), multiple_choice_answer=m, question_type=qt, answer_type=at
            )
            for i, t, a, m, qt, at in d["questions"]
        ),
        labels=tuple(d.get("labels", ())),
        semantic_mask=semantic_mask,
    )


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
