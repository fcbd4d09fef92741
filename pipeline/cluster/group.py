"""A function on a group of workers, each with its part of a cluster: Ray Train starts them and lets them find each
other."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from contracts.errors import ConfigError, SightlineError, TrainingError
from pipeline.cluster.room import Nodes, Plan, plan_workers, too_small
from pipeline.cluster.session import WORKER_ENV, cluster_address
from pipeline.cluster.watch import Watch, reason, watched
from pipeline.settings.sections import ClusterConfig

if TYPE_CHECKING:
    from pipeline.training.fit import Placement

ANYWHERE = Path(tempfile.gettempdir()) / "sightline-ray"  # storage of a group whose controller may be on any machine
_TELL_AFTER_S = 5.0


def cluster_nodes() -> Nodes:
    """The resources of each node that is alive."""
    import ray

    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def room_for(
    run: Mapping[str, Any], config: ClusterConfig, use_gpu: bool, *, can_grow: bool
) -> tuple[Plan, ConfigError | None]:
    """The workers to start now, and what to say if there is no room for them; a joined cluster is asked first.

    Args:
        run: `Run.to_dict()`: its loader's processes want CPUs, and its batch has a sample for each worker.
    """
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

    watch = Watch(TrainingError)
    lacking_since = same_since = time.monotonic()
    was_busy = False
    group = placement_group([plan.share.resources] * plan.least, strategy="PACK")
    try:
        told: set[bool] = set()
        while not group.wait(1):
            watch.check()
            now, is_busy = time.monotonic(), plan.fits(cluster_nodes())
            lacking_since = now if is_busy else lacking_since
            if now - lacking_since > wait_s:
                return False
            if is_busy != was_busy:
                was_busy, same_since = is_busy, now
            if is_busy not in told and now - same_since > _TELL_AFTER_S:  # room that has just come is taken at once
                told.add(is_busy)
                why = "until others are done with" if is_busy else f"up to {wait_s:g} s (cluster.wait_s) for"
                print(f"waiting {why} room for {plan.least} worker(s) of {plan.share.resources}", flush=True)
        return True
    finally:
        remove_placement_group(group)


def placement(use_gpu: bool, still_s: float | None = None) -> Placement:
    """Where this worker of a group stands."""
    import ray.train
    from ray.train.lightning import RayDDPStrategy, RayLightningEnvironment

    from pipeline.training.fit import Placement

    context = ray.train.get_context()
    world, rank = context.get_world_size(), context.get_world_rank()
    if world == 1:
        return Placement(use_gpu=use_gpu, still_s=still_s)  # DDP with one process costs 8-11 % for nothing
    # A backbone's stage that this model does not tap, or a mask head in a batch without objects, has no gradient.
    strategy = RayDDPStrategy(find_unused_parameters=True)
    return Placement(world, rank, strategy, (RayLightningEnvironment(),), use_gpu, still_s)


@dataclass(frozen=True)
class Group:
    """
    Attributes:
        function: what each worker runs, of the arguments.
        private: a folder of this session's where the cluster is one machine; None elsewhere.
        storage: where Ray Train keeps its own state, which we do not use. name: its folder there; one that exists
            would be gone on with.
        error: what is raised where Ray itself dies.
    """

    function: Callable[[dict[str, Any]], None]
    config: ClusterConfig
    plan: Plan
    private: Path | None
    storage: Path
    name: str
    error: type[SightlineError] = TrainingError

    def run(self, arguments: dict[str, Any]) -> str | None:
        """From start to end or failure.

        Returns:
            Why the workers failed, or None.

        Raises:
            SightlineError: Ray itself died.
        """
        import ray
        from ray.train import FailureConfig, RunConfig, ScalingConfig
        from ray.train.v2.api.exceptions import TrainingFailedError

        from pipeline.cluster.backend import Trainer, clear_room, torch_config

        plan, timeout_s = self.plan, self.config.collective_timeout_s
        threads = str(self.config.cpus_per_worker)
        variables = {**WORKER_ENV, "OMP_NUM_THREADS": threads, "RAY_TRAIN_COLLECTIVE_TIMEOUT_S": str(timeout_s)}
        if self.private is not None:
            clear_room()
        trainer = Trainer(
            self.private is not None,
            self.function,
            train_loop_config=arguments,
            scaling_config=ScalingConfig(
                num_workers=(plan.least, plan.most) if plan.least < plan.most else plan.most,  # type: ignore[arg-type]
                elastic_resize_monitor_interval_s=self.config.resize_every_s,  # type: ignore[call-arg]
                use_gpu=plan.share.use_gpu,
                resources_per_worker=plan.share.resources,
            ),
            torch_config=torch_config(self.private, timeout_s),
            run_config=RunConfig(  # type: ignore[call-arg]  # typed as of Train V1
                name=self.name,
                storage_path=str(self.storage),
                failure_config=FailureConfig(max_failures=0, controller_failure_limit=3),  # type: ignore[call-arg]
                worker_runtime_env={"env_vars": variables},
            ),
        )
        watch = Watch(self.error)
        error = watched(trainer.fit, watch)
        if isinstance(
            error, (TrainingFailedError, ray.exceptions.RayError)
        ):  # the latter: the controller's own process
            watch.check()
            return reason(error)
        if isinstance(error, ConnectionError):  # of Ray's client
            raise watch.lost(f"the head behind {cluster_address(self.config)}") from error
        if error is not None:
            raise error
        return None
