"""Locks on what a stage writes: a second process at the same thing is refused at once, before anything is touched.

A lock is a file in `state/locks` that the kernel locks (flock, which NFS carries to other hosts as well), so it is free
the moment its owner is gone, however that died. Written in it is only who holds it, for people.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import socket
import sys
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import psutil

from contracts.errors import ConfigError
from contracts.redact import redact
from pipeline.system import orphan

_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EINVAL}
_ENDS_WITHIN_S = orphan.GRACE_S + 5
_held: set[int] = set()  # descriptors


def _let_go() -> None:
    """A forked loader process must not hold its parent's locks when that is gone."""
    for descriptor in _held:
        os.close(descriptor)
    _held.clear()


os.register_at_fork(after_in_child=_let_go)


@contextlib.contextmanager
def hold(folder: Path, name: str, what: str, *, shared: bool = False) -> Iterator[None]:
    """Hold the lock `folder`/`name`.lock.

    Args:
        what: what it guards, for messages.
        shared: with others that only read; otherwise alone.

    Raises:
        ConfigError: another process holds it. One that is ending, since its DVC is gone, is waited for.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.lock"
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o666)
    _held.add(descriptor)
    try:
        _acquire(descriptor, path, what, shared)
        if not shared:  # nobody else holds it: what is written there is of the dead
            for owner in _owners(path):
                if owner["alone"]:
                    print(f"{what}: taken over from {_told(owner)}, which did not live to let go", flush=True)
            os.ftruncate(descriptor, 0)
        os.write(descriptor, json.dumps(_note(shared)).encode() + b"\n")
        try:
            yield
        finally:
            if not shared:
                os.ftruncate(descriptor, 0)
    finally:
        _held.discard(descriptor)
        os.close(descriptor)


def _acquire(descriptor: int, path: Path, what: str, shared: bool) -> None:
    wanted = (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB
    deadline, told = time.monotonic() + _ENDS_WITHIN_S, False
    while True:
        try:
            fcntl.flock(descriptor, wanted)
            return
        except BlockingIOError:
            owners = [owner for owner in _owners(path) if _may_live(owner) and (owner["alone"] or not shared)]
            if not (owners and all(map(_is_ending, owners)) and time.monotonic() < deadline):
                raise _refusal(what, path, owners) from None
            if not told:
                print(f"{what}: waiting for {_told(owners[0])} to end, since its DVC is gone", flush=True)
                told = True
            time.sleep(0.2)
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
            print(f"{path}: this file system has no locks ({error.strerror}): see that only one works here", flush=True)
            return


def _note(shared: bool) -> dict[str, Any]:
    return {
        "alone": not shared,
        "pid": os.getpid(),
        "created": psutil.Process().create_time(),
        "host": socket.gethostname(),
        "user": os.environ.get("USER") or str(os.getuid()),
        "command": redact(" ".join(sys.argv)),
        "started": time.time(),
        "watched": [[process.pid, process.create_time()] for process in orphan.watched],
    }


def _owners(path: Path) -> list[dict[str, Any]]:
    """Who wrote itself into the lock file, the newest first. A line may be cut: it was never more than a note."""
    found = []
    for line in reversed(path.read_text(errors="replace").splitlines()):
        with contextlib.suppress(json.JSONDecodeError):
            found.append(json.loads(line))
    return found


def _runs(pid: int, created: float) -> bool:
    try:
        process = psutil.Process(pid)
        # Two processes compute it from a clock that is being set, so a little apart.
        return abs(process.create_time() - created) < 2 and orphan.is_alive(process)
    except psutil.NoSuchProcess:
        return False


def _may_live(owner: dict[str, Any]) -> bool:
    return owner["host"] != socket.gethostname() or _runs(owner["pid"], owner["created"])


def _is_ending(owner: dict[str, Any]) -> bool:
    here = owner["host"] == socket.gethostname()
    return here and not all(_runs(pid, created) for pid, created in owner["watched"])


def _told(owner: dict[str, Any]) -> str:
    since = datetime.fromtimestamp(owner["started"]).strftime("%Y-%m-%d %H:%M:%S")
    minutes = (time.time() - owner["started"]) / 60
    return (
        f"process {owner['pid']} of {owner['user']} on {owner['host']} (since {since}, {minutes:.0f} min; "
        f"{owner['command']})"
    )


def _refusal(what: str, path: Path, owners: list[dict[str, Any]]) -> ConfigError:
    return ConfigError(
        "another process is at work on this",
        value=what,
        where="; ".join(map(_told, owners)) or f"a process that cannot be told from here holds {path}",
        fix="wait until it has ended, or end it (kill and its number); nothing was touched",
    )
