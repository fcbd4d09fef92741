"""What `evaluate` keeps of a run so that it can be compared with any other, without its weights or the data.

`evaluations/<run>/` holds

- `measured.json`: every number with what it is and how sure it is (`Evaluation.document`);
- `resamples.npz`: `run/<metric>` and `constant/<metric>`, (1000,) float32: the metric on each resample of the split.
  The draws depend on the split and a fixed seed alone, so that the paired difference of two runs is a subtraction;
- `run.json`: settings, cost, learning curves, what the tables are;
- `tables/*.csv` of the report's plots, `pictures/*.webp` of the first records.

`curves/<run>/*.csv` are the learning curves that `dvc plots` draws.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from contracts.errors import DataError
from pipeline.measuring.charts import write_table
from pipeline.measuring.comparison import MEASURED, PICTURES, RESAMPLES, RUN, TABLES
from pipeline.measuring.evaluation import Evaluation
from pipeline.system.disk import renewed, write_lines
from pipeline.system.project import Project, heal, read_json, write_json
from pipeline.training.history import Curve, curves
from pipeline.training.run_files import BEST, EVENTS, RECORD

MAX_POINTS = 200  # of a learning curve
_WEBP_QUALITY = 85


def keep(
    evaluation: Evaluation,
    project: Project,
    run: str,
    pictures: Mapping[str, np.ndarray],
    *,
    test: Evaluation | None = None,
) -> None:
    """Write `evaluations/<run>` and `curves/<run>`, each whole or not at all.

    Args:
        pictures: `Evaluation.pictures`. test: of the same checkpoint on the test split.

    Raises:
        DataError: the record of the training is damaged; the disk refuses.
    """
    task, artifacts = evaluation.module.task, project.artifacts(run)
    found = curves(artifacts / EVENTS)
    record = read_json(artifacts / RECORD, "the record of the training", heal(Path("artifacts") / run))
    with renewed(project.evaluation(run), inside=project.root) as folder:
        write_json(folder / MEASURED, evaluation.document(run, test))
        drawn = {f"run/{name}": values for name, values in evaluation.drawn.items()}
        drawn |= {f"constant/{name}": values for name, values in evaluation.drawn_constant.items()}
        np.savez(folder / RESAMPLES, allow_pickle=False, **_single(drawn))
        (folder / TABLES).mkdir()
        for plot in evaluation.plots:
            write_table(plot, folder / TABLES)
        for key, picture in pictures.items():
            _write_picture(folder / PICTURES / f"{key}.webp", picture)
        write_json(
            folder / RUN,
            {
                "settings": _flat(evaluation.run),
                "cost": _cost(evaluation, artifacts / BEST, record),
                "curves": {name: thinned(points) for name, points in found.items()},
                "tables": [
                    {"name": p.name, "kind": p.kind, "title": p.title, "x": p.x, "y": p.y, "series": p.series}
                    for p in evaluation.plots
                ],
            },
        )
    with renewed(project.curves(run), inside=project.root) as folder:
        for name in ("train/loss", "val/loss", f"val/{task.metric}"):
            if name in found:
                rows = (f"{step},{value!r}" for step, value in thinned(found[name]))
                write_lines(folder / f"{name.replace('/', '_')}.csv", ("step,value", *rows))


def _single(drawn: Mapping[str, np.ndarray]) -> dict[str, Any]:
    return {name: values.astype(np.float32) for name, values in sorted(drawn.items())}


def _cost(evaluation: Evaluation, checkpoint: Path, record: Mapping[str, Any]) -> dict[str, Any]:
    """What is known of a run's cost; None where it is not."""
    return {
        **record.get("cost", {}),
        "steps": record.get("training", {}).get("step"),
        "epochs": record.get("training", {}).get("epochs"),
        "num_parameters": sum(parameter.numel() for parameter in evaluation.module.parameters()),
        "checkpoint_bytes": checkpoint.stat().st_size,
    }


def _write_picture(path: Path, picture: np.ndarray) -> None:
    path.parent.mkdir(exist_ok=True)
    if not cv2.imwrite(str(path), picture[..., ::-1], [cv2.IMWRITE_WEBP_QUALITY, _WEBP_QUALITY]):
        raise DataError("a picture cannot be written", where=str(path))


def thinned(points: Curve) -> Curve:
    """At most `MAX_POINTS` of a curve, evenly spaced, with both ends; six digits are more than a page can show."""
    chosen = np.unique(np.linspace(0, len(points) - 1, min(len(points), MAX_POINTS)).round().astype(int))
    return [(points[i][0], float(f"{points[i][1]:.6g}")) for i in chosen]


def _flat(document: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as dotted keys."""
    out: dict[str, Any] = {}
    for key, value in document.items():
        if isinstance(value, dict):
            out |= _flat(value, f"{prefix}{key}.")
        else:
            out[f"{prefix}{key}"] = value
    return out
