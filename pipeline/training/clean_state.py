"""Remove training states that no run would go on from, and downloads that are extracted.

A state is abandoned when params.yaml names no such run any more, or its settings, data or code have changed since. One
that another process works on is left alone, and so is every state of a run whose data is not here.
"""

from __future__ import annotations

import fcntl
import os
import re
import time
from dataclasses import dataclass
from pathlib import Path

from contracts.errors import SightlineError
from contracts.names import NAME
from pipeline.settings.archives import ARCHIVES
from pipeline.settings.params import Params, load_params
from pipeline.system.project import Project
from pipeline.system.removal import remove_tree

STILL_S = 600.0  # what was written to within this time is in use
_STATE = re.compile(rf"(?P<run>{NAME.pattern})-[0-9a-f]{{16}}")


@dataclass(frozen=True)
class Found:
    """Something below `state`, and why it may go or must stay."""

    path: Path
    num_bytes: int
    why: str
    goes: bool


def find(project: Project, params: Params) -> list[Found]:
    """Every state and finished download of the project."""
    root = project.root / "state"
    current: dict[str, str | None] = {}  # a run's state folder; None: cannot be told
    found = []
    for folder in sorted(path for path in root.glob("*-*") if path.is_dir() and _STATE.fullmatch(path.name)):
        run = _run_of(folder)
        if run in params.document["runs"] and run not in current:
            current[run] = _current(project, params, run)
        goes, why = _judge(project, folder, run, current)
        found.append(Found(folder, _num_bytes(folder), why, goes))
    return found + _downloads(project, params)


def _run_of(folder: Path) -> str:
    match = _STATE.fullmatch(folder.name)
    assert match is not None
    return match["run"]


def _judge(project: Project, folder: Path, run: str, current: dict[str, str | None]) -> tuple[bool, str]:
    if _in_use(project, folder, run):
        return False, "in use"
    if run not in current:
        return True, f"no run {run} in params.yaml"
    if current[run] is None:
        return False, "the run's data is not here: nobody can tell"
    if current[run] == folder.name:
        return False, "the run goes on from it"
    return True, "settings, data or code of the run have changed"


def _current(project: Project, params: Params, run: str) -> str | None:
    """Name of the folder that the run would go on from."""
    from pipeline.training.runs import load_run  # torch

    try:
        return project.state(run, load_run(project, params, run).fingerprint).name
    except SightlineError:
        return None


def _in_use(project: Project, folder: Path, run: str) -> bool:
    """Whether a process holds the run's lock, or something wrote there a moment ago, perhaps from another machine."""
    lock = project.root / "state" / "locks" / f"run-{run}.lock"
    if lock.is_file():
        with open(lock) as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except OSError:
                return True
    newest = max((_changed(path) for path in (folder, *folder.rglob("*"))), default=0.0)
    return time.time() - newest < STILL_S


def _changed(path: Path) -> float:
    try:
        return path.lstat().st_mtime
    except FileNotFoundError:
        return time.time()


def _downloads(project: Project, params: Params) -> list[Found]:
    """Archives that arrived whole; `.part` files are downloads that go on."""
    waiting: set[str] = set()
    done: set[str] = set()
    for name, entry in params.document["datasets"].items():
        for archive in (entry.get("download") or {}).get("archives", ()):
            marker = project.raw(name) / f".{archive}.done"
            (done if marker.is_file() else waiting).add(archive)
    found = []
    for path in sorted((project.root / "state" / "downloads").glob("*")):
        archive = next((name for name, known in ARCHIVES.items() if known.file_name == path.name), None)
        if archive is None or not path.is_file():
            continue
        if archive in waiting:
            found.append(Found(path, _num_bytes(path), "not extracted yet", goes=False))
        else:
            why = "extracted" if archive in done else "no data set in params.yaml needs it"
            found.append(Found(path, _num_bytes(path), why, goes=True))
    return found


def _num_bytes(path: Path) -> int:
    files = [path] if path.is_file() else [p for p in path.rglob("*") if p.is_file() and not p.is_symlink()]
    return sum(os.stat(file).st_size for file in files)


def run(*, dry_run: bool) -> None:
    """The command: remove, or with `dry_run` only say so."""
    project = Project.here()
    found = find(project, load_params(project.root))
    for one in found:
        verb = "keep" if not one.goes else "would remove" if dry_run else "remove"
        print(f"{verb} {one.path.relative_to(project.root)} ({one.num_bytes / 1e6:.1f} MB): {one.why}")
        if one.goes and not dry_run:
            remove_tree(one.path, inside=project.root / "state")
    total = sum(one.num_bytes for one in found if one.goes)
    print(f"{total / 1e6:.1f} MB {'to be removed' if dry_run else 'removed'}")
