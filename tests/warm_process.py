"""A process that stages start from, for tests."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.system import warm
from tests.waiting import until


@contextmanager
def listening(folder: Path) -> Iterator[Path]:
    """Its socket, in `folder`. It may still be importing: who asks waits."""
    with warm.started(folder) as start:
        start()
        until((folder / "warm").exists)
        yield folder / "warm"
