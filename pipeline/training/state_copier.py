"""Copies states to a store in the background: a store that is slow or away costs training nothing but the copy."""

from __future__ import annotations

import os
import threading
import time

from contracts.redact import redact
from pipeline.shards import stores
from pipeline.training.state_mirror import AnotherSession, StateMirror

FIRST_PAUSE_S, LONGEST_PAUSE_S = 5.0, 60.0  # between two tries while the store is away
CLOSE_S = 30.0  # how long the end of an unfinished training waits for the last copy


class StateCopier:
    """One thread, one copy at a time, always of what the folder holds then: the newest state wins.

    Each try is one of the store's requests after the other without repetition: this thread repeats the whole, and says
    once that the store is away and once that it is back.
    """

    def __init__(self, mirror: StateMirror):
        self.mirror = mirror
        self._changed = threading.Condition()
        self._wanted = False
        self._deadline: float | None = None  # set by `close`
        self._retry_at, self._pause_s, self._away = 0.0, FIRST_PAUSE_S, False
        self._thread: threading.Thread | None = None

    def ask(self) -> None:
        """A new state is there to be copied."""
        with self._changed:
            self._wanted = True
            self._changed.notify()
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="StateCopier", daemon=True)
            self._thread.start()

    def close(self, patience_s: float = CLOSE_S) -> None:
        """Give the last copy so long, then end; says so if it is not whole. With 0 s what is not sent yet is left:
        the run is finished and its copy about to be removed."""
        if self._thread is None:
            return
        with self._changed:
            self._deadline = time.monotonic() + patience_s
            self._retry_at = 0.0
            self._changed.notify()
        # A request that is under way ends with the store's own timeout.
        self._thread.join(patience_s + sum(stores.TIMEOUT_S))
        if patience_s and (self._wanted or self._thread.is_alive()):
            self._say("the newest state is not copied; it is whole in the state folder")

    def _work(self) -> None:
        while self._next():
            try:
                with stores.patience(0.0):
                    self.mirror.push(enough=self._is_late)
            except AnotherSession:
                self._say("others train this run by now; this process ends")
                os._exit(1)  # what it holds nobody wants any more
            except Exception as error:  # whatever a store, a proxy or a disk raises: training must not feel it
                self._failed(error)
            else:
                if self._away:
                    self._say("is back; the copy is whole again")
                self._away, self._pause_s, self._retry_at = False, FIRST_PAUSE_S, 0.0

    def _next(self) -> bool:
        """Wait for something to copy; False when it is time to end."""
        with self._changed:
            while True:
                now = time.monotonic()
                if self._deadline is not None and (not self._wanted or now >= self._deadline):
                    return False
                if self._wanted and now >= self._retry_at:
                    self._wanted = False
                    return True
                times = [self._retry_at] if self._wanted else []
                times += [] if self._deadline is None else [self._deadline]
                self._changed.wait(max(0.0, min(times) - now) if times else None)

    def _is_late(self) -> bool:
        return self._deadline is not None and time.monotonic() >= self._deadline

    def _failed(self, error: Exception) -> None:
        if not self._away:
            lines = str(error).splitlines() or [type(error).__name__]
            self._say(f"is away ({lines[0][:300]}); training goes on, the copy is tried again")
        with self._changed:
            self._away, self._wanted = True, True
            self._retry_at = time.monotonic() + self._pause_s
            self._pause_s = min(2 * self._pause_s, LONGEST_PAUSE_S)

    def _say(self, text: str) -> None:
        print(f"state store {redact(self.mirror.url)}: {text}", flush=True)
