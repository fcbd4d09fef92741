"""`sightline` in this process, for tests of what a command prints and ends with."""

from __future__ import annotations

import signal
from collections.abc import Iterable

import pytest

from pipeline.cli import app


def sightline(command: str, arguments: Iterable[str] = ()) -> int:
    """The exit code of `sightline <command> <arguments>`. A command may leave its own handlers of signals behind, since
    its process ends with it; this one does not."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    signal.signal(signal.SIGINT, signal.default_int_handler)  # what a background shell starts is deaf to it
    try:
        with pytest.raises(SystemExit) as ended:
            app([command, *arguments])
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    code = ended.value.code
    assert isinstance(code, int)
    return code
