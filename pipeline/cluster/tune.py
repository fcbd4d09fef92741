"""Trials of a sweep as trials of Ray Tune: it starts a process each where there is room, again where one died, and ends
those that the director has seen enough of.

What is tried next, what ends early and what was done before is not Tune's to know: its own record of an experiment can
neither be asked about a trial that a rule of ours refuses, nor go on with half-trained trials beside new ones.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher
from ray.tune.stopper import Stopper

from contracts.errors import SightlineError, TrainingError
from pipeline.cluster.group import cluster_nodes
from pipeline.cluster.join import environment
from pipeline.cluster.room import Plan, Share, decide_gpu, too_small
from pipeline.cluster.session import session
from pipeline.cluster.trial import Director, Training
from pipeline.cluster.watch import Watch, reason, watched
from pipeline.settings.sections import ClusterConfig
from pipeline.system.removal import remove_tree

_EPOCHS, _VALUES, _FAILURE = "epochs", "values", "failure"  # of what a trial reports
_TUNE_ENV = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # MLflow and the sweep's own file have it all
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",  # no metric is for Tune to judge
    "RAY_AIR_NEW_OUTPUT": "0",
    "TUNE_GLOBAL_CHECKPOINT_S": "3600",
}


class _Trial(tune.Trainable):
    """A step is a validated epoch."""

    def setup(self, config: dict[str, Any]) -> None:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115  # to this process' end: nobody could follow several trainings
        self._training = Training(config["arguments"], use_gpu=config["use_gpu"])

    def step(self) -> dict[str, Any]:
        try:
            epoch = self._training.next_epoch()
        except SightlineError as error:  # trying again would not help
            return {_FAILURE: str(error), "done": True}
        if epoch is None:
            return {"done": True}
        return {_EPOCHS: epoch[0], _VALUES: json.dumps(epoch[1])}  # Tune would flatten a mapping

    def save_checkpoint(self, checkpoint_dir: str) -> None:  # type: ignore[override]
        """Nothing: training keeps its states itself, where the next process of this trial finds them."""

    def load_checkpoint(self, checkpoint: Any) -> None:
        """Nothing, as above."""

    def cleanup(self) -> None:
        self._training.stop()


class _Jobs(Searcher):
    """The director's jobs as Tune's suggestions, and its trials' ends as the director's."""

    def __init__(self, director: Director, most: int, use_gpu: bool):
        super().__init__(metric="none", mode="max")
        self._director, self._most, self._use_gpu = director, most, use_gpu
        self.numbers: dict[str, int] = {}  # of trials under way, by Tune's id
        self.enough: set[str] = set()

    def suggest(self, trial_id: str) -> Any:
        if len(self.numbers) >= self._most:
            return None  # Tune asks again
        job = self._director.next_job()
        if job is None:
            return Searcher.FINISHED
        self.numbers[trial_id] = job.number
        return {"number": job.number, "arguments": job.arguments, "use_gpu": self._use_gpu}

    def on_trial_complete(self, trial_id: str, result: dict | None = None, error: bool = False) -> None:
        number = self.numbers.pop(trial_id, None)
        result = result or {}
        if number is None:
            return
        if error:
            self._director.ended(number, "its process died again and again")
        elif result.get("done") or trial_id in self.enough:
            self._director.ended(number, result.get(_FAILURE))
        # Else the time is up: it is not ended, and goes on at the next call.

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the director keeps what lasts."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing: Tune's experiments are never gone on with."""


class _Decisions(FIFOScheduler):
    """Trials in the order in which they came, ended when the director says so."""

    def __init__(self, director: Director, jobs: _Jobs):
        super().__init__()
        self._director, self._jobs = director, jobs

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict) -> str:
        number = self._jobs.numbers.get(trial.trial_id)
        if number is None or _EPOCHS not in result or result.get("done"):
            return TrialScheduler.CONTINUE
        if self._director.reported(number, result[_EPOCHS], json.loads(result[_VALUES])):
            self._jobs.enough.add(trial.trial_id)
            return TrialScheduler.STOP
        return TrialScheduler.CONTINUE


class _Deadline(Stopper):
    def __init__(self, deadline: float | None):
        self._deadline = deadline

    def __call__(self, trial_id: str, result: dict) -> bool:
        return False

    def stop_all(self) -> bool:
        return self._deadline is not None and time.monotonic() > self._deadline


def run_trials(
    director: Director,
    config: ClusterConfig,
    root: Path,
    *,
    storage: Path,
    loader_processes: int,
    concurrent: int | None,
    deadline: float | None,
    own_code: Sequence[Path] = (),
) -> None:
    """Train what `director` asks for, each on one worker, as many at once as there is room for.

    Args:
        storage: a folder for what Tune writes, removed afterwards.
        concurrent: most trials at once; None: as many as fit where nothing else runs.
        deadline: of `time.monotonic`, after which trials are stopped with a state.

    Raises:
        ConfigError: there is no room for one trial.
        TrainingError: Ray itself died.
    """
    with environment(_TUNE_ENV), session(config, root, own_code=own_code):
        use_gpu = decide_gpu(config.use_gpu, cluster_nodes())
        share = Share(config.cpus_per_worker + loader_processes, use_gpu)
        fitting = share.fitting(cluster_nodes())
        if not fitting and not (concurrent and config.address):  # a joined cluster may grow by what it is asked for
            raise too_small(Plan(share, 1, 1), cluster_nodes(), config, loader_processes=loader_processes)
        jobs = _Jobs(director, concurrent or fitting, use_gpu)
        tuner = tune.Tuner(
            tune.with_resources(_Trial, {name.lower(): amount for name, amount in share.resources.items()}),
            tune_config=tune.TuneConfig(
                search_alg=jobs, scheduler=_Decisions(director, jobs), num_samples=-1, reuse_actors=False
            ),
            run_config=tune.RunConfig(
                name="trials",
                storage_path=str(storage),
                stop=_Deadline(deadline),
                checkpoint_config=tune.CheckpointConfig(checkpoint_frequency=0, checkpoint_at_end=False),
                failure_config=tune.FailureConfig(max_failures=config.max_failures),
                verbose=0,
            ),
        )
        logging.getLogger("ray.tune").setLevel(logging.ERROR)
        try:
            error = watched(tuner.fit, Watch(TrainingError))
        finally:
            remove_tree(storage, inside=storage.parent)
        if isinstance(error, SightlineError):
            raise error
        if error is not None:
            raise TrainingError("the trials could not be run", value=reason(error), where="Ray Tune") from error
