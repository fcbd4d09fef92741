"""The ledger: which samples every finished step was trained on, and whether each epoch saw each sample exactly once.

    sightline ledger RUN

With `train.ledger: true` each rank appends one line a step to `ledger/<session>-rank<r>.jsonl`. A session is one start
of training; it goes on from a state, so what an earlier session did after that state's step is void: those weights
are lost.
The files lie in the run's state folder while it trains, then in `artifacts/<run>/ledger`. Exit code 1 if not exact.
"""

from __future__ import annotations

import json
import os
import socket
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from contracts.errors import DataError

FOLDER = "ledger"
_NUM_SHOWN = 8


class LedgerFile:
    """What one rank writes in one session. Every line reaches the system at once: a killed process loses none.

    Args:
        folder: the ledger's folder, seen by every rank.
        session: the same text on all ranks, later ones sorting behind earlier ones.
        from_step: optimiser steps of the state that training goes on from.
    """

    def __init__(self, folder: Path, session: str, *, rank: int, world: int, from_step: int):
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{session}-rank{rank:04d}.jsonl"
        self._file = open(path, "a", buffering=1, encoding="utf-8")  # noqa: SIM115  (open as long as training goes)
        process = {"host": socket.gethostname(), "pid": os.getpid()}
        self._write({"session": session, "rank": rank, "world": world, "from_step": from_step, **process})

    def step(self, *, epoch: int, step: int, keys: Iterable[str]) -> None:
        """A finished optimiser step and the keys of this rank's part of its global batch."""
        self._write({"epoch": epoch, "step": step, "keys": list(keys)})

    def sync(self) -> None:
        """Bring everything to the disk. Called before a state is written: no state may know more than the ledger."""
        os.fsync(self._file.fileno())

    def close(self) -> None:
        self._file.close()

    def _write(self, line: dict[str, Any]) -> None:
        self._file.write(json.dumps(line, ensure_ascii=False) + "\n")


@dataclass(frozen=True, kw_only=True)
class Step:
    """One optimiser step of the run as it counts: all ranks' keys."""

    epoch: int
    step: int
    keys: tuple[str, ...]


def merge(folder: Path) -> list[Step]:
    """The steps that led to the newest weights, in order, from all ranks and sessions.

    Raises:
        DataError: no ledger here, or a damaged line.
    """
    sessions: dict[str, dict[int, list[dict[str, Any]]]] = {}
    for path in sorted(folder.glob("*.jsonl")) if folder.is_dir() else []:
        lines = _lines(path)
        head = lines[0]
        sessions.setdefault(head["session"], {})[head["rank"]] = lines
    if not sessions:
        raise DataError("no ledger here", where=str(folder), fix="set train.ledger: true and train the run")
    steps: dict[int, Step] = {}
    for _, ranks in sorted(sessions.items()):
        head = next(iter(ranks.values()))[0]
        steps = {step: known for step, known in steps.items() if step <= head["from_step"]}
        steps |= _joined(ranks, head["world"])
    return [steps[step] for step in sorted(steps)]


def _joined(ranks: dict[int, list[dict[str, Any]]], world: int) -> dict[int, Step]:
    """A session's steps that all ranks finished: killed in a step, some ranks may have come further than others."""
    parts: dict[int, list[dict[str, Any]]] = {}
    for _, lines in sorted(ranks.items()):
        for line in lines[1:]:
            parts.setdefault(line["step"], []).append(line)
    return {
        step: Step(epoch=own[0]["epoch"], step=step, keys=tuple(key for line in own for key in line["keys"]))
        for step, own in parts.items()
        if len(own) == world
    }


def _lines(path: Path) -> list[dict[str, Any]]:
    text = path.read_text(encoding="utf-8")
    whole, _, cut = text.rpartition("\n")  # the last line may have been cut by a kill
    try:
        lines = [json.loads(line) for line in whole.splitlines()]
    except json.JSONDecodeError as error:
        raise DataError("a damaged line in the ledger", value=str(error), where=str(path)) from None
    if not lines:
        raise DataError("a ledger file without its first line", value=cut[:80], where=str(path))
    return lines


@dataclass(frozen=True, kw_only=True)
class EpochCheck:
    """One epoch against the manifest. `missing` and `repeated` are keys; `unknown` ones are not in the manifest."""

    epoch: int
    num_steps: int
    num_samples: int
    missing: tuple[str, ...]
    repeated: tuple[str, ...]
    unknown: tuple[str, ...]

    @property
    def exact(self) -> bool:
        return not (self.missing or self.repeated or self.unknown)

    def __str__(self) -> str:
        if self.exact:
            return f"epoch {self.epoch + 1}: exact ({self.num_samples} samples in {self.num_steps} steps)"
        kinds = {"missing": self.missing, "repeated": self.repeated, "unknown": self.unknown}
        told = [
            f"{len(keys)} {kind} ({', '.join(keys[:_NUM_SHOWN])}{', ..' if len(keys) > _NUM_SHOWN else ''})"
            for kind, keys in kinds.items()
            if keys
        ]
        return f"epoch {self.epoch + 1}: {'; '.join(told)}"


def check(steps: Iterable[Step], expected: Iterable[str]) -> list[EpochCheck]:
    """Every epoch of `steps` against the keys that an epoch must see once each."""
    wanted = set(expected)
    counts: dict[int, Counter[str]] = {}
    num_steps: Counter[int] = Counter()
    for step in steps:
        counts.setdefault(step.epoch, Counter()).update(step.keys)
        num_steps[step.epoch] += 1
    return [
        EpochCheck(
            epoch=epoch,
            num_steps=num_steps[epoch],
            num_samples=seen.total(),
            missing=tuple(sorted(wanted - seen.keys())),
            repeated=tuple(sorted(key for key, count in seen.items() if count > 1)),
            unknown=tuple(sorted(seen.keys() - wanted)),
        )
        for epoch, seen in sorted(counts.items())
    ]


def report(name: str) -> int:
    """The command: 0 where every epoch is exact, 1 where one is not or there is none."""
    from pipeline.settings.params import load_params
    from pipeline.shards.reader import SplitReader
    from pipeline.system.project import Project
    from pipeline.training.checkpoints import build_task
    from pipeline.training.runs import load_run

    project = Project.here()
    data = load_run(project, load_params(project.root), name)
    training = project.state(name, data.fingerprint) / FOLDER
    folder = training if training.is_dir() else project.artifacts(name) / FOLDER
    reader = SplitReader(project.shards(data.run.dataset), data.manifest, "train")
    wanted = reader.keys(reader.select(build_task(data.run.to_dict(), data.spec).requires))
    checks = check(merge(folder), wanted)
    underway = checks[-1] if checks and folder == training else None
    exact = True
    for found in checks:
        if found is underway and not (found.repeated or found.unknown):
            print(f"epoch {found.epoch + 1}: {found.num_samples} of {len(wanted)} samples so far, none repeated")
            continue
        exact &= found.exact
        print(found)
    return 0 if exact and checks else 1
