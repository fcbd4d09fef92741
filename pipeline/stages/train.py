"""Train one run on the cluster: artifacts/<run>/best.ckpt and run.json; metrics and pictures go to MLflow meanwhile."""

from __future__ import annotations

import shutil
from pathlib import Path

from contracts.errors import DataError
from contracts.redact import redact
from pipeline.cluster.apart import Apart, fetch_begun, is_apart
from pipeline.cluster.train import run_training
from pipeline.settings import discover
from pipeline.settings.params import Params
from pipeline.settings.sections import ClusterConfig, TrackingConfig
from pipeline.shards import stores
from pipeline.shards.reader import verify_shards
from pipeline.system import lock
from pipeline.system.disk import renewed
from pipeline.system.environment import digest, environment
from pipeline.system.progress import steps_shown
from pipeline.system.project import Project, write_json
from pipeline.system.removal import remove_tree
from pipeline.tracking import mlflow_run as tracking
from pipeline.tracking.event_tail import tails_below
from pipeline.tracking.lineage import Lineage, lineage
from pipeline.tracking.naming import parameters, settings_of
from pipeline.tracking.start import lay_start
from pipeline.training.checkpoints import BEST, file_sha256, load_best, newest_state, read_note
from pipeline.training.history import copy_events, goodput, speed, spent
from pipeline.training.ledger import FOLDER as LEDGER
from pipeline.training.node_load import FOLDER as NODES
from pipeline.training.run_files import BEGUN, DONE, EVENTS
from pipeline.training.runs import RunData, load_run
from pipeline.training.starting import for_fit, keep_state, train_first
from pipeline.training.state_mirror import StateMirror

_LISTS = ("kept", "unused")  # of names, in run.json
_STORE_MARGIN_S = 60.0  # one request's repetitions, and the work itself


class _Beside:
    """A run for tails beside that of its events, which alone tells that the server is back."""

    def __init__(self, run: tracking.Run):
        self.run_id, self.place, self.send = run.run_id, run.place, run.send
        self.flush_s, self.patience_s = run.flush_s, run.patience_s

    def is_back(self) -> None: ...


def train(project: Project, params: Params, name: str) -> None:
    train_first(project, params, name)
    data = load_run(project, params, name)
    state = project.state(name, data.fingerprint)
    with lock.hold(project.store_locks, state.name, f"the training state {state}"):  # queued experiments share it
        _train(project, params, data, state)


def _train(project: Project, params: Params, data: RunData, state: Path) -> None:
    name = data.run.name
    cluster, config = params.section(ClusterConfig, "cluster"), params.section(TrackingConfig, "tracking")
    verify_shards(project.shards(data.run.dataset), data.manifest)
    state.mkdir(parents=True, exist_ok=True)
    mirror = StateMirror(f"{cluster.storage_url}/{state.name}", state) if cluster.storage_url else None
    apart = Apart(mirror.url, data.manifest, config.flush_s) if mirror and is_apart(cluster, data.manifest) else None
    if mirror is not None:
        fetch_begun(mirror) if apart else fetch_state(mirror, name)
    lay_start(project, data, state)
    if "store" in data.manifest:  # a rank waits for its shards while the others wait for it
        cluster = cluster.waiting_for(stores.PATIENCE_S + _STORE_MARGIN_S)
    watched, code = config.system_metrics, lineage(project.root)
    settings = settings_of(data.run, params.section(ClusterConfig, "cluster"))
    with (
        tracking.open_run(
            config,
            root=project.tracking_root,
            run_name=name,
            experiment=data.run.task_name,
            params=parameters(settings),
            settings=settings,
            tags={
                "git_commit": code.commit,
                "git_changed": ", ".join(code.changed),
                "dvc_lock_sha256": project.lock_digest(),
                "fingerprint": data.fingerprint,
                "cpu": environment()["cpu"],
                "packages_sha256": digest(environment()["packages"]),
                **{f"init.{key}": value for key, value in read_note(state / BEGUN).items() if key not in _LISTS},
            },
            dataset=(data.run.dataset, data.manifest["digest"], str(project.shards(data.run.dataset))),
            run_id_file=state / "run_id",
        ) as run,
        tracking.EventTail(run, state / EVENTS),
        tails_below(_Beside(run), state / NODES),
    ):
        if not read_note(state / DONE):
            arguments = {
                "run": for_fit(data.run.to_dict()),
                "data": data.spec.to_dict(),
                "shards": str(project.shards(data.run.dataset)),
                "state": str(state),
                "state_store": None if mirror is None else mirror.url,
            }
            with steps_shown():
                every_s = config.system_metrics_every_s if watched else None
                run_training(arguments, cluster, project.root, every_s, apart)
    keeps = data.run.train.keep_state or params.is_extended(name)
    if keeps and mirror is not None and apart is not None:
        mirror.pull()  # the last state, which workers alone have had
    export(project, data, state, run.run_id, code, keeps=keeps)
    remove_tree(state, inside=state.parent)
    if mirror is not None:
        clear_copy(mirror)


def fetch_state(mirror: StateMirror, name: str) -> None:
    """What another machine trained. A store that is away is no reason to wait where there is a state here.

    Raises:
        DataError: the store is away, and no whole state is here.
    """
    try:
        fetched = mirror.pull()
    except DataError as error:
        here = newest_state(mirror.folder)
        if here is None:
            raise
        print(
            f"{name}: {error.what}: {redact(mirror.url)}; training goes on from {here.name}, which is here", flush=True
        )
        return
    if fetched:
        print(f"{name}: state {fetched.removesuffix('.json')} fetched from {redact(mirror.url)}", flush=True)


def clear_copy(mirror: StateMirror) -> None:
    """Remove the copy of a finished run. What is left does no harm: the same run would only go on from its end."""
    try:
        mirror.clear()
    except DataError as error:
        url = redact(mirror.url)
        print(f"warning: the copy of the finished training stays in {url}, remove it there ({error.what})", flush=True)


def export(project: Project, data: RunData, state: Path, run_id: str, code: Lineage, *, keeps: bool = False) -> None:
    """Keep what is final: the best checkpoint, and the record of where it comes from; where one `keeps` it, the last
    state. The old files stay as they are, since DVC's cache may hold the same ones under other names."""
    with renewed(project.artifacts(data.run.name), inside=project.root / "artifacts") as folder:
        shutil.copyfile(state / BEST, folder / BEST)
        if (state / LEDGER).is_dir():
            shutil.copytree(state / LEDGER, folder / LEDGER)
        copy_events(state / EVENTS, folder / EVENTS)
        if keeps:
            keep_state(state, folder)
        cost, training, begun = spent(state), read_note(state / DONE), read_note(state / BEGUN)
        steps = training.get("step", 0) - begun.get("step", 0)
        record = {
            "run": data.run.name,
            "run_id": run_id,
            "manifest_digest": data.manifest["digest"],
            "checkpoint_sha256": file_sha256(folder / BEST),
            "fingerprint": data.fingerprint,
            "code": data.code,
            "git_commit": code.commit,
            "git_changed": list(code.changed),
            "environment": environment(),
            **({"init": begun} if begun else {}),
            "training": training,
            "cost": {
                **cost,
                "samples_per_s": speed(cost, steps, data.run.train.batch_size),
                "goodput": goodput(state / EVENTS, state),
            },
            "best": load_best(folder / BEST)["info"],
        }
        write_json(folder / "run.json", record)
    best = record["best"]
    name = data.run.train.monitor or discover.load("task", data.run.task_name, where="task").Task.metric
    print(f"train {data.run.name}: best at epoch {best['epoch'] + 1}: {name} {best['metrics'][f'val/{name}']:.4g}")
