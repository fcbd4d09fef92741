"""What each machine that trains is busy with, told from there: the driver's own load says nothing of other nodes.

The first worker of each node appends lines to `nodes/<node>.jsonl` in the state folder, as `events.jsonl` has them; the
driver delivers them to MLflow, whose page shows names that begin with `system/` apart. This file knows neither Ray nor
MLflow.
"""

from __future__ import annotations

import json
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil

FOLDER = "nodes"


class LoaderWait:
    """How long this process's steps have waited for their batches. `StateWriter` tells it, the node's load reads it."""

    def __init__(self) -> None:
        self._waited_s = 0.0
        self._since: float | None = None

    @property
    def waited_s(self) -> float:
        """The wait that still lasts counts up to now."""
        since = self._since
        return self._waited_s + (time.monotonic() - since if since is not None else 0.0)

    def begin(self) -> None:
        """A step has ended, or an epoch begins: from now on training waits for the next batch."""
        self._since = time.monotonic()

    def end(self) -> None:
        """The batch is there."""
        if self._since is not None:
            waited_s, self._since = time.monotonic() - self._since, None  # never counted twice by another thread
            self._waited_s += waited_s


LOADER_WAIT = LoaderWait()  # a process trains one thing at a time


@contextmanager
def node_load(state: Path, node: str | None, every_s: float | None) -> Iterator[None]:
    """Tell this machine's load in the block, every so many seconds.

    Args:
        state: the run's state folder.
        node: its name among those that train; None: this is the driver's machine alone, whose load MLflow measures
            itself; what steps wait for their batches is told all the same.
        every_s: None: tell nothing.
    """
    if every_s is None:
        yield
        return
    stop = threading.Event()
    thread = threading.Thread(target=_tell, args=(state, node, every_s, stop), name="NodeLoad", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _tell(state: Path, node: str | None, every_s: float, stop: threading.Event) -> None:
    name = node or "here"
    with suppress(OSError):  # a full disk is told by what matters
        if node is not None:
            append_line(state, name, {"kind": "tags", "values": {f"system.{node}": socket.gethostname()}})
        step, last_s, waited_s = _last_step(state / FOLDER / f"{name}.jsonl"), time.monotonic(), LOADER_WAIT.waited_s
        psutil.cpu_percent()  # the first answer is of no time
        while not stop.wait(every_s):
            now_s, now_waited_s = time.monotonic(), LOADER_WAIT.waited_s
            values = {"loader_wait_percentage": 100 * max(0.0, now_waited_s - waited_s) / (now_s - last_s)}
            values |= _load() if node is not None else {}
            before = f"system/{node}/" if node is not None else "system/"
            step, last_s, waited_s = step + 1, now_s, now_waited_s
            line = {"kind": "metrics", "step": step, "values": {f"{before}{k}": v for k, v in values.items()}}
            append_line(state, name, line)


def _load() -> dict[str, float]:
    """By MLflow's names of the same."""
    memory = psutil.virtual_memory()
    values = {
        "cpu_utilization_percentage": psutil.cpu_percent(),
        "system_memory_usage_megabytes": (memory.total - memory.available) / 1e6,
        "system_memory_usage_percentage": memory.percent,
    }
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available() and torch.cuda.is_initialized():
        for gpu in range(torch.cuda.device_count()):
            free, total = torch.cuda.mem_get_info(gpu)
            values[f"gpu_{gpu}_memory_usage_percentage"] = 100 * (total - free) / total
            with suppress(Exception):  # NVML's library is no part of torch
                values[f"gpu_{gpu}_utilization_percentage"] = float(torch.cuda.utilization(gpu))
    return values


def _last_step(path: Path) -> int:
    """Where a session before this one ended."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    steps = [0]
    for line in lines:
        with suppress(ValueError, KeyError):
            steps.append(int(json.loads(line)["step"]))
    return max(steps)


def append_line(state: Path, name: str, line: dict[str, Any]) -> None:
    """A line that the driver delivers to MLflow, in a file of its own."""
    path = state / FOLDER / f"{name}.jsonl"
    path.parent.mkdir(exist_ok=True)
    with open(path, "a", encoding="utf-8") as file:
        file.write(json.dumps({**line, "time": time.time()}) + "\n")
