"""How a model does on a split, by every metric, on the split itself and on each resample of it: what the paired
comparison of two models needs. Imports nothing that is slow."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

MEASURED, RESAMPLES = "measured.json", "resamples.npz"  # of evaluations/<run>/


@dataclass(frozen=True, kw_only=True, eq=False)
class Scores:
    """Metrics by name.

    Attributes:
        values: on the split.
        drawn: (B,) each, on its resamples, which depend on its items alone; without those that have none.
        drawn_constant: the same of the best predictor that ignores the input.
        split_digest, items_sha256: models that agree in both were asked the same; "": not known.
    """

    values: Mapping[str, float] = field(default_factory=dict)
    drawn: Mapping[str, np.ndarray] = field(default_factory=dict)
    drawn_constant: Mapping[str, np.ndarray] = field(default_factory=dict)
    split_digest: str = ""
    items_sha256: str = ""

    def asked_as(self, other: Scores) -> bool:
        own = (self.split_digest, self.items_sha256)
        return all(own) and own == (other.split_digest, other.items_sha256)


def read_scores(folder: Path) -> Scores | None:
    """What `evaluate` wrote into `folder`; None where it is not there, or is not whole."""
    try:
        document = json.loads((folder / MEASURED).read_bytes())
        with np.load(folder / RESAMPLES, allow_pickle=False) as arrays:
            drawn: dict[str, dict[str, np.ndarray]] = {"run": {}, "constant": {}}
            for name in arrays.files:
                whose, _, metric = name.partition("/")
                drawn[whose][metric] = arrays[name].astype(np.float64)
        return Scores(
            values={name: float(value) for name, value in document["metrics"].items()},
            drawn=drawn["run"],
            drawn_constant=drawn["constant"],
            split_digest=str(document["split_digest"]),
            items_sha256=str(document["items_sha256"]),
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
