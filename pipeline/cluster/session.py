"""A Ray session: on a cluster of our own that nobody else can enter, or on one that is joined with its token.

A cluster of our own listens on loopback alone, asks for a token made for this session, and keeps its files in a folder
of this user's. Ray takes these three from the environment of the processes that it starts; it is restored afterwards.
What watches over Ray's processes is in `cluster_watch.py`.
"""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import logging
import os
import re
import secrets
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from pipeline.cluster.join import authentication, environment, joined, no_cluster, wrong_token
from pipeline.cluster.process_start import forks, replaced
from pipeline.settings.code import CODE, PACKAGES
from pipeline.settings.sections import ClusterConfig
from pipeline.system import warm
from pipeline.system.guard import end_with_parent, guard_process
from pipeline.system.removal import remove_tree

WORKER_ENV = {
    "RAY_TRAIN_ENABLE_PRINT_PATCH": "0",  # or every line of a worker shows twice
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    **warm.AT_IMPORT,
}
# The driver looks after Ray's head itself. Ray would abort this process, in the middle of whatever it does, 60 s after.
_OURS_TO_NOTICE = {
    "RAY_gcs_rpc_server_reconnect_timeout_s": "3600",
    "RAY_DEDUP_LOGS": "0",  # what it holds back it tells at the end, in its own way
}
_LOOPBACK_INTERFACE = "lo0" if sys.platform == "darwin" else "lo"
_PRIVATE_ENV = {
    # Ray's own switch for machines that are no part of a network: the node's address is loopback, for all servers.
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    "GLOO_SOCKET_IFNAME": _LOOPBACK_INTERFACE,
    "NCCL_SOCKET_IFNAME": _LOOPBACK_INTERFACE,
    "RAY_AUTH_MODE": "token",
    "RAY_AUTH_TOKEN_PATH": None,
    "RAY_task_oom_retries": "3",  # for ever by default
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",  # a process that asks whether a cloud takes this machine away
    "RAY_prestart_worker_first_driver": "0",  # processes without our runtime environment, which nothing would use
}
# What Ray Train says at each start, each second where a cluster has no dashboard, and whenever it has looked for nodes.
_NO_NEWS = (
    "Setting up process group",
    "Failed to query Ray Train Controller actor state",
    "Did not detect any changes in the cluster resources",
)
_NAMED, _STDERR = re.compile(r"\x1b\[36m\([^)]*\)\x1b\[0m "), -2  # of lines as Ray's client gets them
_NODE_S = 10.0  # then Ray asks in its own way
_FOLDER = "slray-"
_LONGEST_BASE = 20  # characters: a socket's path may have 107, and Ray puts some 68 below its folder
_PORTS = range(20_000, 32_000)
_YOUNG_S = 60.0  # a folder is not yet locked in its first moment


def prepare_worker() -> None:
    """Run in each worker process before its work: private files, and SIGTERM asks training to write a state and stop.

    It ends with its node's process (raylet) even while it is frozen.

    Ray's own handler would end the process at once. The train function runs in another thread, where no handler can be
    set, and Ray sets its handler after this hook; hence the detour. Outside of training Ray's handler still acts.
    """
    import ray._private.utils as utils

    guard_process()
    end_with_parent()
    install = utils.set_sigterm_handler

    def set_sigterm_handler(ray_handler: Callable[[int, Any], None]) -> None:
        def on_sigterm(number: int, frame: Any) -> None:
            stopping = sys.modules.get("pipeline.training.stopping")  # only a training worker has it
            if stopping is None or stopping.StopRequest.asked.is_set():
                ray_handler(number, frame)
            else:
                stopping.StopRequest.asked.set()

        install(on_sigterm)

    utils.set_sigterm_handler = set_sigterm_handler


def cluster_address(config: ClusterConfig) -> str | None:
    """The running cluster to join, or None for one of our own on this machine. RAY_ADDRESS goes before
    `cluster.address`, but for `local`."""
    if config.address == "local":
        return None
    address = os.environ.get("RAY_ADDRESS") or config.address
    return None if address == "local" else address


@contextmanager
def session(config: ClusterConfig, root: Path, *, own_code: Sequence[Path] = ()) -> Iterator[Path | None]:
    """A Ray session: on RAY_ADDRESS / `cluster.address`, else on a fresh cluster of this machine's resources.

    Args:
        root: of the project, below which its own code lies. own_code: files and folders of that which workers import.

    Yields:
        The private folder of a cluster of our own, which all its workers see; None on a joined one.
    """
    address = cluster_address(config)

    def told(head: str | None) -> dict[str, str]:
        # Parts of Ray Train that know no address look for one among all processes of the machine, and would send the
        # token to whatever answers there.
        return {"RAY_ADDRESS": head} if head else {}

    with contextlib.ExitStack() as stack:
        stack.enter_context(environment({**WORKER_ENV, **_OURS_TO_NOTICE}, keep=True))
        hook = {"worker_process_setup_hook": f"{__name__}.prepare_worker"}
        if address:
            variables = WORKER_ENV | told(stack.enter_context(joined(address)))
            # Other nodes may not have this package installed: it travels with the job.
            modules = [str(path) for path in (*(CODE / name for name in PACKAGES), *own_code)]
            stack.enter_context(_started(address, {"env_vars": variables, "py_modules": modules, **hook}, {}))
            yield None
            return
        path = os.pathsep.join(filter(None, (str(root), str(CODE), os.environ.get("PYTHONPATH"))))
        folder, head = stack.enter_context(_private())
        runtime_env = {"env_vars": {**WORKER_ENV, **told(head), "PYTHONPATH": path}, **hook}
        # ray.data is unused: the object store only carries annotations and results.
        options = {"include_dashboard": False, "object_store_memory": 200 * 2**20, "_temp_dir": str(folder / "ray")}
        stack.enter_context(_started(None, runtime_env, options))
        yield folder


@contextmanager
def _started(address: str | None, runtime_env: dict[str, Any], options: dict[str, Any]) -> Iterator[None]:
    """Between `ray.init` and `ray.shutdown`."""
    import ray

    handler = signal.getsignal(signal.SIGTERM)
    try:
        _init(address=address or "local", runtime_env=runtime_env, logging_level=logging.ERROR, **options)
    except ray.exceptions.AuthenticationError:
        raise wrong_token(str(address), "the Ray cluster refuses this token, or there is none") from None
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise no_cluster(address, error) from error
    try:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, handler)  # Ray puts in its own, which leaves past the final run status
        with _workers_lines_plain():
            yield
    finally:
        _shut_down()


def _init(**options: Any) -> None:
    """`ray.init`. A busy head (`ray://`) may take longer than Ray waits for the process that serves a client."""
    import ray

    for last in (False, False, True):
        try:
            ray.init(**options)
        except ConnectionAbortedError as error:
            if last:
                raise
            print(
                f"{options['address']} is slow to let us in ({str(error).splitlines()[-1]}); trying again", flush=True
            )
        else:
            return


@contextmanager
def _workers_lines_plain() -> Iterator[None]:
    """Show what workers print as they print it, without a name and a pid before each line, and nothing of Ray Train's
    controller: it tells tracebacks where it only waits, and its failures reach the driver as exceptions."""
    from ray._private.ray_logging import global_worker_stdstream_dispatcher as dispatcher
    from ray._private.worker import print_to_stdstream
    from ray.util.client.logsclient import LogstreamClient

    def show(data: dict[str, Any]) -> None:
        if data.get("actor_name") != "TrainController":
            lines = [line for line in data["lines"] if not line.startswith(_NO_NEWS)]
            print_to_stdstream({**data, "lines": lines}, ignore_prefix=True)

    def show_client(_: Any, level: int, msg: str) -> None:
        for line in msg.split("\n"):  # not at the mark of `system/progress.py`
            line = _NAMED.sub("", line)
            if line.strip() and not line.startswith(_NO_NEWS):
                print(line, file=sys.stderr if level == _STDERR else sys.stdout, flush=True)

    dispatcher.remove_handler("ray_print_logs")  # Ray's own
    dispatcher.add_handler(__name__, show)
    of_client = LogstreamClient.stdstream
    LogstreamClient.stdstream = show_client  # type: ignore[method-assign, assignment]  # behind a proxy (`ray://`)
    try:
        yield
    finally:
        LogstreamClient.stdstream = of_client  # type: ignore[method-assign]
        dispatcher.remove_handler(__name__)


class _Ending:
    """Ray's core worker while it ends, which can end this process before its MLflow run is closed, in two ways.

    It leaves SIGTERM to the system then, whatever handler Python knows, so that the second one would (`stop-job` sends
    one to each process, and those pass theirs on). And whoever asks it anything from now on, as a thread does that
    waited for a result and lets go of it, is ended at once by its C++ part: it has no attributes any more.
    """

    def __init__(self, core_worker: Any):
        self._core_worker = core_worker

    def __getattr__(self, name: str) -> Any:
        if self._core_worker is None:
            raise AttributeError(f"{name}: Ray is ending")
        return getattr(self._core_worker, name)

    def shutdown_driver(self) -> None:
        core_worker, self._core_worker = self._core_worker, None
        core_worker.shutdown_driver()
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, signal.getsignal(signal.SIGTERM))


def _shut_down() -> None:
    """Also what a head that was killed leaves behind: agents that go on asking it."""
    import ray
    import ray._private.worker as worker

    here = worker.global_worker
    if hasattr(here, "core_worker"):
        here.core_worker = _Ending(here.core_worker)
    started: Iterable[list[Any]] = worker._global_node.all_processes.values() if worker._global_node else ()
    family: list[psutil.Process] = []
    for info in itertools.chain.from_iterable(started):
        with contextlib.suppress(psutil.NoSuchProcess):
            top = psutil.Process(info.process.pid)
            family += [top, *top.children(recursive=True)]
    ray.shutdown()
    for process in psutil.wait_procs(family, timeout=2.0)[1]:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()


@contextmanager
def _private() -> Iterator[tuple[Path, str]]:
    """What makes the cluster that is started meanwhile ours alone: a folder, a token, and loopback.

    It has no process for an autoscaler, nor for a dashboard without pages, which Ray waits for.

    Yields:
        The folder, and the address that the cluster's head will have.
    """
    import ray._private.ray_constants as constants  # before the environment changes: it is read at import
    import ray._private.services as services
    from ray._private.node import Node
    from ray._raylet import build_address, get_localhost_ip  # type: ignore[attr-defined]

    host = get_localhost_ip()
    port = _free_port(host)
    own = {"RAY_AUTH_TOKEN": secrets.token_hex(32), constants.GCS_PORT_ENVIRONMENT_VARIABLE: str(port)}
    with (
        private_folder() as folder,
        authentication({**_PRIVATE_ENV, **own}),
        replaced(constants, ENABLE_RAY_CLUSTER=False),
        replaced(Node, start_monitor=_nothing, start_api_server=_nothing),
        replaced(services, get_node=_soon(services.get_node)),
        forks(),
    ):
        yield folder, build_address(host, port)


def _nothing(*arguments: Any, **options: Any) -> None: ...


def _soon(get_node: Callable[[str, str], Any]) -> Callable[[str, str], Any]:
    """Ray looks for its own node once a second: not before the node is there."""

    def get_known_node(gcs_address: str, node_id: str) -> Any:
        from ray._raylet import GcsClient  # type: ignore[attr-defined]

        client, deadline = GcsClient(address=gcs_address), time.monotonic() + _NODE_S
        while not client.get_all_node_info() and time.monotonic() < deadline:
            time.sleep(0.05)
        return get_node(gcs_address, node_id)

    return get_known_node


def _free_port(host: str) -> int:
    """One that is below those that the system gives to connections, so that none takes it in the meantime."""
    while True:
        port = secrets.choice(_PORTS)
        with contextlib.suppress(OSError), socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
            probe.bind((host, port))
            return port


@contextmanager
def private_folder() -> Iterator[Path]:
    """A folder of this user's with a short path, removed afterwards; those of killed processes are removed first."""
    base = Path(tempfile.gettempdir())
    if len(str(base)) > _LONGEST_BASE:
        base = Path("/tmp")
    for stale in base.glob(f"{_FOLDER}*"):
        _remove_stale(stale, base)
    folder = Path(tempfile.mkdtemp(prefix=_FOLDER, dir=base))  # 0700; what Ray makes below it is open to all
    lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)  # until this process ends, however it ends
        yield folder
    finally:
        os.close(lock)
        for _ in range(5):  # Ray's last processes may still write
            with contextlib.suppress(OSError):
                remove_tree(folder, inside=base)
                break
            time.sleep(0.2)


def _remove_stale(folder: Path, base: Path) -> None:
    with contextlib.suppress(OSError):  # another's, or another process is at it
        found = folder.lstat()
        if found.st_uid != os.getuid() or time.time() - found.st_mtime < _YOUNG_S:
            return
        lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            remove_tree(folder, inside=base)
        finally:
            os.close(lock)
