"""Runs as `evaluate` leaves them, written without a training: what a page of runs reads, with known numbers."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import yaml

from lightning_modules.metrics.bootstrap import percentile_intervals, replicates
from lightning_modules.metrics.measurement import Measurement, ratio_of_sums
from pipeline.system.project import Project, write_json


def accuracy(correct: np.ndarray, name: str = "top1") -> Measurement:
    """The share of `correct` (I,) items, drawn again one by one."""
    ones = np.ones(len(correct))
    return Measurement(
        values={name: float(correct.mean())},
        variant="share of items",
        source="test",
        num_items=len(correct),
        resample=lambda weights: {name: ratio_of_sums(weights, correct, ones)},
    )


def write_run(
    root: Path,
    name: str,
    correct: np.ndarray,
    *,
    constant: np.ndarray | None = None,
    more: Sequence[Measurement] = (),
    settings: Mapping[str, Any] | None = None,
    cost: Mapping[str, Any] | None = None,
    curves: Mapping[str, Sequence[tuple[int, float]]] | None = None,
    tables: Mapping[str, tuple[dict[str, Any], str]] | None = None,
    pictures: Mapping[str, np.ndarray] | None = None,
    split_digest: str = "d" * 64,
    decision: str | None = None,
) -> None:
    """`evaluations/<name>` of a run that got `correct` (I,) of 0 and 1 right; `constant` is that of the predictor that
    ignores the input. `tables`: name -> what it is, and its CSV."""
    project, measurements = Project(root), [accuracy(correct), *more]
    alone = accuracy(np.arange(len(correct)) % 4 == 0 if constant is None else constant)
    drawn, drawn_alone = replicates(measurements), replicates([alone])
    intervals, folder = percentile_intervals(drawn), project.evaluation(name)
    for part in ("tables", "pictures"):
        (folder / part).mkdir(parents=True)
    values = {key: value for m in measurements for key, value in m.values.items()}
    document = {
        "run": name, "task": "classification", "dataset": "pets", "split": "val", "metric": "top1",
        "metric_mode": "max", "num_samples": len(correct), "num_items": len(correct), "split_digest": split_digest,
        "items_sha256": "e" * 64, "value": values["top1"], "metrics": values, "constant": dict(alone.values),
        "losses": {"loss": 0.5},
        "measured": [
            {"name": key, "value": value, "interval_95": intervals.get(key), "variant": "share of items"}
            for key, value in values.items()
        ],
    }  # fmt: skip
    write_json(folder / "measured.json", document)
    arrays = {f"run/{key}": value for key, value in drawn.items()}
    arrays |= {f"constant/{key}": value for key, value in drawn_alone.items()}
    np.savez(folder / "resamples.npz", **{key: value.astype(np.float32) for key, value in arrays.items()})  # type: ignore[arg-type]
    described = [{"name": key, **what} for key, (what, _) in (tables or {}).items()]
    for key, (_, text) in (tables or {}).items():
        (folder / "tables" / f"{key}.csv").write_text(text)
    run = {"settings": settings or {}, "cost": cost or {}, "curves": curves or {}, "tables": described}
    write_json(folder / "run.json", run)
    for key, picture in (pictures or {}).items():
        cv2.imwrite(str(folder / "pictures" / f"{key}.webp"), picture)
    if decision is not None:
        project.registry(name).parent.mkdir(exist_ok=True)
        project.registry(name).write_text(json.dumps({"decision": decision, "reason": "it is", "version": "1"}))


def write_params(root: Path, names: Sequence[str]) -> None:
    entry = {"dataset": "pets", "task": {"name": "classification"}, "model": {"name": "image_classifier"}}
    datasets = {"pets": {"origin": "local", "input": "pets", "sources": {"image_folder": {}}}}
    document = {"datasets": datasets, "runs": dict.fromkeys(names, entry)}
    (root / "params.yaml").write_text(yaml.safe_dump(document, sort_keys=False))
