"""The one back-off: which pauses, when patience ends, and what is raised then."""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path

import pytest

from contracts.errors import DataError
from pipeline.system import backoff, reading
from pipeline.system.backoff import Backoff, GaveUp


class Clock:
    """Time that passes in pauses alone."""

    def __init__(self) -> None:
        self.now, self.pauses = 100.0, []

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(backoff, "time", clock)
    return clock


def failing(times: int, error: Exception) -> Callable[[], str]:
    left = [error] * times

    def work() -> str:
        if left:
            raise left.pop()
        return "done"

    return work


def always(error: Exception) -> bool:
    return True


def test_pauses_double_up_to_the_longest(clock):
    assert Backoff(first_s=0.5, longest_s=3.0).run(failing(5, OSError()), passes=always) == "done"
    assert clock.pauses == [0.5, 1.0, 2.0, 3.0, 3.0]


def test_a_failure_that_stays_is_raised_at_once_as_it_is(clock):
    error = PermissionError("no")
    with pytest.raises(PermissionError) as caught:
        Backoff(first_s=1.0).run(failing(1, error), passes=lambda e: not isinstance(e, PermissionError))
    assert caught.value is error and clock.pauses == []


def test_no_attempt_begins_after_patience_has_ended(clock):
    with pytest.raises(GaveUp, match="away") as caught:
        Backoff(first_s=1.0, patience_s=10.0).run(failing(99, OSError("away")), passes=always)
    assert clock.pauses == [1.0, 2.0, 4.0]  # the next would end at 15
    assert (caught.value.attempts, caught.value.tried_s) == (4, 7.0)
    assert caught.value.__cause__ is caught.value.error


def test_attempts_are_counted_anew_after_progress(clock):
    done = [0]

    def work() -> None:
        done[0] += done[0] < 3
        raise OSError

    with pytest.raises(GaveUp) as caught:
        Backoff(first_s=1.0, attempts=3).run(work, passes=always, progress=lambda: done[0])
    assert clock.pauses == [1.0, 1.0, 1.0, 1.0, 2.0]
    assert caught.value.attempts == 6


def test_a_server_may_ask_for_a_longer_pause_up_to_the_longest(clock):
    asked = iter([7.0, 0.0, 99.0])
    work = failing(3, OSError())
    Backoff(first_s=1.0, longest_s=60.0).run(work, passes=always, least_s=lambda error: next(asked))
    assert clock.pauses == [7.0, 2.0, 60.0]


def test_the_first_failure_is_told_once(clock):
    said: list[str] = []
    work = failing(3, OSError("away"))
    Backoff(first_s=1.0).run(work, passes=always, told=lambda error: said.append(str(error)))
    assert said == ["away"]


def test_spread_pauses_differ_and_stay_between_a_half_and_the_whole(clock):
    Backoff(first_s=8.0, longest_s=8.0, is_spread=True).run(failing(20, OSError()), passes=always)
    assert all(4.0 <= pause <= 8.0 for pause in clock.pauses) and len(set(clock.pauses)) > 10


def test_pauses_stay_finite_however_long_it_takes(clock):
    Backoff(first_s=1.0, longest_s=2.0).run(failing(2000, OSError()), passes=always)
    assert clock.pauses[-1] == 2.0


def test_reading_a_file_is_tried_five_times_and_absence_is_told_at_once(clock):
    def broken() -> None:
        raise OSError(errno.EIO, "Input/output error")

    with pytest.raises(DataError, match="tried 5 times"):
        reading.patiently(broken, Path("/data/a.jpg"))
    assert clock.pauses == [0.5, 1.0, 2.0, 4.0]
    for error, raised in ((FileNotFoundError(errno.ENOENT, "x"), OSError), (PermissionError(errno.EACCES, "x"), None)):
        with pytest.raises(raised or DataError):
            reading.patiently(failing(1, error), Path("/data/a.jpg"))
    assert len(clock.pauses) == 4
