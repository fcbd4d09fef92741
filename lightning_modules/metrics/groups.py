"""Groups of items that are drawn again as a whole: an image's questions, a video's frames, a document's sentences.

Items of one group are no independent draws, so that intervals over items would be too narrow (Field and Welsh, 2007).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from lightning_modules.metrics.measurement import Measurement


def by_group(measurement: Measurement, ids: Sequence[Any], groups: Mapping[Any, Any] | None) -> Measurement:
    """The same values, drawn again by groups in place of items.

    Args:
        measurement: whose `resample` has a column for each item.
        ids: of those items, in the order of the columns.
        groups: item id -> group; None: each item stays by itself.
    """
    if measurement.resample is None or groups is None:
        return measurement
    names = sorted({groups[item] for item in ids}, key=str)
    if len(names) == len(ids):
        return measurement  # each is its own
    columns = {name: i for i, name in enumerate(names)}
    column, resample = np.array([columns[groups[item]] for item in ids]), measurement.resample
    return replace(measurement, num_clusters=len(names), resample=lambda weights: resample(weights[:, column]))
