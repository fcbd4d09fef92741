"""A function over many jobs: Ray tasks, or here, one after another."""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from contracts.errors import DataError, SightlineError
from pipeline.cluster.session import session
from pipeline.cluster.watch import Watch, reason
from pipeline.settings.sections import ClusterConfig
from pipeline.system.out_of_memory import is_out_of_memory

T = TypeVar("T")


def map_ordered(
    function: Callable[..., T],
    jobs: Iterable[tuple],
    config: ClusterConfig,
    root: Path,
    *,
    cpus: int = 1,
    shared: tuple = (),
    use_gpu: bool = False,
    travels: bool = False,
) -> Iterator[T]:
    """`function(*shared, *job)` for every job, in parallel Ray tasks, results in the order of the jobs.

    Jobs are drawn only as results are taken (twice the CPUs are under way), so memory stays bounded.

    Args:
        shared: what is the same for all jobs and large; each node gets it once.
        use_gpu: a GPU for each task, where the cluster has any when the work begins.
        travels: no job reads a file of this machine's, so that machines that share none with it can do it as well.

    Raises:
        SightlineError: what `function` raises of that kind, as it is.
        DataError: a worker's process died again and again, ran out of memory, or Ray itself died.
    """
    if config.engine == "local":
        for job in jobs:
            yield function(*shared, *job)
        return
    import ray

    if config.storage_url is not None and not travels:  # other machines may not see the files that are read here
        config = dataclasses.replace(config, address="local")
    with session(config, root):
        gpus = 1 if use_gpu and ray.cluster_resources().get("GPU") else 0
        remote = ray.remote(num_cpus=cpus, num_gpus=gpus, scheduling_strategy="SPREAD")(function)
        common = [ray.put(value) for value in shared]
        watch = Watch(DataError)
        pending: deque[Any] = deque()
        for job in jobs:
            pending.append(remote.remote(*common, *job))
            if len(pending) >= 2 * max(1, int(ray.cluster_resources().get("CPU", 1))):  # a cluster may grow meanwhile
                yield _result(pending.popleft(), watch)
        while pending:
            yield _result(pending.popleft(), watch)


def _result(task: Any, watch: Watch) -> Any:
    import ray

    while not ray.wait([task], timeout=1.0)[0]:
        watch.check()
    try:
        return ray.get(task)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, SightlineError):
            raise error.cause from None
        if not is_out_of_memory(error.cause):
            raise  # a defect of ours: its traceback
        problem: Exception = error
    except ray.exceptions.RayError as error:
        watch.check()
        problem = error
    raise DataError(
        "a worker could not do its part",
        value=reason(problem),
        where="a parallel task of this stage",
        fix="run the same command again; if it recurs, give the machine more memory or lower shards.samples",
    ) from None
