"""MLflow's runs of a sweep: one of the sweep, and below it one of each trial, as the UI nests them."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mlflow.exceptions import MlflowException

from contracts.errors import ConfigError
from pipeline.settings.sections import TrackingConfig
from pipeline.tracking.connection import answering, metric_name
from pipeline.tracking.mlflow_run import EventTail, Run, open_run

PARENT = "mlflow.parentRunId"  # what MLflow's pages nest runs by
SWEEP, STATE = "sweep", "sweep.state"  # tags: its name; what became of a trial


@contextlib.contextmanager
def open_sweep(
    config: TrackingConfig,
    root: Path,
    *,
    name: str,
    experiment: str,
    document: Mapping[str, Any],
    tags: Mapping[str, Any],
    dataset: tuple[str, str, str],
    run_id_file: Path,
) -> Iterator[Run]:
    """The run of a whole sweep; the same one where the sweep goes on.

    Args:
        name: the sweep's. experiment: the task's. document: the sweep's settings, kept as `sweep.yaml`.
        tags, dataset, run_id_file: as of `open_run`.

    Raises:
        ConfigError: as `open_run`.
    """
    params = {key: document[key] for key in ("run", "metric", "mode", "seed")}
    with open_run(
        config,
        root=root,
        run_name=name,
        experiment=experiment,
        params=params,
        settings=document,
        tags={SWEEP: name, **tags},
        dataset=dataset,
        run_id_file=run_id_file,
    ) as run:
        yield run


@contextlib.contextmanager
def open_trial(
    parent: Run,
    config: TrackingConfig,
    root: Path,
    *,
    name: str,
    number: int,
    experiment: str,
    chosen: Mapping[str, Any],
    settings: Mapping[str, Any],
    tags: Mapping[str, Any],
    dataset: tuple[str, str, str],
    state: Path,
    events: str,
) -> Iterator[Run]:
    """The run of a trial, which is sent what training writes into its events meanwhile.

    Args:
        name: the sweep's. number: the trial's. chosen: what it tries, by dotted name. settings: all of them.
        state: the training's folder. events: the file in it.
    """
    quiet = dataclasses.replace(config, system_metrics=False)  # the sweep's own run has this machine's
    with (
        open_run(
            quiet,
            root=root,
            run_name=f"{name} {number}",
            experiment=experiment,
            params=chosen,
            settings=settings,
            tags={PARENT: parent.run_id, SWEEP: name, **tags},
            dataset=dataset,
            run_id_file=state / "run_id",
        ) as run,
        EventTail(run, state / events),
    ):
        yield run


def tell_best(parent: Run, metric: str, value: float, document: Mapping[str, Any], done: Sequence[Any]) -> None:
    """The best value so far as the sweep's own metric, by the number of trials done; every result as `sweep.json`.

    Raises:
        ConfigError: MLflow does not answer.
    """
    with answering(parent.place):
        try:
            parent.client.log_metric(parent.run_id, metric_name(f"best/{metric}"), value, step=len(done))
            parent.client.log_dict(parent.run_id, dict(document), "sweep.json")
        except MlflowException as error:
            raise ConfigError("MLflow refuses the sweep's results", value=str(error)[:200]) from error
