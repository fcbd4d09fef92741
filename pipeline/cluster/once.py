"""A function on a group of workers of a joined cluster, whose first one's result comes back: for work that takes what a
training takes, and needs no state to go on from.

What it reads travels to the workers, and what it wrote back: they need not share a folder with this process.
"""

from __future__ import annotations

import dataclasses
import secrets
from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, TypeVar

from contracts.errors import DataError, SightlineError
from pipeline.cluster.group import ANYWHERE, Group, cluster_nodes, placement, room_for
from pipeline.cluster.room import decide_gpu
from pipeline.cluster.session import cluster_address, private_folder, session
from pipeline.cluster.watch import reason
from pipeline.settings import own
from pipeline.settings.sections import ClusterConfig
from pipeline.shards.manifest import MANIFEST, load_manifest
from pipeline.system.disk import publish, renewed

if TYPE_CHECKING:
    from pipeline.training.fit import Placement

T = TypeVar("T")
Files = Mapping[str, bytes]  # by paths below a folder


def is_joined(config: ClusterConfig) -> bool:
    """Whether heavy work belongs to another cluster than this machine alone."""
    return config.engine == "ray" and cluster_address(config) is not None


def files_below(folder: Path, *names: str) -> dict[str, bytes]:
    """Of the files and folders `names`, those that are there."""
    paths = [path for name in names for path in (folder / name, *sorted((folder / name).rglob("*")))]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths if path.is_file()}


def write_below(folder: Path, files: Files) -> None:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def lay(output: Path, files: Files, *, inside: Path) -> None:
    """Put a file or a folder of `files` where it belongs below `inside`, whole. None is written over: DVC's cache may
    hold it as well."""
    name = output.relative_to(inside).as_posix()
    if name in files:
        output.parent.mkdir(parents=True, exist_ok=True)
        part = output.with_name(f".{output.name}.part")
        part.write_bytes(files[name])
        publish(part, output)
        return
    with renewed(output, inside=inside) as new:
        write_below(
            new,
            {path.removeprefix(f"{name}/"): content for path, content in files.items() if path.startswith(f"{name}/")},
        )


def shards_sent(shards: Path, folder: str = "") -> tuple[dict[str, bytes], Path | None]:
    """What workers need of a data set's shards: of those in a store the manifest, below `folder`; of others the place,
    which they must see."""
    if "store" not in load_manifest(shards):
        return {}, shards
    return {str(PurePosixPath(folder, MANIFEST)): (shards / MANIFEST).read_bytes()}, None


def on_workers(
    function: Callable[[Path, Placement, Any], T],
    given: Any,
    files: Files,
    wanted: tuple[str, ...],
    run: Mapping[str, Any],
    config: ClusterConfig,
    root: Path,
) -> tuple[Files, T]:
    """`function(folder, placement, given)` on every worker, in a folder of its own that has `files`.

    Args:
        wanted: files and folders below the first worker's folder that come back.
        run: `Run.to_dict()`: what its training would take.

    Returns:
        These, and what the first worker's call returned, which its process could send.

    Raises:
        SightlineError: what `function` raises of that kind, as it is; Ray itself died; workers kept failing.
        ConfigError: there is no room for the workers, also not within `cluster.wait_s` on a cluster that may grow.
    """
    import ray

    own_code = own.packages(own.OwnStages(**run["loader"]["stages"]), root)
    with session(config, root, own_code=own_code) as private:
        use_gpu = decide_gpu(config.use_gpu, cluster_nodes())
        plan, refusal = room_for(run, config, use_gpu, can_grow=private is None)
        if refusal is not None:
            raise refusal
        now = max(plan.least, min(plan.most, plan.share.fitting(cluster_nodes())))
        plan = dataclasses.replace(plan, least=now, most=now)
        failures = 0
        while True:
            name = f"once-{secrets.token_hex(8)}"
            post: Any = ray.remote(num_cpus=0)(_Post).options(name=name).remote(function, given, files, wanted)
            group = Group(_work, config, plan, private, ANYWHERE, name, DataError)
            error = group.run({"post": name, "use_gpu": plan.share.use_gpu})
            result = raised = None
            try:
                result, raised = ray.get(post.result.remote())
            except ray.exceptions.RayError as lost:  # with the node that it was on
                error = error or reason(lost)
            ray.kill(post)
            if raised is not None:
                raise raised
            if error is None:
                assert result is not None
                return result
            failures += 1
            print(f"workers failed (try {failures} of {config.max_failures + 1}): {error}", flush=True)
            if failures > config.max_failures:
                raise DataError("workers kept failing", value=error, where=f"{failures} tries; cluster.max_failures")


class _Post:
    """What goes to the workers and comes back, in a process of the cluster: neither settings nor lines of a log."""

    def __init__(self, function: Callable[..., Any], given: Any, files: Files, wanted: tuple[str, ...]):
        self._sent = function, given, files, wanted
        self._result: tuple[Files, Any] | None = None
        self._raised: SightlineError | None = None

    def sent(self) -> tuple[Callable[..., Any], Any, Files, tuple[str, ...]]:
        return self._sent

    def receive(self, result: tuple[Files, Any]) -> None:
        self._result = result

    def fail(self, error: SightlineError) -> None:
        self._raised = self._raised or error

    def result(self) -> tuple[tuple[Files, Any] | None, SightlineError | None]:
        return self._result, self._raised


def _work(arguments: dict[str, Any]) -> None:
    """What each worker runs."""
    import ray

    post: Any = ray.get_actor(arguments["post"])
    function, given, files, wanted = ray.get(post.sent.remote())
    place = placement(arguments["use_gpu"])
    with private_folder() as folder:
        write_below(folder, files)
        try:
            returned = function(folder, place, given)
        except SightlineError as error:
            ray.get(post.fail.remote(error))
            raise
        if place.rank == 0:
            ray.get(post.receive.remote((files_below(folder, *wanted), returned)))
