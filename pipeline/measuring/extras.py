"""What stands on a page of claims beside the claims: quiz questions, each with the claim whose figure answers it, and
errata of what is measured. Texts, not code: `claims/quiz.yaml` and `claims/errata.yaml`, both optional.

    - asks: What does the forget gate decide?        # quiz.yaml
      answer: What of the cell is discarded.
      claim: forget-gate                             # of any chapter
      slides: [S08]

    - shown: Agrawal et al. wrote Visual7W.          # errata.yaml
      right: Zhu et al. did (1511.03416).
      slides: [S19]
      claim: telling                                 # optional: whose figure shows it
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TypeVar, cast

import yaml

from contracts.errors import DataError


@dataclass(frozen=True, kw_only=True)
class Question:
    """Attributes:
    asks: the question. answer: in words. claim: the name of the one that answers it. slides: rows of the lecture.
    """

    asks: str
    answer: str
    claim: str
    slides: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Erratum:
    """Attributes:
    shown: what the lecture says. right: what holds. slides: rows of the lecture. claim: that shows it, or "".
    """

    shown: str
    right: str
    slides: tuple[str, ...] = ()
    claim: str = ""


Entry = TypeVar("Entry", Question, Erratum)


def quiz(folder: Path, claims: Iterable[str]) -> list[Question]:
    """Questions of `folder/quiz.yaml`; none without the file.

    Raises:
        DataError: the file is not such a list, or a question names a claim that is not among `claims`.
    """
    return _read(folder / "quiz.yaml", Question, set(claims))


def errata(folder: Path, claims: Iterable[str]) -> list[Erratum]:
    """As `quiz`, of `folder/errata.yaml`."""
    return _read(folder / "errata.yaml", Erratum, set(claims))


def _read(path: Path, kind: type[Entry], claims: set[str]) -> list[Entry]:
    if not path.is_file():
        return []
    names = ", ".join(field.name for field in fields(kind))
    try:
        entries = [
            kind(**cast(Any, {key: tuple(v) if key == "slides" else str(v) for key, v in entry.items()}))
            for entry in yaml.safe_load(path.read_text(encoding="utf-8")) or []
        ]
    except (yaml.YAMLError, TypeError, AttributeError) as error:
        raise DataError("not a list of such entries", value=str(error)[:200], where=str(path), allowed=names) from None
    for entry in entries:
        if entry.claim and entry.claim not in claims:
            raise DataError(
                "no such claim", value=entry.claim, where=str(path), allowed=", ".join(sorted(claims)),
                fix="name a claim of one of the chapters",
            )  # fmt: skip
    return entries
