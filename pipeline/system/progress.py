"""What long work tells: one progress bar, a bar in a terminal or a line every few seconds in a log, and notes."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from contracts.redact import redact


def note(text: str) -> None:
    """Tell what the user should know though it is no error."""
    print(f"note: {redact(text)}", file=sys.stderr, flush=True)


@contextmanager
def progress_bar(title: str, total: int | None) -> Iterator[Callable[[int], None]]:
    """Yield a function that advances the bar by the number of items done. `total` None: not known."""
    if sys.stderr.isatty():
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, transient=True) as progress:
            task = progress.add_task(title, total=total)
            yield lambda count: progress.advance(task, count)
        return
    done, last = 0, time.monotonic()

    def advance(count: int) -> None:
        nonlocal done, last
        done += count
        if time.monotonic() - last > 5:
            last = time.monotonic()
            print(f"{title}: {done}" + (f"/{total}" if total else ""), file=sys.stderr, flush=True)

    yield advance
