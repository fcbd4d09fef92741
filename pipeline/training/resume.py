"""What all ranks agree on before training starts: that they see one state folder, which state they go on from, and what
was decided when the run began.

Rank 0 decides, the others find what it names or say why not, and all stop together where one cannot. Only names and
digests travel: a state may be larger than what a collective should carry.
"""

from __future__ import annotations

import os
import secrets
import socket
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch.distributed as dist

from contracts.errors import ConfigError
from lightning_modules.ops.gather import broadcast_from_first, gather_to_all
from pipeline.system.project import write_json
from pipeline.training.checkpoints import file_sha256, newest_state, read_note

# Both are shorter than a collective's timeout, in which the other ranks wait. Network file systems remember a file's
# absence for half a minute at most.
PROBE_S, VISIBLE_S = 15.0, 45.0
MEET_S = 180.0
DECIDED = "decided.json"
APART = "apart.json"  # here where each rank has a folder of its own, and all that it needs came from a store
_CAUTION = ("32-true", "16-mixed", "bf16-mixed")  # what every machine can do first


def decided(folder: Path) -> dict[str, Any]:
    """What a run that began in this state folder decided then, as far as it did: `use_gpu`, `precision`."""
    return read_note(folder / DECIDED)


def decide(folder: Path, **values: Any) -> None:
    """Keep decisions for all later tries. One process at a time: the driver before training, then rank 0."""
    write_json(folder / DECIDED, decided(folder) | values)


def agree_on_precision(folder: Path, wanted: str, fastest: str) -> str:
    """The precision of the whole run: `wanted`, or for "auto" what was decided when it began, then by all ranks.

    Args:
        fastest: what this rank's hardware is fast at. Where ranks differ, the one that all of them can do.
    """
    if wanted != "auto":
        return wanted
    before = broadcast_from_first(decided(folder).get("precision")) if _together() else decided(folder).get("precision")
    if before in _CAUTION:
        return before
    chosen = min(gather_to_all(fastest) if _together() else [fastest], key=_CAUTION.index)
    if not _together() or dist.get_rank() == 0:
        decide(folder, precision=chosen)
    return chosen


def check_shared(folder: Path) -> None:
    """Prove that every rank sees the same `folder`: rank 0 writes a file that nobody can guess, all read it. Where each
    has its own (`APART`), all but meet.

    Raises (on all ranks):
        ConfigError: on some node the folder is not there, is another one, or cannot be read; names node and folder.
    """
    if not _together():
        return
    _meet()
    if (folder / APART).is_file():
        return
    rank, error = dist.get_rank(), None
    token, problem = "", None
    if rank == 0:
        token = secrets.token_hex(16)
        try:
            (folder / f".probe-{token}").write_text(token)
        except OSError as found:
            error = f"cannot be written: {found}"
    token, error = broadcast_from_first((token, error))
    probe = folder / f".probe-{token}"
    if error is None and not _wait(lambda: _read(probe) == token, folder, PROBE_S):
        what = "what rank 0 writes there does not appear" if folder.is_dir() else "no such folder"
        problem = f"node {socket.gethostname()} (rank {rank}): {what} within {PROBE_S:.0f} s"
    problems = [problem for problem in gather_to_all(problem) if problem]
    if rank == 0:
        probe.unlink(missing_ok=True)
    if error is not None or problems:
        raise ConfigError(
            "the state folder is not the same one for all workers",
            value="; ".join(problems) or error,
            where=str(folder),
            fix="put the project on a file system that all nodes mount at this path, and see that it is mounted there; "
            "or let them share nothing, with `shards.store` and `cluster.storage`",
        )


def _meet() -> None:
    """Wait for all ranks before the first collective: on a busy machine they may come to it further apart than its
    timeout, since each has first imported what it trains with."""
    store = dist.distributed_c10d._get_default_store()
    store.set(f"here-{dist.get_rank()}", "")
    store.wait([f"here-{rank}" for rank in range(dist.get_world_size())], timedelta(seconds=MEET_S))


def agree_on_state(folder: Path) -> Path | None:
    """The newest whole state, as rank 0 finds it; every rank has compared its digest.

    Raises (on all ranks):
        ConfigError: a rank does not see it, or sees other bytes.
    """
    if not _together():
        return newest_state(folder)
    rank = dist.get_rank()
    found = newest_state(folder) if rank == 0 else None
    chosen = broadcast_from_first(None if found is None else (found.name, file_sha256(found)))
    if chosen is None:
        return None
    name, digest = chosen
    path, problem = folder / name, None
    if rank != 0 and not _wait(lambda: path.is_file() and file_sha256(path) == digest, folder, VISIBLE_S):
        seen = "other bytes" if path.is_file() else "no such file"
        problem = f"node {socket.gethostname()} (rank {rank}): {seen} after {VISIBLE_S:.0f} s"
    problems = [problem for problem in gather_to_all(problem) if problem]
    if problems:
        raise ConfigError(
            "not all workers see the state that training goes on from",
            value="; ".join(problems),
            where=str(path),
            fix="see whether the file system of the state folder is healthy on these nodes, "
            "then run the same command again",
        )
    return path


def _together() -> bool:
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def _wait(seen: Callable[[], bool], folder: Path, seconds: float) -> bool:
    """Whether `seen` comes true in time."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            os.listdir(folder)  # makes a network's file system ask the server anew
            if seen():
                return True
        except OSError:
            pass
        if time.monotonic() > deadline:
            return False
        time.sleep(0.2)


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
