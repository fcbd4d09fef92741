"""One training of a sweep in this process: `fit` in a thread, its validated epochs as they come, and a way to stop it.

A training that is stopped writes a state first, and the same one goes on from there; one whose process dies goes on
from its last state. What came before is told again then, so who listens needs no memory of its own.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from contracts.errors import SightlineError

_LOOK_EVERY_S = 0.1
_METRIC = "val/"


@dataclass(frozen=True)
class Job:
    """A training that is to be done.

    Attributes:
        number: of the trial, from 0.
        arguments: of `pipeline.training.fit.fit`, plain values and absolute paths.
    """

    number: int
    arguments: dict[str, Any]


class Director(Protocol):
    """Who decides what is trained and what of it is worth going on with. Called from one thread at a time."""

    def next_job(self) -> Job | None:
        """What to train next; None: nothing more."""
        ...

    def reported(self, number: int, epochs: int, values: dict[str, float]) -> bool:
        """Metrics of validation after so many epochs, by name. True: that is enough of it."""
        ...

    def ended(self, number: int, failure: str | None) -> None:
        """It came to its end, was stopped because `reported` said so, or cannot go on, for the reason `failure`."""
        ...


class Training:
    """`fit` under way in a thread of this process, of which it must be the only one.

    Args:
        arguments: of `fit`. use_gpu: where it runs.
    """

    def __init__(self, arguments: dict[str, Any], *, use_gpu: bool):
        from pipeline.training.run_files import EVENTS
        from pipeline.training.stopping import StopRequest

        StopRequest.asked.clear()  # a training that ended before it saw the wish has left it
        self._stop = StopRequest.asked
        self._state = Path(arguments["state"])
        self._events, self._offset, self._epochs = self._state / EVENTS, 0, 0
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._work, args=(arguments, use_gpu), daemon=True)
        self._thread.start()

    def _work(self, arguments: dict[str, Any], use_gpu: bool) -> None:
        from pipeline.training.checkpoints import read_note
        from pipeline.training.fit import Placement, fit
        from pipeline.training.history import spending
        from pipeline.training.run_files import DONE, FAILURE
        from pipeline.training.stopping import Stopped

        try:
            if not read_note(self._state / DONE):
                (self._state / FAILURE).unlink(missing_ok=True)
                with spending(self._state, 0):
                    fit(**arguments, placement=Placement(use_gpu=use_gpu))
        except Stopped:
            pass
        except BaseException as error:  # told to who waits in the other thread
            self._error = error

    def next_epoch(self) -> tuple[int, dict[str, float]] | None:
        """Wait for the next validated epoch.

        Returns:
            How many epochs are trained, and the metrics of validation by name; None where training has ended.

        Raises:
            SightlineError, or what else training raised.
        """
        while True:
            alive = self._thread.is_alive()  # before the file is read: what was written last must be seen
            found = self._read()
            if found is not None:
                return found
            if not alive:
                if self._error is not None:
                    raise self._error
                return None
            time.sleep(_LOOK_EVERY_S)

    def _read(self) -> tuple[int, dict[str, float]] | None:
        from pipeline.training.history import read_event

        if not self._events.is_file():
            return None
        with open(self._events, "rb") as lines:
            lines.seek(self._offset)
            for line in lines:
                if not line.endswith(b"\n"):
                    return None
                self._offset += len(line)
                event = read_event(line) or {}
                if event.get("kind") != "metrics":
                    continue
                values = {
                    name.removeprefix(_METRIC): float(value)
                    for name, value in event["values"].items()
                    if name.startswith(_METRIC)
                }
                epochs = int(event.get("epoch", -1)) + 1
                if values and epochs > self._epochs:  # a repetition after a failure is no news
                    self._epochs = epochs
                    return epochs, values
        return None

    def stop(self, patience_s: float = 60.0) -> None:
        """Let it write a state after the step that it is at, and end; what takes longer is left to its process' end."""
        if self._thread.is_alive():
            self._stop.set()
            self._thread.join(patience_s)


def run_here(director: Director, *, use_gpu: bool, deadline: float | None) -> None:
    """All trials in this process, one after the other, without Ray.

    Args:
        deadline: of `time.monotonic`, after which nothing goes on.
    """
    while deadline is None or time.monotonic() < deadline:
        job = director.next_job()
        if job is None:
            return
        training = Training(job.arguments, use_gpu=use_gpu)
        failure: str | None = None
        try:
            while (epoch := training.next_epoch()) is not None:
                if director.reported(job.number, *epoch):
                    break
                if deadline is not None and time.monotonic() > deadline:
                    return  # it is not ended: the next call goes on with it
        except SightlineError as error:
            failure = str(error)
        finally:
            training.stop()
        director.ended(job.number, failure)
