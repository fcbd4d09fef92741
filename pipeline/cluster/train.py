"""Training on a group of workers; `cluster.engine: local` does the same in this process without Ray."""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

from contracts.errors import TrainingError
from pipeline.cluster.apart import Apart, Follower, Shared, own_folder
from pipeline.cluster.group import ANYWHERE, Group, cluster_nodes, placement, room_for
from pipeline.cluster.join import environment
from pipeline.cluster.room import decide_gpu, no_gpu
from pipeline.cluster.session import session
from pipeline.settings import own
from pipeline.settings.sections import ClusterConfig
from pipeline.shards.manifest import load_manifest
from pipeline.shards.stores import PATIENCE_S
from pipeline.system.progress import note
from pipeline.system.removal import remove_tree
from pipeline.training.node_load import append_line
from pipeline.training.run_files import NOTE_TAG

_OFTEN = {"RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5"}  # when Ray sees that workers have ended; 2 by default


def _train_worker(arguments: dict[str, Any]) -> None:
    """What each Ray Train worker runs."""
    import ray.train

    from pipeline.training.fit import fit
    from pipeline.training.history import spending
    from pipeline.training.node_load import node_load

    context = ray.train.get_context()
    load_every_s, is_joined = arguments.pop("load_every_s"), arguments.pop("is_joined")
    node = f"node-{context.get_node_rank()}" if is_joined else None
    place = placement(arguments.pop("use_gpu"), arguments.pop("still_s"))
    is_first, apart = context.get_local_rank() == 0, arguments.pop("apart")
    with ExitStack() as stack:
        if apart is not None:
            has_ledger, own = arguments["run"]["train"]["ledger"], (node or "") if is_first else ""
            state, shards = stack.enter_context(own_folder(apart, place.rank, place.world, own, has_ledger))
            arguments |= {"state": str(state), "shards": str(shards), "state_store": None}
        state = Path(arguments["state"])
        if place.rank == place.world - 1:  # on the last machine
            _tell_fetched_twice(arguments, num_machines=context.get_node_rank() + 1)
        stack.enter_context(spending(state, place.rank))
        stack.enter_context(node_load(state, node, load_every_s if is_first else None))
        fit(**arguments, placement=place)


def _tell_fetched_twice(arguments: Mapping[str, Any], *, num_machines: int) -> None:
    """Where the order of samples has machines fetch what others fetch, too, say so."""
    nodes = arguments["run"]["loader"]["canonical_nodes"]
    if nodes % num_machines and "store" in load_manifest(Path(arguments["shards"])):
        note(
            f"some of the {num_machines} machines fetch the same shards from the store: loader.canonical_nodes {nodes} "
            f"is no multiple of {num_machines}; {num_machines} would do, and train anew, in another order of samples"
        )


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
        environment({"RAY_TRAIN_WORKER_HEALTH_CHECK_TIMEOUT_S": str(config.collective_timeout_s), **_OFTEN}),
        session(config, root, own_code=_own_code(arguments, root)) as private,
        Shared(folder) if apart is None else Follower(apart, folder) as place,
    ):
        arguments = {**arguments, "load_every_s": load_every_s, "is_joined": private is None}
        if private is None:
            _tell_dashboard(folder)
        use_gpu = decide_gpu(config.use_gpu, cluster_nodes(), decided(folder).get("use_gpu"))
        failures, reached = 0, place.newest()
        for attempt in itertools.count():
            plan, refusal = room_for(arguments["run"], config, use_gpu, can_grow=private is None)
            if refusal is not None and attempt == 0:
                raise refusal  # nothing was lost: it was never there
            decide(folder, use_gpu=use_gpu)  # for all later tries and calls
            if refusal is None:
                arguments["apart"] = place.begin()
                storage, name = _rays_own(folder, arguments["apart"], attempt)
                still_s = config.collective_timeout_s + PATIENCE_S
                group = Group(_train_worker, config, plan, private, storage, name)
                error = group.run({**arguments, "use_gpu": plan.share.use_gpu, "still_s": still_s})
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


def _rays_own(folder: Path, apart: Apart | None, attempt: int) -> tuple[Path, str]:
    """Storage and name of a `Group`."""
    if apart is not None:
        return ANYWHERE, apart.session
    remove_tree(folder / "ray", inside=folder)
    return folder / "ray", f"attempt-{attempt}"
