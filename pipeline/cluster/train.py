"""Work on a cluster: a parallel map that keeps its order, and training on a group of workers.

`cluster.engine: local` does the same in this process without Ray.
"""

from __future__ import annotations

import itertools
import json
import os
import tempfile
import time
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, TypeVar

from contracts.errors import ConfigError, TrainingError
from pipeline.cluster.apart import Apart, Follower, Shared, own_folder
from pipeline.cluster.join import environment
from pipeline.cluster.room import Nodes, Plan, decide_gpu, no_gpu, plan_workers, too_small
from pipeline.cluster.session import WORKER_ENV, cluster_address, session
from pipeline.cluster.watch import Watch, reason, watched
from pipeline.settings import own
from pipeline.settings.sections import ClusterConfig
from pipeline.shards.stores import PATIENCE_S
from pipeline.system.removal import remove_tree
from pipeline.training.node_load import append_line
from pipeline.training.run_files import NOTE_TAG

T = TypeVar("T")
_TELL_AFTER_S = 5.0


def _train_worker(arguments: dict[str, Any]) -> None:
    """What each Ray Train worker runs."""
    import ray.train
    from ray.train.lightning import RayDDPStrategy, RayLightningEnvironment

    from pipeline.training.fit import Placement, fit
    from pipeline.training.history import spending
    from pipeline.training.node_load import node_load

    context = ray.train.get_context()
    world, rank = context.get_world_size(), context.get_world_rank()
    use_gpu, still_s = arguments.pop("use_gpu"), arguments.pop("still_s")
    load_every_s, is_joined = arguments.pop("load_every_s"), arguments.pop("is_joined")
    node = f"node-{context.get_node_rank()}" if is_joined else None
    if world == 1:
        placement = Placement(use_gpu=use_gpu, still_s=still_s)  # DDP with one process costs 8-11 % for nothing
    else:
        # A backbone's stage that this model does not tap, or a mask head in a batch without objects, has no gradient.
        strategy = RayDDPStrategy(find_unused_parameters=True)
        placement = Placement(world, rank, strategy, (RayLightningEnvironment(),), use_gpu, still_s)
    is_first, apart = context.get_local_rank() == 0, arguments.pop("apart")
    with ExitStack() as stack:
        if apart is not None:
            has_ledger, own = arguments["run"]["train"]["ledger"], (node or "") if is_first else ""
            state, shards = stack.enter_context(own_folder(apart, rank, world, own, has_ledger))
            arguments |= {"state": str(state), "shards": str(shards), "state_store": None}
        state = Path(arguments["state"])
        stack.enter_context(spending(state, rank))
        stack.enter_context(node_load(state, node, load_every_s if is_first else None))
        fit(**arguments, placement=placement)


def run_training(
    arguments: dict[str, Any],
    config: ClusterConfig,
    root: Path,
    load_every_s: float | None = None,
    apart: Apart | None = None,
) -> None:
    """Train on the configured engine; lost workers are replaced up to `cluster.max_failures` times without progress.

    Whether workers take GPUs is decided when the run begins, and kept in the state folder.

    Args:
        arguments: keyword arguments of `pipeline.training.fit.fit`, absolute paths.
        load_every_s: seconds between two lines of each node's load (`node_load.py`); None: no lines.
        apart: where workers share no folder with this process.

    Raises:
        ConfigError: there is no room for the workers, also not within `cluster.wait_s` on a cluster that may grow.
        TrainingError: training stopped for a reason that trying again would not change, or workers kept dying.
    """
    folder = Path(arguments["state"])
    failure = folder / "failure.json"
    failure.unlink(missing_ok=True)
    if config.engine == "local":
        _train_here(arguments, config, folder, load_every_s)
        return
    from pipeline.training.resume import decide, decided  # imports torch, which data stages do without

    # A process that answers nothing for this long is dead to Ray: 10 minutes by default.
    with (
        environment({"RAY_TRAIN_WORKER_HEALTH_CHECK_TIMEOUT_S": str(config.collective_timeout_s)}),
        session(config, root, own_code=_own_code(arguments, root)) as private,
        Shared(folder) if apart is None else Follower(apart, folder) as place,
    ):
        arguments = {**arguments, "load_every_s": load_every_s, "is_joined": private is None}
        if private is None:
            _tell_dashboard(folder)
        use_gpu = decide_gpu(config.use_gpu, cluster_nodes(), decided(folder).get("use_gpu"))
        failures, reached = 0, place.newest()
        for attempt in itertools.count():
            plan, refusal = _room(arguments["run"], config, use_gpu, can_grow=private is None)
            if refusal is not None and attempt == 0:
                raise refusal  # nothing was lost: it was never there
            decide(folder, use_gpu=use_gpu)  # for all later tries and calls
            if refusal is None:
                arguments["apart"] = place.begin()
                error = _train_once(arguments, config, plan, folder, private, attempt)
            else:
                error = f"{refusal.what}: {refusal.allowed}"
            place.ended(error)
            if error is None:
                return
            if failure.is_file():
                raise TrainingError(json.loads(failure.read_text())["text"]) from None
            failures, reached = (failures + 1 if place.newest() == reached else 1), place.newest()
            _failed(error, failures, config.max_failures)


def _failed(error: str, failures: int, allowed: int) -> None:
    """Tell a failure, and give up after so many without progress."""
    print(f"training workers failed (try {failures} of {allowed + 1}): {error}", flush=True)
    if failures > allowed:
        raise TrainingError(
            "training workers kept failing",
            value=error,
            where=f"{failures} tries without a new state; cluster.max_failures",
            fix="what the workers printed last is above; the same command goes on from the last state",
        )


def _tell_dashboard(folder: Path) -> None:
    """Of a joined cluster: a tag and the description of the MLflow run, until it is measured."""
    from ray._private.worker import get_dashboard_url

    url = None
    with suppress(Exception):  # a client of a cluster (`ray://`) knows none
        url = get_dashboard_url()
    if url:
        url = url if url.startswith("http") else f"http://{url}"
        append_line(folder, "cluster", {"kind": "tags", "values": {"ray.dashboard": url, NOTE_TAG: f"On Ray: {url}"}})


def _own_code(arguments: Mapping[str, Any], root: Path) -> list[Path]:
    return own.packages(own.OwnStages(**arguments["run"]["loader"]["stages"]), root)


def _train_here(arguments: dict[str, Any], config: ClusterConfig, folder: Path, load_every_s: float | None) -> None:
    import torch

    from pipeline.training.fit import Placement, fit
    from pipeline.training.history import spending
    from pipeline.training.node_load import node_load
    from pipeline.training.resume import decide, decided

    here = [{"CPU": os.cpu_count() or 1, "GPU": torch.cuda.device_count()}]
    use_gpu = decide_gpu(config.use_gpu, here, decided(folder).get("use_gpu"))
    if use_gpu and not here[0]["GPU"]:
        raise no_gpu("this machine")
    decide(folder, use_gpu=use_gpu)
    with spending(folder, 0), node_load(folder, None, load_every_s):
        fit(**arguments, placement=Placement(use_gpu=use_gpu))


def cluster_nodes() -> Nodes:
    """The resources of each node that is alive."""
    import ray

    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def _room(
    run: Mapping[str, Any], config: ClusterConfig, use_gpu: bool, *, can_grow: bool
) -> tuple[Plan, ConfigError | None]:
    """The workers to start now, and what to say if there is no room for them; a joined cluster is asked first."""
    processes = run["loader"]["num_workers"]

    def plan() -> Plan:
        return plan_workers(
            config,
            cluster_nodes(),
            use_gpu=use_gpu,
            loader_processes=processes,
            batch_size=run["train"]["batch_size"],
        )

    found = plan()
    if not (_ask(found, config.wait_s) if can_grow else found.fits(cluster_nodes())):
        return found, too_small(found, cluster_nodes(), config, loader_processes=processes)
    return plan(), None  # counted anew: nodes may have come


def _ask(plan: Plan, wait_s: float) -> bool:
    """Reserve what `plan` takes at least and give it back, so that a cluster that can grow does so.

    Only what is asked for starts nodes, and only Ray itself knows which of them are really alive and free. While the
    cluster as it is has the room, others use it, and this waits for its turn as long as that takes.
    """
    from ray.util.placement_group import placement_group, remove_placement_group

    watch, start = Watch(TrainingError), time.monotonic()
    lacking_since = start
    group = placement_group([plan.share.resources] * plan.least, strategy="PACK")
    try:
        told: set[bool] = set()
        while not group.wait(1):
            watch.check()
            now, is_busy = time.monotonic(), plan.fits(cluster_nodes())
            lacking_since = now if is_busy else lacking_since
            if now - lacking_since > wait_s:
                return False
            if is_busy not in told and now - start > _TELL_AFTER_S:
                told.add(is_busy)
                why = "until others are done with" if is_busy else f"up to {wait_s:g} s (cluster.wait_s) for"
                print(f"waiting {why} room for {plan.least} worker(s) of {plan.share.resources}", flush=True)
        return True
    finally:
        remove_placement_group(group)


def _rays_own(folder: Path, apart: Apart | None, attempt: int) -> tuple[Path, str]:
    """Where Ray Train keeps its own state, which we do not use, and a name: one found there would be gone on with."""
    if apart is not None:  # its controller may be on any machine
        return Path(tempfile.gettempdir()) / "sightline-ray", apart.session
    remove_tree(folder / "ray", inside=folder)
    return folder / "ray", f"attempt-{attempt}"


def _train_once(
    arguments: dict[str, Any],
    config: ClusterConfig,
    plan: Plan,
    folder: Path,
    private: Path | None,
    attempt: int,
) -> str | None:
    """One group of workers, from start to end or failure.

    Args:
        private: a folder of this session's where the cluster is one machine; None elsewhere.

    Returns:
        Why the workers failed, or None.

    Raises:
        TrainingError: Ray itself died.
    """
    import ray
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.v2.api.exceptions import TrainingFailedError

    from pipeline.cluster.backend import Trainer, clear_room, torch_config

    use_gpu, timeout_s = plan.share.use_gpu, config.collective_timeout_s
    threads = str(config.cpus_per_worker)
    variables = {**WORKER_ENV, "OMP_NUM_THREADS": threads, "RAY_TRAIN_COLLECTIVE_TIMEOUT_S": str(timeout_s)}
    storage, name = _rays_own(folder, arguments["apart"], attempt)
    if private is not None:
        clear_room()
    trainer = Trainer(
        private is not None,
        _train_worker,
        train_loop_config={**arguments, "use_gpu": use_gpu, "still_s": timeout_s + PATIENCE_S},
        scaling_config=ScalingConfig(
            num_workers=(plan.least, plan.most) if plan.least < plan.most else plan.most,  # type: ignore[arg-type]
            elastic_resize_monitor_interval_s=config.resize_every_s,  # type: ignore[call-arg]
            use_gpu=use_gpu,
            resources_per_worker=plan.share.resources,
        ),
        torch_config=torch_config(private, timeout_s),
        run_config=RunConfig(  # type: ignore[call-arg]  # typed as of Train V1
            name=name,
            storage_path=str(storage),
            failure_config=FailureConfig(max_failures=0, controller_failure_limit=3),  # type: ignore[call-arg]
            worker_runtime_env={"env_vars": variables},
        ),
    )
    watch = Watch(TrainingError)
    error = watched(trainer.fit, watch)
    if isinstance(error, (TrainingFailedError, ray.exceptions.RayError)):  # the latter: the controller's own process
        watch.check()
        return reason(error)
    if isinstance(error, ConnectionError):  # of Ray's client
        raise watch.lost(f"the head behind {cluster_address(config)}") from error
    if error is not None:
        raise error
    return None
