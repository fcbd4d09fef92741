"""What happens to the trials of a sweep: settings drawn, MLflow's runs opened and closed, the record written.

A trial is a training of the run with other settings, in the very folder where `dvc repro` would train it: what is
applied, or queued as an experiment, afterwards finds its training done.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from contracts.errors import ConfigError, SightlineError, TrainingError
from pipeline.cluster.trial import Job
from pipeline.settings.parse import Problems
from pipeline.settings.sections import ClusterConfig
from pipeline.settings.sweep import Sweep
from pipeline.sweeping.records import Records, Trial
from pipeline.sweeping.study import Study
from pipeline.system import lock
from pipeline.system.project import Project
from pipeline.system.removal import remove_tree
from pipeline.tracking.mlflow_run import Run
from pipeline.tracking.start import lay_start
from pipeline.tracking.sweep_runs import STATE
from pipeline.training.checkpoints import BEST, load_best
from pipeline.training.runs import RunData, load_run
from pipeline.training.starting import for_fit

Opened = Callable[[Trial, RunData, Path], contextlib.AbstractContextManager[Run]]
_FAILURES = 3  # so many first trials that all fail are a mistake, not bad luck


@dataclass
class _Open:
    """A trial under way: its data, its folder, and what is closed when it ends."""

    trial: Trial
    data: RunData
    state: Path
    run: Run
    held: ExitStack
    enough: bool = False
    seen: int = 0  # epochs that were told of in this call


class Directing:
    """The director of one sweep (`pipeline.cluster.trial.Director`).

    Attributes:
        error: what ended the whole sweep, if something did: nothing more is begun after it.

    Args:
        opened: opens MLflow's run of a trial. told: called after each trial that has ended.
    """

    def __init__(
        self,
        project: Project,
        sweep: Sweep,
        records: Records,
        cluster: ClusterConfig,
        opened: Opened,
        told: Callable[[Trial], None],
    ):
        self.project, self.sweep, self.records, self.cluster = project, sweep, records, cluster
        self._opened, self._told = opened, told
        self.error: SightlineError | None = None
        self._study = Study(sweep)
        self._waiting = records.of("running")
        self._under_way: dict[int, _Open] = {}
        self._drawn: dict[str, RunData] = {}
        for trial in records.of("complete", "stopped", "failed"):
            self._study.add(trial)

    def next_job(self) -> Job | None:
        """The trial that an earlier call left, or a new one."""
        try:
            if self.error is not None:
                return None
            if self._waiting:
                trial = self._waiting.pop(0)
                self._study.go_on(trial)
                params = self.sweep.with_settings(trial.settings)
                return self._begin(trial, load_run(self.project, params, self.sweep.config.run))
            return self._new()
        except SightlineError as error:
            self.error = error
            return None

    def _new(self) -> Job | None:
        number = len(self.records.trials)
        if number >= self.sweep.config.num_trials:
            return None
        settings = self._study.draw(number, self._refusal)
        if settings is None:
            print(f"nothing more to try in this space after {number} trials", flush=True)
            return None
        data = self._drawn[str(settings)]
        trial = Trial(number=number, settings=settings, folder=self._folder(data).name)
        self.records.trials.append(trial)
        return self._begin(trial, data)

    def _refusal(self, settings: dict[str, Any]) -> str | None:
        problems: Problems = []
        if self.sweep.resolved(settings, problems) is None:
            return "; ".join(problems)
        data = load_run(self.project, self.sweep.with_settings(settings), self.sweep.config.run)
        if self._folder(data).name in {trial.folder for trial in self.records.trials}:
            return "tried already"
        self._drawn = {str(settings): data}
        return None

    def _folder(self, data: RunData) -> Path:
        return self.project.state(data.run.name, data.fingerprint)

    def _begin(self, trial: Trial, data: RunData) -> Job:
        state = self._folder(data)
        with ExitStack() as stack:
            stack.enter_context(lock.hold(self.project.store_locks, state.name, f"the training state {state}"))
            state.mkdir(parents=True, exist_ok=True)
            lay_start(self.project, data, state)
            run = stack.enter_context(self._opened(trial, data, state))
            held = stack.pop_all()
        self._under_way[trial.number] = _Open(trial, data, state, run, held)
        trial.folder, trial.run_id = state.name, run.run_id
        self.records.write()
        told = ", ".join(f"{name} {value}" for name, value in trial.settings.items())
        print(f"trial {trial.number}  {told}", flush=True)
        arguments = {
            "run": for_fit(data.run.to_dict()),
            "data": data.spec.to_dict(),
            "shards": str(self.project.shards(data.run.dataset)),
            "state": str(state),
        }
        return Job(trial.number, arguments)

    def reported(self, number: int, epochs: int, values: dict[str, float]) -> bool:
        """Note a validation; True: the trial ends here."""
        under_way, metric = self._under_way[number], self.sweep.metric
        if metric not in values:
            self.error = self.error or ConfigError(
                "validation gives no such metric",
                value=metric,
                where=f"{self.sweep.name}.yaml: metric",
                allowed=", ".join(sorted(values)),
            )
            return True
        if epochs <= under_way.seen:
            return under_way.enough  # its process died, and the next one tells anew
        under_way.seen = epochs
        value, trial, num_epochs = values[metric], under_way.trial, under_way.data.run.train.num_epochs
        if math.isfinite(value):
            trial.see(epochs, value)
        enough = self._study.report(number, epochs, value)
        trial.rungs = self._study.rungs(number)
        under_way.enough = enough and epochs < num_epochs  # nothing is saved at the end
        self.records.write()
        print(f"trial {number}  epoch {epochs}/{num_epochs}  {metric} {value:.4g}", flush=True)
        return under_way.enough

    def ended(self, number: int, failure: str | None) -> None:
        """Close a trial and say what became of it."""
        if self.error is not None:
            return  # as of an interruption: `close` does the rest
        under_way = self._under_way.pop(number)
        trial = under_way.trial
        if failure is None and not under_way.enough:
            failure = self._measure(trial, under_way.state)
        if failure is not None:
            trial.state, trial.failure = "failed", failure
        elif under_way.enough:
            seen = trial.history.values()
            trial.state = "stopped"
            trial.value = (max if self.sweep.mode == "max" else min)(seen) if seen else None
        else:
            trial.state = "complete"
        self._study.end(trial)
        self.records.write()
        try:
            under_way.run.tag({STATE: trial.state})
            _close(under_way.held, None if failure is None else TrainingError(failure))
            self._tidy()
            self._told(trial)
        except SightlineError as error:
            self.error = error
        self._give_up_if_all_fail()

    def _measure(self, trial: Trial, state: Path) -> str | None:
        """Put the metric at the best checkpoint into `trial`; why there is none."""
        try:
            value = float(load_best(state / BEST)["info"]["metrics"][f"val/{self.sweep.metric}"])
        except (SightlineError, KeyError) as error:
            return f"there is no best checkpoint: {error}"
        if not math.isfinite(value):
            return f"{self.sweep.metric} is not finite at the best checkpoint"
        trial.value = value
        return None

    def _tidy(self) -> None:
        """Remove the folders of trials that have ended, but of the best ones."""
        kept = {trial.folder for trial in self.records.ranked()[: self.sweep.config.keep]}
        root = self.project.store_root / "state"
        for trial in self.records.of("complete", "stopped", "failed"):
            if trial.folder and trial.folder not in kept:
                remove_tree(root / trial.folder, inside=root)

    def _give_up_if_all_fail(self) -> None:
        ended = self.records.of("complete", "stopped", "failed")
        if self.error is None and len(ended) == _FAILURES and len(self.records.of("failed")) == _FAILURES:
            self.error = TrainingError(
                "every trial failed",
                value=ended[-1].failure.splitlines()[0],
                where=str(self.records.path),
                fix=f"mend it, then remove {self.records.path} to begin anew",
            )

    def close(self) -> None:
        """Let go of trials that did not end: the next call goes on with them."""
        for under_way in self._under_way.values():
            _close(under_way.held, KeyboardInterrupt())
        self._under_way = {}


def _close(held: ExitStack, error: BaseException | None) -> None:
    """Leave a trial's blocks, as if `error` had been raised in them: MLflow's run ends as FAILED or KILLED by it."""
    if error is None:
        held.close()
        return
    with contextlib.suppress(type(error)), held:
        raise error
