"""What processes of this machine spend: time, processors, memory, energy; and what each stage did, in a file.

Imports nothing that is slow: every stage counts.
"""

from __future__ import annotations

import json
import os
import resource
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil

from pipeline.system.project import Project, read_json

FILE = "costs.jsonl"
Cost = dict[str, Any]


@contextmanager
def counted(cost: Cost) -> Iterator[None]:
    """Fill `cost` with what the block spends: `time_s`; `cpu_s` of this process and of what it starts; `memory_gib`,
    the most that this process held; `energy_j` of the machine, whatever else it did, None where it does not tell it."""
    start_s, cpu_s, own_s, energy = time.monotonic(), _cpu_s(), time.process_time(), Energy()
    try:
        yield
    finally:
        cost |= {
            "time_s": time.monotonic() - start_s,
            "cpu_s": max(
                _cpu_s() - cpu_s, time.process_time() - own_s
            ),  # a child's time is lost if nobody waits for it
            "memory_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
            "energy_j": energy.used_j(),
        }


@contextmanager
def stage_counted(project: Project, stage: str, name: str) -> Iterator[None]:
    """Add a line to the project's costs once the stage is done; one that is refused leaves everything as it is."""
    cost: Cost = {"stage": stage, "name": name, "begun": time.time()}
    with counted(cost):
        yield
    line = json.dumps({key: round(v, 3) if isinstance(v, float) else v for key, v in cost.items()})
    path = project.store_root / "state" / FILE
    with suppress(OSError):  # a full disk is told by what matters
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "a", encoding="utf-8") as file:
            file.write(f"{line}\n")


def costs(project: Project) -> list[Cost]:
    """What each stage spent when it was last done here, as DVC runs them; training by its own record, which has its
    workers' and travels with it."""
    last: dict[tuple[str, str], Cost] = {}
    path = project.store_root / "state" / FILE
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else []:
        with suppress(ValueError, KeyError):  # half a line, of a process that died
            cost = json.loads(line)
            last[cost["stage"], cost["name"]] = cost
    for record in sorted((project.root / "artifacts").glob("*/run.json")):
        own = read_json(record, "the record of the training", "", dict[str, Any]).get("cost", {})
        last["train", record.parent.name] = {"stage": "train", "name": record.parent.name, **own}
    order = ("fetch", "shard", "vocab", "train", "evaluate", "register")
    known = [cost for cost in last.values() if cost["stage"] in order]
    return sorted(known, key=lambda cost: (order.index(cost["stage"]), cost["name"]))


def show(project: Project) -> int:
    """The command: a table of what each stage spent, and the sums."""
    from rich.console import Console
    from rich.table import Table

    found = costs(project)
    table = Table("stage", "of", *(f"{name}" for name in _COLUMNS), box=None)
    for column in table.columns[2:]:
        column.justify = "right"
    for cost in found:
        table.add_row(cost["stage"], cost["name"], *_cells(cost))
    summed = ("time_s", "cpu_s", "gpu_s", "energy_j")
    total: Cost = {n: sum(told) for n in summed if (told := [c[n] for c in found if c.get(n) is not None])}
    total["memory_gib"] = max((c["memory_gib"] for c in found if c.get("memory_gib") is not None), default=None)
    table.add_row("all", "", *_cells(total), style="bold")
    Console(width=None if os.isatty(1) else 120).print(table)
    return 0


def _time(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


# heading -> key, and how it is written
_COLUMNS: dict[str, tuple[str, Callable[[float], str]]] = {
    "time": ("time_s", _time),
    "processors": ("cpu_s", _time),
    "GPUs": ("gpu_s", _time),
    "memory": ("memory_gib", "{:.1f} GiB".format),
    "energy": ("energy_j", lambda joules: f"{joules / 3600:.2f} Wh"),
}


def _cells(cost: Mapping[str, Any]) -> list[str]:
    return ["" if cost.get(key) is None else written(cost[key]) for key, written in _COLUMNS.values()]


def _cpu_s() -> float:
    """Of this process, what it started, and theirs: loader processes have ended, but the server that forked them has
    their times."""
    here, total = psutil.Process(), 0.0
    for process in (here, *here.children(recursive=True)):
        with suppress(psutil.Error):  # it has ended meanwhile
            total += sum(process.cpu_times()[:4])  # user and system, its own and of its children that have ended
    return total


class Energy:
    """Joules that this machine's processors use from now on, by Linux's counters, where they may be read."""

    def __init__(self, root: Path = Path("/sys/class/powercap")):
        self._zones = [zone for zone in sorted(root.glob("*-rapl:*")) if zone.name.count(":") == 1]
        self._before = [_micro_joules(zone / "energy_uj") for zone in self._zones]

    def used_j(self) -> float | None:
        """Since this was made; None where no counter can be read. At its `max_energy_range_uj` one begins anew."""
        used = []
        for zone, before in zip(self._zones, self._before, strict=True):
            now, size = _micro_joules(zone / "energy_uj"), _micro_joules(zone / "max_energy_range_uj")
            if before is not None and now is not None:
                used.append(now - before if now >= before else now - before + (size or 0))
        return sum(used) / 1e6 if used else None


def _micro_joules(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None
