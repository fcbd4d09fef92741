"""What is done with the best trials: written into params.yaml, or queued as experiments of DVC."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

from contracts.errors import ConfigError
from pipeline.settings.params import FILE
from pipeline.settings.params_edit import write_values
from pipeline.settings.parse import one_line
from pipeline.settings.sweep import Sweep
from pipeline.sweeping.records import Trial
from pipeline.system.project import Project


def apply_best(project: Project, sweep: Sweep, best: Trial) -> None:
    """Write the settings of a trial into params.yaml, and leave all else of the file as it is.

    Raises:
        ConfigError: a value cannot be written without changing others; nothing is written then.
    """
    path, run = project.root / FILE, sweep.config.run
    values = {("runs", run, *name.split(".")): value for name, value in best.settings.items()}
    try:
        is_new = write_values(path, values)
    except ConfigError as error:
        overrides = " ".join(f"-S '{text}'" for text in _overrides(sweep, best))
        raise ConfigError(
            error.what, where=f"{FILE}: {error.where}", fix=f"{error.fix}; or: dvc exp run {overrides}"
        ) from None
    if not is_new:
        print(f"{FILE} has the settings of trial {best.number} already")
        return
    for name, value in best.settings.items():
        print(f"{FILE}: runs.{run}.{name}: {one_line(value)}")
    print(f"trial {best.number} is in {FILE}; now: sightline repro register@{run}")


def queue_best(project: Project, sweep: Sweep, best: Sequence[Trial]) -> None:
    """Queue an experiment of DVC for each trial: the stages of the run with its settings, whose training is there.

    Raises:
        ConfigError: DVC refuses, such as where there is no git, or an experiment of that name.
    """
    for trial in best:
        name = f"{sweep.name}-{trial.number}"
        settings = [part for text in _overrides(sweep, trial) for part in ("-S", text)]
        target = f"register@{sweep.config.run}"
        command = [sys.executable, "-m", "dvc", "exp", "run", "--queue", "--name", name, *settings, target]
        done = subprocess.run(command, cwd=project.root, capture_output=True, text=True, check=False)
        if done.returncode:
            lines = [line for line in done.stderr.splitlines() if line.strip()]
            raise ConfigError(
                "DVC did not queue the experiment",
                value=name,
                where=lines[0] if lines else "dvc exp run --queue",
                fix="`dvc exp remove NAME` removes one of before",
            )
        print(f"queued: {name}")
    print("now: dvc exp run --run-all, then dvc exp show")


def _overrides(sweep: Sweep, trial: Trial) -> list[str]:
    """As `dvc exp run -S` takes them; `++` puts in what is not in the file yet."""
    return [f"++runs.{sweep.config.run}.{name}={_said(value)}" for name, value in trial.settings.items()]


def _said(value: Any) -> str:
    """A value in the grammar of DVC's overrides, whose keys have no quotes."""
    if isinstance(value, dict):
        return "{" + ",".join(f"{key}:{_said(below)}" for key, below in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(_said, value)) + "]"
    return json.dumps(value, ensure_ascii=False)
