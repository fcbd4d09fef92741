"""`sightline` in this process, for tests of what a command prints and ends with."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from pipeline.cli import app


def sightline(command: str, arguments: Iterable[str] = ()) -> int:
    """The exit code of `sightline <command> <arguments>`."""
    with pytest.raises(SystemExit) as ended:
        app([command, *arguments])
    code = ended.value.code
    assert isinstance(code, int)
    return code
