"""What can be known of a sample beside its pixels, each part a small value of its own.

Boxes are `(x1, y1, x2, y2)` in absolute pixels, `0 <= x1 < x2 <= W`, `0 <= y1 < y2 <= H`. Times are seconds from the
start of the clip. Words of a sentence are what stands between blanks, counted from 0.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, get_args

import numpy as np

Box = tuple[float, float, float, float]
Link = tuple[int, int]  # of a word of one sentence with a word of another
# What a sentence is to its record: one side of a pair, or the text that all the rest is about.
Role = Literal["source", "target", "text"]
ROLES: tuple[Role, ...] = get_args(Role)
Direction = Literal["ltr", "rtl"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Caption:
    caption_id: int | str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A question on the record, with free answers, or with candidates of which one is right, or both.

    `answers` has the annotators' answers as written (ten in VQA v2), empty for a test split. The candidates are texts
    or boxes, `answer_index` counts them from 0 and is None where nobody says which is right.
    """

    question_id: int | str
    text: str
    answers: tuple[str, ...] = ()
    multiple_choice_answer: str = ""
    question_type: str = ""
    answer_type: str = ""
    candidates: tuple[str, ...] = ()
    candidate_boxes: tuple[Box, ...] = ()
    answer_index: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Sentence:
    """`language` is a code such as `de`, or "" where it does not matter."""

    role: Role
    text: str
    language: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Alignment:
    """Which words of sentence `source` say the same as which words of sentence `target`.

    `links` are pairs of places, of words split at blanks; `possible_links` those that annotators call possible only.
    """

    source: Role
    target: Role
    links: tuple[Link, ...]
    possible_links: tuple[Link, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Transcript:
    """What is written in the picture or said in the clip. `direction` is that of the script, in reading order."""

    text: str
    language: str = ""
    direction: Direction = "ltr"


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """A part of a clip, from `start_s` to before `end_s`, that shows class `label`."""

    start_s: float
    end_s: float
    label: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposals:
    """Boxes that may hold an object, best first, as another program found them."""

    boxes: np.ndarray  # (P, 4) float32
    scores: np.ndarray  # (P,) float32, larger is better

    @staticmethod
    def read(columns: dict[str, list]) -> Proposals:
        """Of JSON; ValueError or TypeError for what is none."""
        boxes, scores = np.asarray(columns["boxes"], np.float32), np.asarray(columns["scores"], np.float32)
        if len(columns) != 2 or scores.ndim != 1 or boxes.size != 4 * len(scores):
            raise ValueError("the columns of proposals differ in length")
        return Proposals(boxes=boxes.reshape(-1, 4), scores=scores)


@dataclass(frozen=True, slots=True, kw_only=True)
class Objects:
    """The valid objects of one image, in columns. `masks[i]` is "" where object i has no mask.

    Labels are the position in the data set's class list plus one. Masks are COCO compressed run lengths: the `counts`
    string of a `{"size": [H, W], "counts": str}`.
    """

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

    @staticmethod
    def read(columns: dict[str, list]) -> Objects:
        """Of JSON; ValueError or TypeError for what is none."""
        if len({len(column) for column in columns.values()}) != 1:
            raise ValueError("the columns of objects differ in length")
        if not all(isinstance(text, str) for text in (*columns["ids"], *columns["masks"])):
            raise TypeError("an id or a mask of an object that is no text")
        return Objects(
            ids=columns["ids"],
            boxes=np.asarray(columns["boxes"], np.float32).reshape(-1, 4),
            labels=np.asarray(columns["labels"], np.int64),
            areas=np.asarray(columns["areas"], np.float64),
            is_crowd=np.asarray(columns["is_crowd"], bool),
            is_difficult=np.asarray(columns["is_difficult"], bool),
            is_truncated=np.asarray(columns["is_truncated"], bool),
            masks=columns["masks"],
        )
