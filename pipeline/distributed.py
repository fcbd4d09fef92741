"""The only file that imports ray: a session on a cluster, ordered parallel map, and training on a group of workers.

`cluster.engine: local` does the same in this process without Ray.
"""

from __future__ import annotations

import itertools
import json
import logging
import os
import shutil
import signal
import socket
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from contracts.errors import ConfigError, SightlineError, TrainingError
from pipeline.params import ClusterConfig

T = TypeVar("T")

WORKER_ENV = {
    "RAY_TRAIN_ENABLE_PRINT_PATCH": "0",  # or every line of a worker shows twice
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "NO_ALBUMENTATIONS_UPDATE": "1",  # its import would ask the network
    "THP_MEM_ALLOC_ENABLE": "1",  # torch takes large tensors in pages of 2 MiB: faults are a third of a normalisation
}


def prepare_worker() -> None:
    """Run in each worker process before its work: SIGTERM asks training to write a state and stop.

    Ray's own handler would end the process at once. The train function runs in another thread, where no handler can be
    set, and Ray sets its handler after this hook; hence the detour. Outside of training Ray's handler still acts.
    """
    import ray._private.utils as utils

    install = utils.set_sigterm_handler

    def set_sigterm_handler(ray_handler: Callable[[int, Any], None]) -> None:
        def on_sigterm(number: int, frame: Any) -> None:
            callbacks = sys.modules.get("pipeline.callbacks")  # only a training worker has it
            if callbacks is None or callbacks.StopRequest.asked.is_set():
                ray_handler(number, frame)
            else:
                callbacks.StopRequest.asked.set()

        install(on_sigterm)

    utils.set_sigterm_handler = set_sigterm_handler


def cluster_address(config: ClusterConfig) -> str | None:
    """The running cluster to join, or None for one of our own on this machine."""
    return config.address or os.environ.get("RAY_ADDRESS") or None


@contextmanager
def session(config: ClusterConfig, root: Path, *, dashboard: bool = False) -> Iterator[None]:
    """A Ray session: on `cluster.address` / RAY_ADDRESS, else on a fresh cluster of this machine's resources.

    Ray Train asks the dashboard's State API each second and complains where it is missing; plain tasks start
    faster without it.
    """
    import ray

    os.environ.update({key: value for key, value in WORKER_ENV.items() if key not in os.environ})
    address = cluster_address(config)
    runtime_env: dict[str, Any] = {
        "env_vars": dict(WORKER_ENV),
        "worker_process_setup_hook": f"{__name__}.prepare_worker",
    }
    options: dict[str, Any] = {}
    if address:
        # Other nodes may not have the project installed: its packages travel with the job.
        runtime_env["py_modules"] = [str(root / name) for name in ("contracts", "lightning_modules", "pipeline")]
    else:
        os.environ.setdefault("RAY_AUTH_MODE", "disabled")  # a private cluster on loopback
        runtime_env["env_vars"]["PYTHONPATH"] = os.pathsep.join([str(root), os.environ.get("PYTHONPATH", "")]).rstrip(
            os.pathsep
        )
        # ray.data is unused: the object store only carries annotations and results.
        options = {"include_dashboard": dashboard, "object_store_memory": 200 * 2**20}
    if address:
        _knock(address)
    handler = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(address=address or "local", runtime_env=runtime_env, logging_level=logging.ERROR, **options)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise _no_cluster(address, error) from error
    try:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, handler)  # Ray puts in its own, which leaves past the final run status
        yield
    finally:
        ray.shutdown()


def _knock(address: str) -> None:
    """Fail within seconds where nobody listens: Ray itself would go on trying for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not port.isdigit():
        return  # "auto": Ray looks for the cluster's own file
    try:
        socket.create_connection((host, int(port)), timeout=10).close()
    except OSError as error:
        raise _no_cluster(address, error) from error


def _no_cluster(address: str | None, error: Exception) -> ConfigError:
    return ConfigError(
        "no Ray cluster answers",
        value=address,
        where="cluster.address or RAY_ADDRESS",
        allowed="host:port of a head node, ray://host:port, or auto",
        fix=f"start one with `ray start --head`, or unset it to work on this machine ({error})",
    )


def map_ordered(
    function: Callable[..., T], jobs: Iterable[tuple], config: ClusterConfig, root: Path, *, cpus: int = 1
) -> Iterator[T]:
    """`function(*job)` for every job, in parallel Ray tasks, results in the order of the jobs.

    Jobs are drawn only as results are taken (twice the CPUs are under way), so memory stays bounded.
    """
    if config.engine == "local":
        for job in jobs:
            yield function(*job)
        return
    import ray

    with session(config, root):
        remote = ray.remote(num_cpus=cpus, scheduling_strategy="SPREAD")(function)
        limit = 2 * max(1, int(ray.cluster_resources().get("CPU", 1)))
        pending: deque[Any] = deque()
        for job in jobs:
            pending.append(remote.remote(*job))
            if len(pending) >= limit:
                yield _result(pending.popleft())
        while pending:
            yield _result(pending.popleft())


def _result(reference: Any) -> Any:
    """What a task returned. An error that the user can mend comes as itself, without the task's traceback."""
    import ray

    try:
        return ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, SightlineError):
            raise error.cause from None
        raise


def check_resources(config: ClusterConfig, available: dict[str, float]) -> bool:
    """Compare what is asked for with what there is, before anything waits for it.

    Returns:
        Whether each worker takes a GPU.

    Raises:
        ConfigError: more CPUs or GPUs are asked for than the cluster has.
    """
    cpus, gpus = available.get("CPU", 0), available.get("GPU", 0)
    use_gpu = config.use_gpu == "yes" or (config.use_gpu == "auto" and gpus > 0)
    workers = config.min_workers
    if workers * config.cpus_per_worker > cpus or (use_gpu and workers > gpus):
        raise ConfigError(
            "the cluster is smaller than what is asked for",
            value=f"{workers} workers of {config.cpus_per_worker} CPUs" + (" and 1 GPU" if use_gpu else ""),
            where="cluster.num_workers, cluster.cpus_per_worker, cluster.use_gpu",
            allowed=f"up to {cpus:g} CPUs and {gpus:g} GPUs",
            fix="ask for less, add nodes, or set cluster.engine: local",
        )
    return use_gpu


def _train_worker(arguments: dict[str, Any]) -> None:
    """What each Ray Train worker runs."""
    import ray.train
    from ray.train.lightning import RayDDPStrategy, RayLightningEnvironment

    from pipeline.training import Placement, fit

    context = ray.train.get_context()
    world, rank = context.get_world_size(), context.get_world_rank()
    use_gpu = arguments.pop("use_gpu")
    if world == 1:
        placement = Placement(use_gpu=use_gpu)  # DDP with one process costs 8-11 % for nothing
    else:
        # A backbone's stage that this model does not tap, or a mask head in a batch without objects, has no gradient.
        strategy = RayDDPStrategy(find_unused_parameters=True)
        placement = Placement(world, rank, strategy, (RayLightningEnvironment(),), use_gpu)
    fit(**arguments, placement=placement)


def run_training(arguments: dict[str, Any], config: ClusterConfig, root: Path) -> None:
    """Train on the configured engine; lost workers are replaced up to `cluster.max_failures` times without progress.

    Args:
        arguments: keyword arguments of `pipeline.training.fit`, absolute paths.

    Raises:
        TrainingError: training stopped for a reason that trying again would not change, or workers kept dying.
    """
    folder = Path(arguments["state"])
    failure = folder / "failure.json"
    failure.unlink(missing_ok=True)
    if config.engine == "local":
        from pipeline.training import fit

        fit(**arguments)
        return
    with session(config, root, dashboard=True):
        failures, reached = 0, _newest(folder)
        for attempt in itertools.count():
            error = _train_once(arguments, config, folder, attempt)
            if error is None:
                return
            if failure.is_file():
                raise TrainingError(json.loads(failure.read_text())["text"]) from None
            failures, reached = (failures + 1 if _newest(folder) == reached else 1), _newest(folder)
            print(f"training workers failed (try {failures} of {config.max_failures + 1}): {error}", flush=True)
            if failures > config.max_failures:
                raise TrainingError(
                    "training workers kept failing",
                    value=str(error),
                    where=f"{failures} tries without a new state; cluster.max_failures",
                )


def _newest(folder: Path) -> str:
    """Name of the newest state: a failure after progress starts the count anew."""
    return max((path.name for path in folder.glob("state-*.json")), default="")


def _train_once(arguments: dict[str, Any], config: ClusterConfig, folder: Path, attempt: int) -> Exception | None:
    """One group of workers, from start to end or failure."""
    import ray
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer
    from ray.train.v2.api.exceptions import TrainingFailedError

    use_gpu = check_resources(config, ray.cluster_resources())
    workers = config.num_workers
    storage = folder / "ray"
    shutil.rmtree(storage, ignore_errors=True)  # a run name found in its storage would be resumed by Ray
    trainer = TorchTrainer(
        _train_worker,
        train_loop_config={**arguments, "use_gpu": use_gpu},
        scaling_config=ScalingConfig(
            num_workers=workers if isinstance(workers, int) else (workers.min, workers.max),  # type: ignore[arg-type]
            elastic_resize_monitor_interval_s=config.resize_every_s,  # type: ignore[call-arg]
            use_gpu=use_gpu,
            resources_per_worker={"CPU": config.cpus_per_worker, **({"GPU": 1} if use_gpu else {})},
        ),
        torch_config=TorchConfig(timeout_s=config.collective_timeout_s),
        run_config=RunConfig(  # type: ignore[call-arg]  # typed as of Train V1
            name=f"attempt-{attempt}",
            storage_path=str(storage),
            failure_config=FailureConfig(max_failures=0, controller_failure_limit=3),  # type: ignore[call-arg]
            worker_runtime_env={
                "env_vars": {
                    **WORKER_ENV,
                    "OMP_NUM_THREADS": str(config.cpus_per_worker),
                    "RAY_TRAIN_COLLECTIVE_TIMEOUT_S": str(config.collective_timeout_s),
                }
            },
        ),
    )
    try:
        trainer.fit()
    except TrainingFailedError as error:
        return error
    return None
