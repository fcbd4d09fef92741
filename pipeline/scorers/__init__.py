"""Scorers: one file per task, files in official formats -> official metrics. See `pipeline/score.py` for the command.

A scorer module has
    score(inputs)       Scores; a DataError names the file, the id and what is allowed
Every prediction is checked against the truth before anything is counted: what the official code leaves out in silence
(missing answers, unknown ids, repeated lines) changes the number.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from lightning_modules.metrics.measurement import Measurement


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """Where the files are. `questions` is set for VQA and for no other task; `use_java` matters to captions only."""

    truth: Path
    predictions: Path
    questions: Path | None = None
    use_java: bool = True


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
