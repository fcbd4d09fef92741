"""What long work tells: bars in a terminal or a line every few seconds in a log, and notes.

Training may run in another process, whose output comes to this one's: it tells its steps as lines that `steps_shown`
knows by their first character and shows in its own way.
"""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any, TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from contracts.redact import redact

_MARK = "\x1e"  # ASCII's record separator
_LINE_EVERY_S = 10.0


def note(text: str) -> None:
    """Tell what the user should know though it is no error."""
    print(f"note: {redact(text)}", file=sys.stderr, flush=True)


@contextmanager
def progress_bar(title: str, total: int | None) -> Iterator[Callable[[int], None]]:
    """Yield a function that advances the bar by the number of items done. `total` None: not known."""
    if sys.stderr.isatty():
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        # Of stdout only what goes to the same terminal passes by the bar: elsewhere it is data.
        console = Console(stderr=True)
        with Progress(*columns, console=console, transient=True, redirect_stdout=sys.stdout.isatty()) as progress:
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


@dataclass(frozen=True, kw_only=True)
class Steps:
    """How far a training is: `done` of `total` steps, `text` beside them. `keep`: a line to be kept, as of an epoch."""

    title: str
    done: int
    total: int
    text: str
    keep: bool = False


def tell(steps: Steps) -> None:
    """From the process that does them."""
    print(_MARK + json.dumps(asdict(steps)), flush=True)


@contextmanager
def steps_shown() -> Iterator[None]:
    """Show what is told meanwhile on this process's stdout: one bar in a terminal, and the lines to be kept; a line
    every few seconds in a log."""
    with contextlib.ExitStack() as stack:
        show = _lines(sys.stdout)
        if sys.stdout.isatty():
            columns = (TextColumn("{task.description}"), BarColumn(bar_width=20), TextColumn("{task.fields[text]}"))
            progress = stack.enter_context(Progress(*columns, transient=True))  # prints of others stand above it
            show = _bar(progress)
        before, sys.stdout = sys.stdout, _Picked(sys.stdout, show)
        stack.callback(setattr, sys, "stdout", before)
        yield


@contextmanager
def steps_hidden() -> Iterator[None]:
    """Leave out what is told meanwhile: of several trainings at once, nobody could follow it."""
    before, sys.stdout = sys.stdout, _Picked(sys.stdout, lambda steps: None)
    try:
        yield
    finally:
        sys.stdout = before


def _lines(out: TextIO) -> Callable[[Steps], None]:
    last = 0.0

    def show(steps: Steps) -> None:
        nonlocal last
        if steps.keep or time.monotonic() - last > _LINE_EVERY_S:
            last = time.monotonic()
            print(f"{steps.title}  {steps.text}", file=out, flush=True)

    return show


def _bar(progress: Progress) -> Callable[[Steps], None]:
    task: TaskID | None = None

    def show(steps: Steps) -> None:
        nonlocal task
        if task is None:
            task = progress.add_task(steps.title, total=steps.total, text="")
        progress.update(task, completed=steps.done, total=steps.total, text=steps.text)
        if steps.keep:
            progress.console.print(f"{steps.title}  {steps.text}", markup=False, highlight=False)

    return show


class _Picked:
    """A text stream without the lines that tell steps; everything else of it is the stream's own."""

    def __init__(self, stream: TextIO, show: Callable[[Steps], None]):
        self._stream, self._show, self._rest = stream, show, ""

    def write(self, text: str) -> int:
        if _MARK in text or self._rest:
            *whole, self._rest = (self._rest + text).split("\n")
            for line in whole:
                self._line(line)
            if not self._rest.startswith(_MARK):
                rest, self._rest = self._rest, ""
                self._stream.write(rest)
        else:
            self._stream.write(text)
        return len(text)

    def _line(self, line: str) -> None:
        before, mark, told = line.partition(_MARK)
        if not mark:
            self._stream.write(f"{line}\n")
            return
        if before:  # another process's, without its end
            self._stream.write(f"{before}\n")
        with contextlib.suppress(ValueError, TypeError):  # cut by the death of who told it
            self._show(Steps(**json.loads(told)))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
