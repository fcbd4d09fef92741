"""What `registry:` asks of a model beyond its score before it may become champion: how long one prediction takes, and
whether the file that `sightline export` makes of it does as well. Both take long, so they are asked last."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping
from pathlib import Path

from contracts.inputs import Given
from pipeline.training.predictor import Predictor, load_predictor

WARM, REPEATS = 3, 20  # predictions before the timed ones, and those
LATENCY, EXPORT = "max_latency_ms", "max_export_loss"


def unmet(checkpoint: Path, inputs: Mapping[str, Given], conditions: Mapping[str, float]) -> str:
    """Why a model does not meet the conditions on it, or "".

    Args:
        inputs: what it is asked with, by name.
        conditions: `LATENCY` -> milliseconds.
    """
    most = conditions.get(LATENCY)
    if most is not None and (found := latency_ms(load_predictor(checkpoint), inputs)) > most:
        return f"one prediction takes {found:.4g} ms on this machine, and registry.{LATENCY} is {most:g}"
    return ""


def latency_ms(predictor: Predictor, inputs: Mapping[str, Given]) -> float:
    """Milliseconds of one prediction, reading of its inputs included: the median of `REPEATS`."""
    taken_s = []
    for _ in range(WARM + REPEATS):
        start_s = time.perf_counter()
        predictor.predict(predictor.record(inputs))
        taken_s.append(time.perf_counter() - start_s)
    return 1000 * statistics.median(taken_s[WARM:])
