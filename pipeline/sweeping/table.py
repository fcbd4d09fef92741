"""The trials of a sweep in a terminal, the best first."""

from __future__ import annotations

import sys
from typing import Any

from rich.console import Console
from rich.table import Table

from pipeline.settings.parse import one_line
from pipeline.settings.sweep import Sweep
from pipeline.sweeping.records import Records, Trial

_SHOWN = 10
_WIDE = 120  # characters where there is no terminal


def show(sweep: Sweep, records: Records) -> None:
    """Print the best trials, and how many there are of which kind."""
    console = Console(file=sys.stdout, highlight=False, width=None if sys.stdout.isatty() else _WIDE)
    console.print(table(sweep, records))
    counts = {
        state: len(records.of(state))  # type: ignore[arg-type]
        for state in ("complete", "stopped", "failed", "running")
    }
    told = ", ".join(
        f"{count} {'unfinished' if state == 'running' else state}" for state, count in counts.items() if count
    )
    print(f"{sweep.name}: {told or 'no trial yet'}; all of them: {records.path}")
    if counts["running"] or len(records.trials) < sweep.config.num_trials:
        print("the same command goes on")


def table(sweep: Sweep, records: Records) -> Table:
    """Complete trials by rank, then stopped ones by what they had come to."""
    names = list(sweep.space)
    out = Table(title=f"{sweep.name}: {sweep.metric} of {sweep.config.run}, best first", title_justify="left")
    for name in ("trial", sweep.metric, "epochs"):
        out.add_column(name, justify="right", no_wrap=True)
    for name in names:
        out.add_column(name, justify="right", overflow="fold")
    out.add_column("")
    stopped = sorted(records.of("stopped"), key=_value, reverse=sweep.mode == "max")
    for trial in [*records.ranked(), *stopped, *records.of("failed")][:_SHOWN]:
        out.add_row(*_row(trial, names))
    return out


def _row(trial: Trial, names: list[str]) -> tuple[str, ...]:
    value = "" if trial.value is None else f"{trial.value:.4f}"
    settings = (one_line(trial.settings[name]) for name in names)
    return (str(trial.number), value, str(trial.epochs), *settings, "" if trial.state == "complete" else trial.state)


def _value(trial: Trial) -> Any:
    return (trial.value is not None, trial.value or 0.0)
