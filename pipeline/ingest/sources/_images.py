"""What sources of loose files share: which files lie below a folder, and their record keys."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

from contracts.raw import Problem
from pipeline.ingest.sources._files import record_key
from pipeline.system.reading import is_folder, listed


def files_below(folder: Path, suffixes: Collection[str]) -> Iterator[Path]:
    """Files with one of these endings (small letters) in a folder and those below it, sorted in each; no hidden ones.

    Links to folders are followed, each folder once.

    Raises:
        DataError: there is no such folder, or this host cannot read one.
    """
    entered: set[str] = set()

    def walk(folder: Path) -> Iterator[Path]:
        real = os.path.realpath(folder)
        if real in entered:  # a link to a folder above it
            return
        entered.add(real)
        for path in listed(folder):
            if path.suffix.lower() in suffixes:
                yield path
            elif is_folder(path):
                yield from walk(path)

    return walk(folder)


def keyed(files: Iterable[Path], root: Path) -> tuple[list[tuple[str, Path]], list[Problem]]:
    """(record key, file) in ascending order of key, and a Problem for each file whose key another one has."""
    found: dict[str, Path] = {}
    problems: list[Problem] = []
    for path in files:
        name = path.relative_to(root).as_posix()
        key = record_key(name)
        if found.setdefault(key, path) != path:
            problems.append(Problem(reason="duplicate_key", kind="record", file=str(path), item_id=name, key=key))
    return sorted(found.items()), problems
