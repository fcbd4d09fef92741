"""What becomes of Ray's own failures: noticed while the driver waits, and told in words that people use."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from contracts.errors import ConfigError, SightlineError
from pipeline.cluster.join import knock
from pipeline.system.out_of_memory import MEMORY_FIX, is_out_of_memory

_KNOCK_EVERY_S, _GONE_AFTER_S = 5.0, 30.0
KILLED_OR_CRASHED = "killed from outside, such as by the system for want of memory (`dmesg` tells), or crashed"


class Watch:
    """Notices that Ray itself is gone: asked every second while the driver waits for anything.

    On a cluster of our own these are processes of ours; on a joined one the head must answer at its port.
    """

    def __init__(self, error: type[SightlineError]):
        self._error = error
        self._asked = self._answered = time.monotonic()

    def check(self) -> None:
        """Raises the error that the watch was made for, if there is no cluster any more."""
        import ray._private.worker as worker

        node = worker._global_node
        if node is None:  # through a proxy (`ray://`): the work itself is told (`lost`)
            return
        dead = [name for name, _ in node.dead_processes() if name in ("gcs_server", "raylet")]
        if dead:
            raise self.lost(f"{' and '.join(dead)} on this machine")
        if node.all_processes or time.monotonic() - self._asked < _KNOCK_EVERY_S:
            return
        self._asked = time.monotonic()
        try:
            knock(node.gcs_address)
        except ConfigError:
            if time.monotonic() - self._answered > _GONE_AFTER_S:
                raise self.lost(f"the head at {node.gcs_address}") from None
        else:
            self._answered = time.monotonic()

    def lost(self, what: str) -> SightlineError:
        return self._error(
            "Ray died in the middle of the work",
            value=what,
            where=KILLED_OR_CRASHED,
            fix="run the same command again: what is finished is kept, and training goes on from its last state",
        )


def reason(error: BaseException) -> str:
    """A sentence for what Ray raises. Its own texts are pages; the worker has printed its traceback already."""
    from ray import exceptions as of_ray
    from ray.train.v2.api.exceptions import ControllerError, WorkerGroupError

    if isinstance(error, WorkerGroupError) and error.worker_failures:
        first = min(error.worker_failures)
        return f"rank {first}: {reason(error.worker_failures[first])}"
    if isinstance(error, ControllerError):
        return reason(error.controller_failure)
    cause = getattr(error, "cause", None)
    if isinstance(error, of_ray.RayTaskError) and isinstance(cause, BaseException):
        return reason(cause)
    if isinstance(error, of_ray.OutOfMemoryError) or is_out_of_memory(error):
        return f"out of memory; {MEMORY_FIX}"
    if "health check has been hanging" in str(error):
        return "a worker did not answer any more (cluster.collective_timeout_s)"
    if isinstance(error, (of_ray.RayActorError, of_ray.WorkerCrashedError, of_ray.NodeDiedError)):
        return f"its process died: {KILLED_OR_CRASHED}"
    return f"{type(error).__name__}: {next(iter(str(error).strip().splitlines()), '')}"


def watched(work: Callable[[], Any], watch: Watch) -> BaseException | None:
    """Do what blocks in another thread, while this one looks after Ray and stays free to be interrupted.

    Returns:
        What `work` raised, or None.
    """
    raised: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as error:  # Ray raises SystemExit here when it is shut down meanwhile
            raised.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    while thread.is_alive():
        thread.join(1.0)
        watch.check()
    return raised[0] if raised else None
