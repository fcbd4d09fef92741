"""Stages that start with the libraries loaded: a process of one `sightline repro` imports them once and forks.

Importing torch, Lightning and MLflow takes as long as many a small run trains. Only libraries are loaded beforehand,
never code of the project or of the user, so what a stage runs is what lies there when it starts. The process listens
at a socket in a folder of the user's own and ends with the `sightline repro` that started it; where it is not, or is
gone, a stage runs as it does without it.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import random
import runpy
import select
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

VARIABLE = "SIGHTLINE_WARM"  # the socket, for stages
SERVER = "SIGHTLINE_WARM_SERVER"  # the same, in a stage that is a fork itself: what it starts may be one, too
_LIBRARIES = (
    *("torch", "torchvision", "pytorch_lightning", "webdataset", "cv2", "albumentations"),
    *("mlflow.pyfunc", "mlflow.store.tracking.sqlalchemy_store"),  # the store of who names no server
    "aiohttp",  # Ray's agents; nothing of Ray itself, which reads its settings when it is loaded
)
AT_IMPORT = {  # libraries read them when they are loaded
    "NO_ALBUMENTATIONS_UPDATE": "1",  # its import would ask the network
    "TORCH_CPP_LOG_LEVEL": "ERROR",  # a warning of DDP's at each start, of what is meant so
    "THP_MEM_ALLOC_ENABLE": "1",  # torch takes large tensors in pages of 2 MiB: faults are a third of a normalisation
}
_LENGTH = struct.Struct("!I")
_CODE = struct.Struct("!i")
_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_ANSWER_S = 5.0  # for the order, once somebody is there


@dataclass(frozen=True)
class _Fork:
    pid: int
    grace_s: float  # for its orderly end when its caller is gone


@contextlib.contextmanager
def started(folder: Path) -> Iterator[Callable[[], None]]:
    """Yields what starts the process, at its first call. `folder` is the user's alone; the socket will lie there."""
    process: list[subprocess.Popen[bytes]] = []
    os.environ[VARIABLE] = str(folder / "warm")

    def start() -> None:
        if not process:
            command = [sys.executable, "-m", __name__, os.environ[VARIABLE]]
            process.append(subprocess.Popen(command, stdin=subprocess.DEVNULL, env=AT_IMPORT | os.environ))

    try:
        yield start
    finally:
        del os.environ[VARIABLE]
        for server in process:
            server.kill()
            server.wait()


def hand_over(arguments: Sequence[str], path: str | None = None, *, grace_s: float = 15.0) -> int | None:
    """Run `python <arguments>`, which begin with `-m` or `-c`, in a fork of the warm process, as if it were this one.

    Args:
        path: the warm process's socket; None: what `VARIABLE` says. grace_s: for the orderly end of the fork when
            this process is gone.

    Returns:
        Its exit code, a signal's number as a negative one; None where no such process is.
    """
    path = path or os.environ.get(VARIABLE)
    if not path:
        return None
    with socket.socket(socket.AF_UNIX) as server:
        try:
            server.connect(path)
        except OSError:
            return None
        order = {
            "arguments": list(arguments),
            "folder": os.getcwd(),
            "environment": {name: value for name, value in os.environ.items() if name != VARIABLE} | {SERVER: path},
            "umask": _umask(),
            "nice": os.getpriority(os.PRIO_PROCESS, 0),
            "grace_s": grace_s,
        }
        body = json.dumps(order).encode()

        def forward(number: int, frame: FrameType | None) -> None:
            with contextlib.suppress(OSError):
                server.sendall(bytes([number]))

        before = {number: signal.signal(number, forward) for number in _SIGNALS}
        try:
            socket.send_fds(server, [_LENGTH.pack(len(body))], [0, 1, 2])
            server.sendall(body)
            answer = server.recv(_CODE.size)
        except OSError:
            answer = b""
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
    return int(_CODE.unpack(answer)[0]) if len(answer) == _CODE.size else -signal.SIGKILL


def _first_paths() -> list[str]:
    """Where Python looks for modules before it looks among those installed."""
    here = [] if os.environ.get("PYTHONSAFEPATH") else [os.getcwd()]
    return [*here, *(path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path)]


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def serve(path: str) -> dict[str, Any] | None:
    """Fork for every order, until the process that started this one is gone.

    Returns:
        In each fork its order, with the caller's streams, folder and environment in place; None at the end.
    """
    parent = os.getppid()
    installed = sys.path[len(_first_paths()) :]
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_IGN)  # the terminal's Ctrl-C is the callers' affair
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        for name in _LIBRARIES:
            with contextlib.suppress(ImportError):
                importlib.import_module(name)
        gc.freeze()  # forks share it as long as none of them looks through it for garbage
        running: dict[socket.socket, _Fork] = {}
        left: dict[int, float] = {}  # forks whose callers are gone, and when they are killed
        while os.getppid() == parent:
            ready = select.select([listener, *running], [], [], 0.05 if running or left else 0.5)[0]
            for connection in ready:
                if connection is not listener:
                    _pass_on(connection, running, left)
                elif order := _accept(listener, running):
                    _forget_own_modules(installed)
                    return order
            _reap(running, left)
    return None


def _accept(listener: socket.socket, running: dict[socket.socket, _Fork]) -> dict[str, Any] | None:
    """The order, in the fork that it is for."""
    connection, _ = listener.accept()
    connection.settimeout(_ANSWER_S)
    streams: list[int] = []
    try:
        head, streams, _, _ = socket.recv_fds(connection, _LENGTH.size, 3)
        with connection.makefile("rb") as file:
            order: dict[str, Any] = json.loads(file.read(*_LENGTH.unpack(head)))
        pid = os.fork()
        if pid == 0:
            for open_socket in (listener, connection, *running):
                open_socket.close()
            _become(order, streams)
            return order
        running[connection] = _Fork(pid, order["grace_s"])
    except (OSError, ValueError, struct.error):
        connection.close()
    for stream in streams:
        os.close(stream)
    return None


def _become(order: dict[str, Any], streams: Sequence[int]) -> None:
    """Take the caller's place. In a group of its own, so that Ctrl-C comes once: from the caller, who passes it on."""
    os.setpgid(0, 0)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    os.environ.clear()
    os.environ.update(order["environment"])
    os.chdir(order["folder"])
    os.umask(order["umask"])
    if order["nice"] > os.getpriority(os.PRIO_PROCESS, 0):
        os.setpriority(os.PRIO_PROCESS, 0, order["nice"])
    random.seed()
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed()
    _set_threads(os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip())


def _set_threads(number: str) -> None:
    """torch read this variable when it was loaded. What is no number it reads as if it were not there."""
    torch = sys.modules.get("torch")
    if torch is not None and number.isdigit() and int(number) not in (0, torch.get_num_threads()):
        torch.set_num_threads(int(number))


def _forget_own_modules(installed: Sequence[str]) -> None:
    """Modules are found where a new process of this folder and environment would find them, this file's package, too.

    Args:
        installed: where the warm process finds those that are installed.
    """
    own = __package__.partition(".")[0]
    for name in [name for name in sys.modules if name.partition(".")[0] == own]:
        del sys.modules[name]
    sys.path[:] = [*_first_paths(), *installed]


def _pass_on(connection: socket.socket, running: dict[socket.socket, _Fork], left: dict[int, float]) -> None:
    """A signal of the caller's, or its end."""
    try:
        told = connection.recv(1)
    except OSError:
        told = b""
    fork = running[connection]
    with contextlib.suppress(ProcessLookupError):
        os.kill(fork.pid, told[0] if told else signal.SIGTERM)
    if not told:
        del running[connection]
        connection.close()
        left[fork.pid] = time.monotonic() + fork.grace_s


def _reap(running: dict[socket.socket, _Fork], left: dict[int, float]) -> None:
    for connection, fork in list(running.items()):
        done, status = os.waitpid(fork.pid, os.WNOHANG)
        if done:
            with contextlib.suppress(OSError):
                connection.sendall(_CODE.pack(os.waitstatus_to_exitcode(status)))
            connection.close()
            del running[connection]
    for pid, deadline in list(left.items()):
        if os.waitpid(pid, os.WNOHANG)[0]:
            del left[pid]
        elif time.monotonic() >= deadline:
            os.kill(pid, signal.SIGKILL)


if __name__ == "__main__":
    if accepted := serve(sys.argv[1]):
        how, what, *given = accepted["arguments"]
        sys.argv = [what if how == "-m" else how, *given]
        if how == "-m":
            runpy.run_module(what, run_name="__main__")
        else:
            exec(compile(what, "<string>", "exec"), {"__name__": "__main__"})
