"""A process that stages start from, for tests."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.system import warm
from tests.waiting import until


@contextmanager
def listening(folder: Path) -> Iterator[Path]:
    """Its socket, in `folder`, which nobody knows who is not told. It may still be importing: who asks waits."""
    with warm.started(folder) as start:
        start()
        del os.environ[warm.VARIABLE]
        until((folder / "warm").exists)
        yield folder / "warm"
