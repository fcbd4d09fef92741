"""How a training went, from its `events.jsonl`: curves by step, and what the processes spent.

`artifacts/<run>/events.jsonl` has the lines without those of pictures, which lie in MLflow. This file imports nothing
that is slow.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil

from pipeline.system.disk import write_lines
from pipeline.system.project import write_json

SPENT = "spent"  # folder of the state folder: a file a process
Curve = list[tuple[int, float]]


def copy_events(events: Path, target: Path) -> None:
    """What is of use without the state folder. A training of before has no events: neither has its copy then."""
    if events.is_file():
        with open(events, "rb") as lines:
            kept = (line for line in lines if (read_event(line) or {}).get("kind") == "metrics")
            write_lines(target, (line.decode().rstrip("\n") for line in kept))


def curves(events: Path) -> dict[str, Curve]:
    """Metric -> (optimizer step, value), by rising step; what a training repeated after a failure counts once, as it
    went the last time. Values that are not finite are left out. No file: no curves."""
    found: dict[str, dict[int, float]] = {}
    if events.is_file():
        with open(events, "rb") as lines:
            for event in filter(None, map(read_event, lines)):
                if event.get("kind") == "metrics":
                    for name, value in event["values"].items():
                        if value - value == 0:
                            found.setdefault(name, {})[int(event["step"] or 0)] = float(value)
    return {name: sorted(points.items()) for name, points in sorted(found.items())}


def read_event(line: bytes) -> dict[str, Any] | None:
    """A process that died while it wrote leaves half a line, to which the next one appends. None: no event is in it."""
    try:
        event = json.loads(line[max(0, line.rfind(b'{"kind"')) :])
    except ValueError:
        return None
    return event if isinstance(event, dict) else None


@contextmanager
def spending(state: Path, rank: int) -> Iterator[None]:
    """Note what this process spends in the block, in a file of its own. One that is killed notes nothing."""
    start_s, cpu_s = time.monotonic(), _cpu_s()
    name = f"{time.time_ns():020d}-rank{rank}.json"
    try:
        yield
    finally:
        spent = {"rank": rank, "time_s": time.monotonic() - start_s, "cpu_s": _cpu_s() - cpu_s, **_gpu()}
        with suppress(OSError):  # a full disk is told by what matters
            write_json(state / SPENT / name, spent)


def spent(state: Path) -> dict[str, float | int | None]:
    """What all processes of a training noted: `time_s` of rank 0, over all sessions; `cpu_s` of all ranks with their
    loader processes; `gpu_gib`, the most that a rank held at once; `num_workers`, the most that there were."""
    notes = [json.loads(path.read_bytes()) for path in sorted((state / SPENT).glob("*.json"))]
    if not notes:
        return {"time_s": None, "cpu_s": None, "gpu_gib": None, "num_workers": None}
    held = [note["gpu_gib"] for note in notes if note.get("gpu_gib") is not None]
    return {
        "time_s": round(sum(note["time_s"] for note in notes if note["rank"] == 0), 1),
        "cpu_s": round(sum(note["cpu_s"] for note in notes), 1),
        "gpu_gib": round(max(held), 2) if held else None,
        "num_workers": 1 + max(note["rank"] for note in notes),
    }


def speed(spent: Mapping[str, Any], steps: int, batch_size: int) -> float | None:
    """Samples of training a second, over the whole of it, validation and states included."""
    return round(steps * batch_size / spent["time_s"], 2) if spent.get("time_s") else None


def _cpu_s() -> float:
    """Of this process, what it started, and theirs: loader processes have ended, but the server that forked them has
    their times."""
    here, total = psutil.Process(), 0.0
    for process in (here, *here.children(recursive=True)):
        with suppress(psutil.Error):  # it has ended meanwhile
            total += sum(process.cpu_times()[:4])  # user and system, its own and of its children that have ended
    return total


def _gpu() -> dict[str, float]:
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available() or not torch.cuda.is_initialized():
        return {}
    return {"gpu_gib": torch.cuda.max_memory_allocated() / 2**30}
