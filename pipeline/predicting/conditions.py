"""What `registry:` asks of a model beyond its score before it may become champion: how long one prediction takes, and
whether the file that `sightline export` makes of it does as well. Both take long, so they are asked last."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping
from pathlib import Path

from contracts.errors import ConfigError
from contracts.inputs import Given
from pipeline.settings import discover
from pipeline.training.checkpoints import load_best
from pipeline.training.predictor import Predictor, load_predictor

WARM, REPEATS = 3, 20  # predictions before the timed ones, and those
LATENCY, EXPORT = "max_latency_ms", "max_export_loss"


def unmet(
    checkpoint: Path, inputs: Mapping[str, Given], conditions: Mapping[str, float], *, shards: Path, split: str
) -> str:
    """Why a model does not meet the conditions on it, or "".

    Args:
        inputs: what it is asked with, by name.
        conditions: `LATENCY` -> milliseconds; `EXPORT` -> of the task's metric.
        shards, split: what the exported file is measured on.
    """
    most = conditions.get(LATENCY)
    if most is not None and (found := latency_ms(load_predictor(checkpoint), inputs)) > most:
        return f"one prediction takes {found:.4g} ms on this machine, and registry.{LATENCY} is {most:g}"
    most = conditions.get(EXPORT)
    return "" if most is None else export_worse(checkpoint, shards, split, most)


def export_worse(checkpoint: Path, shards: Path, split: str, most: float) -> str:
    """Why the exported file is not as good as the checkpoint, up to `most` of the task's metric, or ""."""
    from pipeline.predicting.graphs._writing import ExportFailed  # not for those who do not ask: onnx takes seconds
    from pipeline.predicting.parity import export_parity

    task = discover.load("task", load_best(checkpoint)["run"]["task_name"], where="task_name").Task
    try:
        own, exported = export_parity(checkpoint, shards, split)
    except (ConfigError, ExportFailed) as error:
        return f"registry.{EXPORT} asks for an exported file, and {str(error).splitlines()[0]}"
    loss = own - exported if task.metric_mode == "max" else exported - own
    if loss <= most:
        return ""
    return f"the exported file has {task.metric} {exported:.6g}, not {own:.6g}: registry.{EXPORT} is {most:g}"


def latency_ms(predictor: Predictor, inputs: Mapping[str, Given]) -> float:
    """Milliseconds of one prediction, reading of its inputs included: the median of `REPEATS`."""
    taken_s = []
    for _ in range(WARM + REPEATS):
        start_s = time.perf_counter()
        predictor.predict(predictor.record(inputs))
        taken_s.append(time.perf_counter() - start_s)
    return 1000 * statistics.median(taken_s[WARM:])
