"""`events.jsonl` from its reader's side: a thread of the driver that delivers what rank 0 appends.

Delivery is at least once and in order; `Run.send` may be repeated without doubling anything, so in effect it is exactly
once. How far it came lies beside the file and survives the process. This file knows nothing of MLflow.
"""

from __future__ import annotations

import contextlib
import json
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

from contracts.errors import TrainingError
from contracts.redact import redact
from pipeline.system.disk import write_text
from pipeline.training.history import read_event

MAX_METRICS, MAX_PICTURES = 1000, 32  # in one delivery
LONGEST_PAUSE_S = 30.0

Event = dict[str, Any]


class Refused(Exception):
    """The receiver will never take these events: sending them again is of no use."""


class Receiver(Protocol):
    """What the tail needs of a run."""

    run_id: str
    place: str
    flush_s: float
    patience_s: float

    def send(self, events: Sequence[Event], folder: Path) -> None: ...

    def is_back(self) -> None: ...


def say(text: str) -> None:
    print(redact(f"tracking: {text}"), file=sys.stderr, flush=True)


def first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:400]  # the cause stands at the end


class EventTail:
    """Sends what is appended to an events file to a run, from a thread, until the block is left.

    `<events>.sent.json` beside it holds how far delivery came, so a new process goes on there. A last line without
    newline waits. A run of another id starts at the first line.

    Raises (on leaving the block, unless something else is already being raised):
        TrainingError: the server stayed away beyond `patience_s`; the lines wait in the file for the next start.
    """

    def __init__(self, run: Receiver, events_file: Path):
        self.run = run
        self.file = events_file
        self.num_dropped = 0
        self._offset_file = events_file.with_suffix(".sent.json")
        self._offset = self._load_offset()
        self._pause_s = self.run.flush_s
        self._down = False
        self._stop = threading.Event()
        self._patience_s = self.run.patience_s
        self._thread = threading.Thread(target=self._work, name="EventTail", daemon=True)

    def __enter__(self) -> EventTail:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self._patience_s = min(10.0, self._patience_s)
        self._stop.set()
        self._thread.join()
        if self.num_dropped:
            say(f"{self.num_dropped} events in {self.file} were refused and are not in run {self.run.run_id}")
        if self._down and kind is None:
            raise TrainingError(
                "the MLflow server stayed away: metrics and pictures are not delivered",
                value=self.run.place,
                where=f"{self.file}, from byte {self._offset}",
                fix="start the server and run the same command again: training is kept, only the rest is sent",
            )

    def _work(self) -> None:
        while not self._stop.wait(self._pause_s):
            self._attempt()
        deadline = time.monotonic() + self._patience_s
        while not self._attempt() and time.monotonic() < deadline:
            self._pause_s = min(self._pause_s, max(0.0, deadline - time.monotonic()))
            time.sleep(self._pause_s)

    def _attempt(self) -> bool:
        """Deliver all that is there; False if the server cannot be reached."""
        try:
            while self._deliver_next():
                pass
        except Exception as error:  # whatever a driver, a socket or a proxy raises: training must not feel it
            if not self._down:
                say(f"MLflow is away ({first_line(error)}); training goes on, events wait in {self.file}")
                self._down, self._pause_s = True, 0.5
            self._pause_s = min(2 * self._pause_s, LONGEST_PAUSE_S)
            return False
        if self._down:
            say("MLflow is back; everything is delivered")
            self._down, self._pause_s = False, self.run.flush_s
            self.run.is_back()
        return True

    def _deliver_next(self) -> bool:
        events, offset = read_events(self.file, self._offset)
        if offset == self._offset:
            return False
        self._send(events)
        self._offset = offset
        write_text(self._offset_file, json.dumps({"run_id": self.run.run_id, "offset": offset}))
        return True

    def _send(self, events: list[Event]) -> None:
        """Send; where MLflow refuses for good, halve until the offending event stands alone, and drop that."""
        if not events:
            return
        try:
            self.run.send(events, self.file.parent)
        except Refused as error:
            if len(events) > 1:
                self._send(events[: len(events) // 2])
                self._send(events[len(events) // 2 :])
                return
            if not self.num_dropped:
                say(f"MLflow refuses an event: {first_line(error)} {str(events[0])[:200]}")
            self.num_dropped += 1

    def _load_offset(self) -> int:
        with contextlib.suppress(FileNotFoundError, ValueError, KeyError):
            note = json.loads(self._offset_file.read_text())
            if note["run_id"] == self.run.run_id and note["offset"] <= self.file.stat().st_size:
                return int(note["offset"])
        return 0


@contextlib.contextmanager
def tails_below(run: Receiver, folder: Path, every_s: float = 2.0) -> Iterator[None]:
    """An `EventTail` for every `*.jsonl` in `folder`, also for those that come while the block lasts.

    Raises (on leaving the block): as `EventTail`.
    """
    stop = threading.Event()
    with contextlib.ExitStack() as stack:
        known: set[Path] = set()

        def look() -> None:
            for path in sorted(folder.glob("*.jsonl")):
                if path not in known:
                    known.add(path)
                    stack.enter_context(EventTail(run, path))

        def work() -> None:
            while not stop.wait(every_s):
                look()

        thread = threading.Thread(target=work, name="EventTails", daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()
            look()


def read_events(file: Path, offset: int) -> tuple[list[Event], int]:
    """Events from byte `offset` on, as many as one delivery takes, and the offset after them.

    A line that is no event is passed over with a message. A process that died while writing leaves half a line, to
    which the next one appends: what comes after the half is still read.
    """
    events: list[Event] = []
    num_metrics = num_pictures = 0
    if not file.is_file():
        return events, offset
    with open(file, "rb") as lines:
        lines.seek(offset)
        for line in lines:
            if not line.endswith(b"\n") or num_metrics >= MAX_METRICS or num_pictures >= MAX_PICTURES:
                break
            event = _parse(line)
            if event is None:
                say(f"line at byte {offset} of {file} is not an event: skipped")
            else:
                extra = len(event["values"]) + 1 if event["kind"] == "metrics" else 0
                if num_metrics and num_metrics + extra > MAX_METRICS:
                    break
                num_metrics += extra
                num_pictures += event["kind"] == "image"
                events.append(event)
            offset += len(line)
    return events, offset


def _parse(line: bytes) -> Event | None:
    event = read_event(line)
    if event is None:
        return None
    try:
        if event["kind"] == "metrics":
            int(event["step"] or 0), int(event["time"]), [float(value) for value in event["values"].values()]
        elif event["kind"] == "image":
            event["name"], event["file"], int(event["step"] or 0)
        elif event["kind"] != "tags":
            return None
        return event if event["kind"] == "image" or isinstance(event["values"], dict) else None
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError):
        return None
