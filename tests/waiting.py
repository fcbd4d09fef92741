"""Waiting for what other processes do."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")

# How long things take is the machine's affair, and other tests run beside: this ends only what would hang for ever.
PATIENCE_S = 1200.0


def until(condition: Callable[[], T], told: Callable[[], Any] = str) -> T:
    """What `condition` gives as soon as it is true of it; `told` says what stood there if it never is."""
    deadline = time.monotonic() + PATIENCE_S
    while not (found := condition()):
        assert time.monotonic() < deadline, f"it did not happen: {told()}"
        time.sleep(0.02)
    return found
