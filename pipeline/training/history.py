"""How a training went, from its `events.jsonl`: curves by step, and what the processes spent.

`artifacts/<run>/events.jsonl` has the lines without those of pictures, which lie in MLflow. This file imports nothing
that is slow.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

from pipeline.system.disk import write_lines
from pipeline.system.project import write_json
from pipeline.system.spending import Cost, counted
from pipeline.training.run_files import BEGUN

SPENT = "spent"  # folder of the state folder: a file a process
Curve = list[tuple[int, float]]


def copy_events(events: Path, target: Path) -> None:
    """What is of use without the state folder. A training of before has no events: neither has its copy then."""
    if events.is_file():
        with open(events, "rb") as lines:
            kept = (line for line in lines if (read_event(line) or {}).get("kind") == "metrics")
            write_lines(target, (line.decode().rstrip("\n") for line in kept))


def curves(events: Path) -> dict[str, Curve]:
    """Metric -> (optimizer step, value), by rising step, of finite values. No file: no curves."""
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
    """Note what this process spends in the block, in a file of its own; of one that is killed, that it began."""
    name = f"{time.time_ns():020d}-rank{rank}.json"
    cost: Cost = {}
    with suppress(OSError):
        write_json(state / SPENT / name, {"rank": rank, "time_s": 0.0, "cpu_s": 0.0})
    try:
        with counted(cost):
            yield
    finally:
        energy_j = cost.pop("energy_j")
        note = {"rank": rank, **cost, **_gpu(), **({"energy_j": energy_j} if rank == 0 else {})}
        with suppress(OSError):  # a full disk is told by what matters
            write_json(state / SPENT / name, note)


def spent(state: Path) -> dict[str, float | int | None]:
    """What all processes of a training noted: `time_s` of rank 0, over all sessions; `cpu_s` of all ranks with their
    loader processes, `gpu_s` of all that held a GPU; `gpu_gib` and `memory_gib`, the most that a rank held at once;
    `energy_j` of rank 0's machine, whatever else it did, where it tells it; `num_workers`, the most that there were."""
    notes = [json.loads(path.read_bytes()) for path in sorted((state / SPENT).glob("*.json"))]
    if not notes:
        return dict.fromkeys(_COSTS)
    on_gpu = [note for note in notes if note.get("gpu_gib") is not None]
    return {
        "time_s": round(sum(note["time_s"] for note in notes if note["rank"] == 0), 1),
        "cpu_s": round(sum(note["cpu_s"] for note in notes), 1),
        "gpu_s": round(sum(note["time_s"] for note in on_gpu), 1) if on_gpu else None,
        "gpu_gib": _most(notes, "gpu_gib"),
        "memory_gib": _most(notes, "memory_gib"),
        "energy_j": round(sum(told)) if (told := _told(notes, "energy_j")) else None,
        "num_workers": 1 + max(note["rank"] for note in notes),
    }


_COSTS = ("time_s", "cpu_s", "gpu_s", "gpu_gib", "memory_gib", "energy_j", "num_workers")


def _told(notes: Sequence[Mapping[str, Any]], name: str) -> list[float]:
    return [float(note[name]) for note in notes if note.get(name) is not None]


def _most(notes: Sequence[Mapping[str, Any]], name: str) -> float | None:
    return round(max(told), 2) if (told := _told(notes, name)) else None


def goodput(events: Path, state: Path) -> float | None:
    """Share of the time since a training's first start in which it made steps that count: starts, validations, states,
    waiting for data or machines, and what was trained again after a failure are the rest. None: too few are known.

    A step's time is the median over all that were told, so that no single pause counts as one.
    """
    told: list[tuple[int, float]] = []
    if events.is_file():
        with open(events, "rb") as lines:
            for event in filter(None, map(read_event, lines)):
                if "train/loss" in event.get("values", ()):
                    told.append((int(event["step"]), float(event["time"])))
    starts = [int(path.name.partition("-")[0]) / 1e9 for path in (state / SPENT).glob("*-rank*.json")]
    begun = json.loads((state / BEGUN).read_bytes()).get("step", -1) if (state / BEGUN).is_file() else -1
    told = [(step, time_s) for step, time_s in told if step > begun]  # the others are of the run that this one extends
    pairs = [(b[0] - a[0], b[1] - a[1]) for a, b in pairwise(told)]
    paces = sorted(time_s / steps for steps, time_s in pairs if steps > 0 and time_s > 0)
    if not paces:
        return None
    whole_s = told[-1][1] - min([told[0][1], *starts])
    steps = max(step for step, _ in told) - begun
    return round(min(1.0, steps * paces[len(paces) // 2] / whole_s), 4) if whole_s > 0 else None


def speed(spent: Mapping[str, Any], steps: int, batch_size: int) -> float | None:
    """Samples of training a second, over the whole of it, validation and states included."""
    return round(steps * batch_size / spent["time_s"], 2) if spent.get("time_s") else None


def _gpu() -> dict[str, float]:
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available() or not torch.cuda.is_initialized():
        return {}
    return {"gpu_gib": torch.cuda.max_memory_allocated() / 2**30}
