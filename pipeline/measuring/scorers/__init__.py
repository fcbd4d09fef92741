"""Scorers: one file per task, files in official formats -> official metrics. `score.py` is the command.

A scorer module has
    score(inputs)       Scores; a DataError names the file, the id and what is allowed
Every prediction is checked against the truth before anything is counted: what the official code leaves out in silence
(missing answers, unknown ids, repeated lines) changes the number.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from lightning_modules.metrics.measurement import Measurement


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """Where the files are, and what one task alone asks for.

    Attributes:
        questions: VQA's question file.
        use_java: captions: METEOR and SPICE, too.
        iou: VOC boxes: the least IoU of a hit.
        ignore_index: segmentation: the label of the truth that does not count; "none": every label counts; None: nobody
            said, which means 255.
        class_names: segmentation: names of labels 0, 1, ..; no other label may occur. () for no names.
        num_classes: segmentation: labels are 0 to this less 1.
        first_word: alignment: what the words of truth and predictions are counted from, "1,0".
    """

    truth: Path
    predictions: Path
    questions: Path | None = None
    use_java: bool = True
    iou: float = 0.5
    ignore_index: int | Literal["none"] | None = None
    class_names: tuple[str, ...] = ()
    num_classes: int | None = None
    first_word: str = "0,0"


@dataclass(frozen=True, kw_only=True)
class Scores:
    """What a scorer found.

    Attributes:
        measurements: all of the same items, whose number the first one gives.
        details: further fields of the printed document, such as `per_class`; NaN becomes null.
        notes: what the user should know though it is no error; goes to stderr.
    """

    measurements: Sequence[Measurement]
    details: Mapping[str, Any] = field(default_factory=dict)
    notes: Sequence[str] = ()


class ScorerModule(Protocol):
    """What a file of this package provides."""

    def score(self, inputs: Inputs) -> Scores: ...
