"""A stage ends when the DVC that started it is gone: killed with -9, DVC takes none of its children with it.

Left alive, a stage would go on writing while the next `dvc repro` runs the same one. A stage started by hand is not
watched: `nohup` and `setsid` keep their meaning.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import threading
import time

import psutil

EVERY_S = 0.5
GRACE_S = 15.0  # for the orderly end: MLflow is told KILLED, Ray is shut down
_STAGE = "DVC_STAGE"  # DVC sets it for every stage
_TOOLS = {"dvc", "make", "gmake"}
watched: list[psutil.Process] = []  # what this process ends with; empty where DVC did not start it


def watch_dvc() -> None:
    """End this process soon after the DVC that started it, or the `make` above that DVC, has gone: first as SIGTERM
    does, after `GRACE_S` by killing it with all its children. Where DVC did not start this process, nothing is done.
    """
    if not os.environ.get(_STAGE):
        return
    watched[:] = _starters()
    threading.Thread(target=_watch, name="watch-dvc", daemon=True).start()


def is_alive(process: psutil.Process) -> bool:
    """Whether it runs. A zombie, which is dead and not yet collected by its parent, does not."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _starters() -> list[psutil.Process]:
    """The DVC that started this stage and those of `_TOOLS` above it; empty where DVC has gone already.

    DVC is the nearest ancestor without this stage's variable, since it sets it for its child. Once it is gone, the
    system puts init or a session's manager there, which belong to another session.
    """
    session = os.getsid(0)
    above = []
    with contextlib.suppress(psutil.NoSuchProcess, OSError):  # a parent ends while we look
        for process in psutil.Process().parents():
            if os.getsid(process.pid) != session:
                break
            above.append(process)
    started = next((i for i, process in enumerate(above) if _stage_of(process) != os.environ[_STAGE]), len(above))
    found = above[started:]
    return [*found[:1], *(process for process in found[1:] if _is_tool(process))]


def _stage_of(process: psutil.Process) -> str | None:
    try:
        return process.environ().get(_STAGE)
    except (psutil.Error, OSError):
        return None


def _is_tool(process: psutil.Process) -> bool:
    """`make ..`, `.../python .../dvc ..`, `python -m dvc ..`"""
    try:
        return any(os.path.basename(word) in _TOOLS for word in process.cmdline()[:3])
    except (psutil.Error, OSError):
        return False


def _watch() -> None:
    while watched and all(is_alive(process) for process in watched):
        time.sleep(EVERY_S)
    _mute_closed_outputs()
    print("the DVC that started this stage is gone: the stage ends too", file=sys.stderr, flush=True)
    children = psutil.Process().children(recursive=True)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(GRACE_S)
    for child in {*children, *psutil.Process().children(recursive=True)}:
        with contextlib.suppress(psutil.NoSuchProcess):
            child.kill()
    os.kill(os.getpid(), signal.SIGKILL)


def _mute_closed_outputs() -> None:
    """Send what nobody reads any more to nowhere: a broken pipe must not disturb the orderly end."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for descriptor in (1, 2):
        poll = select.poll()
        poll.register(descriptor, 0)  # errors are always reported
        if poll.poll(0):
            os.dup2(nowhere, descriptor)
    os.close(nowhere)
