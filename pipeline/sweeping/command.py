"""`sightline sweep SPEC`: try settings of a run, and what can be done with the best of them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from pipeline.settings import own
from pipeline.settings.params import load_params
from pipeline.settings.sections import ClusterConfig, TrackingConfig
from pipeline.settings.sweep import Sweep, read_sweep
from pipeline.sweeping.best import apply_best, queue_best
from pipeline.sweeping.records import Records, Trial
from pipeline.sweeping.table import show
from pipeline.system import lock
from pipeline.system.guard import end_on_sigterm
from pipeline.system.progress import steps_hidden
from pipeline.system.project import Project
from pipeline.training.runs import RunData, load_run

_RUN_IDS = "sweeps"  # below state


def run(spec: Path, *, apply: bool = False, queue: int = 0) -> int:
    """The command: try what is still to be tried, show the trials, and apply or queue the best.

    Returns:
        1 where no trial was trained to its end, else 0.

    Raises:
        ConfigError: a mistake in the file, or the sweep was begun with another one.
        DataError: the run's data is not there.
        TrainingError: every trial fails, or Ray itself died.
    """
    end_on_sigterm()  # so that MLflow's runs are closed
    project = Project.here()
    params = load_params(project.root)
    sweep = read_sweep(spec, params)
    with ExitStack() as held:
        held.enter_context(lock.hold(project.locks, f"sweep-{sweep.name}", f"the sweep {sweep.name}"))
        dataset = params.run_dataset(sweep.config.run)
        for kind in ("shards", "vocab"):
            what = f"the {kind} of data set {dataset}"
            held.enter_context(lock.hold(project.locks, f"{kind}-{dataset}", what, shared=True))
        first = load_run(project, sweep.with_settings(sweep.first), sweep.config.run)
        records = Records(project, sweep, first.fingerprint)
        if records.of("running") or len(records.trials) < sweep.config.num_trials:
            _try(project, sweep, records, first)
    show(sweep, records)
    best = records.ranked()
    if not best:
        return 1
    if apply:
        apply_best(project, sweep, best[0])
    if queue:
        queue_best(project, sweep, best[:queue])
    return 0


def _try(project: Project, sweep: Sweep, records: Records, first: RunData) -> None:
    """Run trials until there are as many as were asked for, or the time is up."""
    from pipeline.cluster.trial import run_here
    from pipeline.shards.reader import verify_shards
    from pipeline.sweeping.directing import Directing
    from pipeline.tracking.sweep_runs import tell_best
    from pipeline.training.starting import train_first

    config, params = sweep.config, sweep.params
    train_first(project, params, config.run)
    verify_shards(project.shards(first.run.dataset), first.manifest)
    cluster = params.section(ClusterConfig, "cluster")
    deadline = None if config.time_limit_s is None else time.monotonic() + config.time_limit_s
    with steps_hidden(), _tracked(project, sweep, records, first) as (parent, opened):

        def told(trial: Trial) -> None:
            print(f"trial {trial.number}  {trial.state}: {_said(sweep, trial)}", flush=True)
            if best := records.ranked():
                assert best[0].value is not None
                ended = records.of("complete", "stopped", "failed")
                tell_best(parent, sweep.metric, best[0].value, records.document(), ended)

        director = Directing(project, sweep, records, cluster, opened, told)
        try:
            if cluster.engine == "local":
                run_here(director, use_gpu=_gpu_here(cluster), deadline=deadline)
            else:
                from pipeline.cluster.tune import run_trials

                run_trials(
                    director,
                    cluster,
                    project.root,
                    storage=project.root / "state" / f".tune-{sweep.name}",
                    loader_processes=first.run.loader.num_workers,
                    concurrent=config.concurrent,
                    deadline=deadline,
                    own_code=own.packages(first.run.loader.stages, project.root),
                )
        finally:
            director.close()
        if director.error is not None:
            raise director.error


def _said(sweep: Sweep, trial: Trial) -> str:
    if trial.state == "failed":
        return trial.failure.splitlines()[0]
    return f"{sweep.metric} {trial.value:.4g} after {trial.epochs} epochs"


def _gpu_here(cluster: ClusterConfig) -> bool:
    import torch

    from pipeline.cluster.room import decide_gpu, no_gpu

    has = torch.cuda.device_count()
    use_gpu = decide_gpu(cluster.use_gpu, [{"GPU": has}])
    if use_gpu and not has:
        raise no_gpu("this machine")
    return use_gpu


@contextmanager
def _tracked(project: Project, sweep: Sweep, records: Records, first: RunData) -> Iterator[tuple[Any, Any]]:
    """MLflow's run of the sweep, and what opens one of a trial."""
    from pipeline.tracking.lineage import lineage
    from pipeline.tracking.naming import settings_of
    from pipeline.tracking.sweep_runs import open_sweep, open_trial
    from pipeline.training.run_files import EVENTS

    config = sweep.params.section(TrackingConfig, "tracking")
    cluster = sweep.params.section(ClusterConfig, "cluster")
    code, dataset = lineage(project.root), first.run.dataset
    place = (dataset, first.manifest["digest"], str(project.shards(dataset)))
    tags = {"git_commit": code.commit, "git_changed": ", ".join(code.changed), "dvc_lock_sha256": project.lock_digest()}
    run_id = project.root / "state" / _RUN_IDS / sweep.name
    run_id.parent.mkdir(parents=True, exist_ok=True)
    run_id.write_text(records.run_id)
    with open_sweep(
        config,
        project.tracking_root,
        name=sweep.name,
        experiment=first.run.task_name,
        document={**sweep.question, "seed": sweep.config.seed, "num_trials": sweep.config.num_trials},
        tags=tags,
        dataset=place,
        run_id_file=run_id,
    ) as parent:
        records.run_id = parent.run_id
        records.write()

        def opened(trial: Trial, data: RunData, state: Path) -> Any:
            return open_trial(
                parent,
                config,
                project.tracking_root,
                name=sweep.name,
                number=trial.number,
                experiment=data.run.task_name,
                chosen=trial.settings | {"dataset": dataset, "model": data.run.model_name},
                settings=settings_of(data.run, cluster),
                tags={**tags, "fingerprint": data.fingerprint, "sweep.trial": trial.number},
                dataset=place,
                state=state,
                events=EVENTS,
            )

        yield parent, opened
