"""`dvc repro`, its stages counted and told in a line each, beside the process that they start from (`warm.py`)."""

from __future__ import annotations

import contextlib
import logging
import re
import signal
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

import psutil

from pipeline.system import warm

_RUNS, _SKIPPED = re.compile(r"Running stage '(.+)':"), re.compile(r"(?:Stage )?'(.+)' (?:didn't change|is cached)")
_INTERRUPTED = 130
# dash, told by Ctrl-C, ends by the signal itself after its stage
_ENDED_BY_CTRL_C = re.compile(rf"exited with (?:{_INTERRUPTED}|-{signal.SIGINT.value})\b")
_SHELLS = {"sh", "bash", "dash", "zsh", "fish", "ksh"}
_TOLD_BY = ("dvc.cli", "dvc.stage.run", "dvc.stage", "dvc.stage.cache", "dvc.dvcfile", "dvc.output")
_SLOW = {"train", "evaluate", "register"}  # to import
_BEFORE = {"fetch", "shard", "vocab"}  # where one of those follows, the libraries can be imported meanwhile


def repro(arguments: Sequence[str]) -> int:
    """Run what changed.

    Args:
        arguments: those of `dvc repro`.

    Returns:
        DVC's exit code, or 130 where a stage was interrupted.
    """
    from dvc.cli import main
    from dvc.repo import reproduce

    signal.signal(signal.SIGTERM, _pass_on)
    with tempfile.TemporaryDirectory(prefix="slwarm-") as folder, warm.started(Path(folder)) as start:
        steps = _Steps(start)
        planned = reproduce.plan_repro

        def counted(*given: Any, **named: Any) -> Any:
            plan = planned(*given, **named)
            steps.plan([stage.addressing for stage in plan])
            return plan

        reproduce.plan_repro = counted  # the only place where DVC knows how many there will be
        loggers = [logging.getLogger(name) for name in _TOLD_BY]
        for logger in loggers:
            logger.addFilter(steps)
        try:
            code = int(main(["repro", *arguments]))
            return _INTERRUPTED if steps.interrupted else code
        finally:
            reproduce.plan_repro = planned
            for logger in loggers:
                logger.removeFilter(steps)
            steps.tell_end()


def _pass_on(number: int, frame: FrameType | None) -> None:
    """The stage ends in its own way, its own processes with it, and DVC then; where none runs, as Ctrl-C does."""
    stages: list[psutil.Process] = []
    for child in psutil.Process().children():
        with contextlib.suppress(psutil.NoSuchProcess):
            if warm.__name__ not in child.cmdline():
                stages += child.children() if child.name() in _SHELLS else [child]
    for stage in stages:
        with contextlib.suppress(psutil.NoSuchProcess):
            stage.terminate()
    if not stages:
        signal.default_int_handler(number, frame)


class _Steps(logging.Filter):
    """DVC's lines of a stage, its command and its lock file become one: `[7/32] train captioning`."""

    def __init__(self, start: Callable[[], None]):
        super().__init__()
        self.total, self.interrupted = 0, False
        self._start = start
        self._is_slow = False
        self._ran = self._skipped = 0

    def plan(self, addresses: Sequence[str]) -> None:
        """What DVC will look at, as it calls its stages."""
        self.total = len(addresses)
        self._is_slow = any(_parts(address)[0] in _SLOW for address in addresses)

    def filter(self, record: logging.LogRecord) -> bool:
        text = record.getMessage()
        error = record.exc_info[1] if record.exc_info else None
        if error is not None and _ENDED_BY_CTRL_C.search(str(error.__cause__)):
            self.interrupted = True  # the stage has said so
            return False
        if record.levelno != logging.INFO:
            return not text.endswith("is empty.")  # a list of what was dropped may well be
        if found := _RUNS.match(text):
            self._ran += 1
            stage, name = _parts(found[1])
            if stage in _SLOW or (stage in _BEFORE and self._is_slow):
                self._start()
            of = f"/{self.total}" if self.total else ""
            print(f"[{self._ran + self._skipped}{of}] {stage} {name}".rstrip(), flush=True)
            return False
        if _SKIPPED.match(text):
            self._skipped += 1
            return False
        return not text.startswith(("> ", "Updating lock file", "Generating lock file"))

    def tell_end(self) -> None:
        if self._ran or self._skipped:
            print(f"{self._ran} stages ran, {self._skipped} were up to date", flush=True)


def _parts(address: str) -> tuple[str, str]:
    """`lecture/dvc.yaml:train@run` -> train, run"""
    stage, _, name = address.rpartition("/")[2].rpartition(":")[2].partition("@")
    return stage, name
