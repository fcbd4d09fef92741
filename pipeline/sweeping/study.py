"""What is tried next, and what is not worth going on with: Optuna's sampler (TPE) and pruner (ASHA, 1810.05934).

The study lives in memory and is made anew from the sweep's record, so there is one file that lasts, and no
database that could say something else.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.pruners import BasePruner, NopPruner, SuccessiveHalvingPruner
from optuna.samplers import TPESampler
from optuna.trial import TrialState, create_trial

from contracts.seeds import derive_seed
from pipeline.settings.sweep import Dimension, Sweep
from pipeline.sweeping.records import Trial

_TRIES = 100  # of the sampler, for settings that are new and that the run takes
_RUNG = "completed_rung_"  # the pruner's own note of a trial
_STATES = {"complete": TrialState.COMPLETE, "stopped": TrialState.PRUNED, "failed": TrialState.FAIL}


class Study:
    """Sampler and pruner of one sweep, and what they know."""

    def __init__(self, sweep: Sweep):
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._sweep = sweep
        self._distributions = {name: _distribution(one) for name, one in sweep.space.items()}
        self._study = optuna.create_study(
            direction="maximize" if sweep.mode == "max" else "minimize", pruner=_pruner(sweep)
        )
        self._running: dict[int, optuna.Trial] = {}

    def add(self, trial: Trial) -> None:
        """A trial of an earlier call, which has ended."""
        self._study.add_trial(
            create_trial(
                state=_STATES[trial.state],
                value=trial.value if trial.state == "complete" else None,
                params=self._drawn(trial.settings),
                distributions=dict(self._distributions),
                intermediate_values={int(epochs): value for epochs, value in trial.history.items()},
                system_attrs=dict(trial.rungs),
            )
        )

    def go_on(self, trial: Trial) -> None:
        """A trial of an earlier call that had not ended: it tells anew what it had come to."""
        self._study.enqueue_trial(self._drawn(trial.settings))
        self._running[trial.number] = self._study.ask(self._distributions)

    def draw(self, number: int, refuses: Callable[[dict[str, Any]], str | None]) -> dict[str, Any] | None:
        """New settings for the trial `number`, by dotted name. The same ones for the same number and the same trials
        before it, however often the sweep was interrupted.

        Args:
            refuses: why these settings cannot be tried, or None.

        Returns:
            None where the sampler finds nothing more that is new and allowed.
        """
        for attempt in range(_TRIES):
            seed = derive_seed(self._sweep.config.seed, number, attempt) % 2**32
            self._study.sampler = TPESampler(seed=seed, constant_liar=True)
            asked = self._study.ask(self._distributions)
            settings = {name: one.value(asked.params[name]) for name, one in self._sweep.space.items()}
            if refuses(settings) is None:
                self._running[number] = asked
                return settings
            self._study.tell(asked, state=TrialState.FAIL)
        return None

    def report(self, number: int, epochs: int, value: float) -> bool:
        """Whether the trial is not worth going on with."""
        trial = self._running[number]
        trial.report(value, epochs)
        return trial.should_prune()

    def rungs(self, number: int) -> dict[str, float]:
        """What the pruner noted of a trial. Values that are not finite are left out: JSON has no word for them."""
        noted = self._study.trials[self._running[number].number].system_attrs
        return {key: value for key, value in noted.items() if key.startswith(_RUNG) and math.isfinite(value)}

    def end(self, trial: Trial) -> None:
        """Tell the sampler what became of a trial."""
        asked = self._running.pop(trial.number)
        value = trial.value if trial.state == "complete" else None
        self._study.tell(asked, value, state=_STATES[trial.state])

    def _drawn(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        return {name: one.drawn(settings[name]) for name, one in self._sweep.space.items()}


def _distribution(dimension: Dimension) -> BaseDistribution:
    if dimension.kind == "choice":
        return CategoricalDistribution(range(len(dimension.choices)))  # by place: a choice may be a list
    if dimension.kind == "int":
        return IntDistribution(int(dimension.low), int(dimension.high), log=dimension.log)
    return FloatDistribution(dimension.low, dimension.high, log=dimension.log)


def _pruner(sweep: Sweep) -> BasePruner:
    asha = sweep.config.scheduler
    if asha is None:
        return NopPruner()
    return SuccessiveHalvingPruner(min_resource=asha.grace_epochs, reduction_factor=asha.reduction_factor)
