"""Logging 10 metrics a step into a SQLite store: our event lines and their delivery, beside MLflow's own calls."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

from mlflow.entities import Metric

from benchmarks import Figure, timed
from pipeline.settings.sections import TrackingConfig
from pipeline.tracking.event_tail import EventTail
from pipeline.tracking.mlflow_run import Run, open_run
from pipeline.training.events import EventLogger

NUM_METRICS, STEPS, FEW_STEPS, BATCH = 10, 1000, 200, 100
VALUES = {f"train/metric_{i}": i / 7 for i in range(NUM_METRICS)}


def measure() -> list[Figure]:
    with tempfile.TemporaryDirectory(prefix="sightline-bench-") as folder:
        root = Path(folder)
        config = TrackingConfig(system_metrics=False)
        with open_run(
            config, root=root, run_name="bench", experiment="bench", params={}, tags={}, dataset=("none", "0", "")
        ) as run:
            _in_batches(run, BATCH)  # the first use of the database
            events = root / "events.jsonl"
            caller = timed(lambda: _write(events))[0] / STEPS
            whole = caller + timed(lambda: _deliver(run, events))[0] / STEPS
            batches = timed(lambda: _in_batches(run, STEPS))[0] / STEPS
            each = timed(lambda: _each(run))[0] / FEW_STEPS
            asynchronous = _asynchronous(run) / FEW_STEPS
            stored = len(run.client.get_metric_history(run.run_id, next(iter(VALUES))))
    assert stored == BATCH + 2 * STEPS + 2 * FEW_STEPS, stored
    what = f"{NUM_METRICS} metrics a step, event lines and their delivery, a step"
    return [
        Figure(
            what=what,
            value=1000 * whole,
            unit="ms",
            beside=f"log_batch of {BATCH} steps",
            other=1000 * batches,
            goal="ratio >= 0.83 (<= 1.2 of its time)",
        ),
        Figure(
            what=what,
            value=1000 * whole,
            unit="ms",
            beside="log_metrics each step",
            other=1000 * each,
            goal="ratio >= 8",
        ),
        Figure(
            what="the training loop's own share, a step",
            value=1000 * caller,
            unit="ms",
            beside="asynchronous log_metrics, its caller's share",
            other=1000 * asynchronous,
            goal="ratio >= 10",
        ),
    ]


def _write(events: Path) -> None:
    logger = EventLogger(events)
    for step in range(STEPS):
        logger.log_metrics(VALUES, step)


def _deliver(run: Run, events: Path) -> None:
    with EventTail(run, events):
        pass  # leaving the block sends everything that is there


def _metrics(step: int) -> list[Metric]:
    now = int(time.time() * 1000)
    return [Metric(name, value, now, step) for name, value in VALUES.items()]


def _in_batches(run: Run, steps: int) -> None:
    for first in range(0, steps, BATCH):
        run.client.log_batch(
            run.run_id, metrics=[metric for step in range(first, first + BATCH) for metric in _metrics(10_000 + step)]
        )


def _each(run: Run) -> None:
    """What mlflow.log_metrics does."""
    for step in range(FEW_STEPS):
        run.client.log_batch(run.run_id, metrics=_metrics(20_000 + step))


def _asynchronous(run: Run) -> float:
    """Seconds of the caller; the queue is emptied afterwards."""
    start = time.perf_counter()
    pending = [
        run.client.log_batch(run.run_id, metrics=_metrics(30_000 + step), synchronous=False)
        for step in range(FEW_STEPS)
    ]
    seconds = time.perf_counter() - start
    for operation in pending:
        assert operation is not None
        operation.wait()
    return seconds
