"""Accuracy on Visual7W's multiple-choice questions by the official rule (1511.03416, yukezhu/visual7w-toolkit).

Rules kept because published numbers depend on them: an answer is right where it equals the true one after `lower()`
alone (a trailing blank is wrong), and only the first candidate counts. The official script divides by the number of
results it is given, so a missing one would raise the score: here every question must be answered, and no other.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Mapping
from typing import Any

import numpy as np

from contracts.errors import DataError
from lightning_modules.metrics.measurement import SOURCE, Measurement, ratio_of_sums

_NUM_NAMED = 5  # ids that an error lists


def measure_visual7w(
    truth: Mapping[Any, tuple[str, str]],
    chosen: Mapping[Any, str],
    *,
    images: Mapping[Any, Hashable] | None = None,
) -> Measurement:
    """Fractions in 0..1 of questions answered right: `overall` and one per question type; NaN without questions.

    Args:
        truth: qa_id -> (question type such as "what", true answer), every question of the split.
        chosen: qa_id -> the candidate that was chosen.
        images: qa_id -> its image, which is drawn again with all its questions, in sorted order; None: the questions
            are drawn, in the order of their ids.

    Raises:
        DataError: `chosen` lacks a question of `truth` or has another.
    """
    _check_ids(truth.keys() - chosen.keys(), "questions without an answer")
    _check_ids(chosen.keys() - truth.keys(), "answers to unknown questions")
    ids = sorted(truth)
    right = np.array([chosen[i].lower() == truth[i][1].lower() for i in ids], bool)
    groups: dict[str, list[int]] = {}
    for row, qa_id in enumerate(ids):
        groups.setdefault(truth[qa_id][0], []).append(row)
    groups = {"overall": list(range(len(ids)))} | dict(sorted(groups.items()))
    drawn = [i if images is None else images[i] for i in ids]
    columns = {key: column for column, key in enumerate(ids if images is None else sorted(set(drawn), key=str))}
    column = np.array([columns[key] for key in drawn], np.int64)

    def resample(weights: np.ndarray) -> dict[str, np.ndarray]:
        size = len(columns)
        return {
            name: ratio_of_sums(
                weights,
                np.bincount(column[rows], right[rows], minlength=size),
                np.bincount(column[rows], minlength=size),
            )
            for name, rows in groups.items()
        }

    return Measurement(
        values={name: float(right[rows].mean()) if rows else math.nan for name, rows in groups.items()},
        variant="multiple choice, lower-cased answers equal, fractions of all questions",
        source=SOURCE,
        num_items=len(ids),
        unit="questions",
        num_clusters=len(columns),
        resample=resample,
    )


def _check_ids(ids: Iterable[Any], what: str) -> None:
    wrong = sorted(ids)
    if wrong:
        raise DataError(
            what,
            value=len(wrong),
            where=f"qa_id {', '.join(map(str, wrong[:_NUM_NAMED]))}{', ..' if len(wrong) > _NUM_NAMED else ''}",
            allowed="exactly one answer for each question of the split",
        )
