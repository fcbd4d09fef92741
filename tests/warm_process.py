"""A process that stages start from, for tests."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pipeline.system import warm
from tests.waiting import until

# The socket of one for all processes of a `pytest --numprocesses`: what each would load takes ten seconds.
SHARED = "SIGHTLINE_TESTS_WARM"
_HANDED = "import sys; from pipeline.system import warm; sys.exit(warm.hand_over(sys.argv[2:], sys.argv[1]))"


def forked(socket: str | None, *arguments: str) -> list[str]:
    """The command `python <arguments>`, of which the first is `-m` or `-c`, as a fork where there is a process for it.
    Its folder or PYTHONPATH has our packages."""
    return [sys.executable, "-c", _HANDED, socket, *arguments] if socket else [sys.executable, *arguments]


@contextmanager
def listening(folder: Path) -> Iterator[Path]:
    """Its socket, in `folder`, which nobody knows who is not told. It may still be importing: who asks waits."""
    with warm.started(folder) as start, pytest.MonkeyPatch.context() as patch:
        start()
        patch.delenv(warm.VARIABLE)
        until((folder / "warm").exists)
        yield folder / "warm"
