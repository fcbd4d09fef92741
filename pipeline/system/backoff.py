"""One way to do again what failed for a reason that may pass: after pauses that double, until patience ends.

What passes, what is said of it, and what a failure that stays is told as, is the caller's.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")

_random = random.SystemRandom()  # drawing from the shared generator would change what training draws


class GaveUp(Exception):
    """Patience ended.

    Attributes:
        error: the last failure. attempts: how many there were. tried_s: seconds from the first one's start.
    """

    def __init__(self, error: Exception, attempts: int, tried_s: float):
        super().__init__(str(error))
        self.error, self.attempts, self.tried_s = error, attempts, tried_s


@dataclass(frozen=True, kw_only=True)
class Backoff:
    """How long to wait between attempts, and when to end.

    Attributes:
        first_s: the pause after the first failure; doubled after each further one, up to `longest_s`.
        patience_s: no attempt begins later than so many seconds after the first.
        attempts: no more than so many, in a row where attempts may make progress.
        is_spread: each pause is cut to between a half and the whole of it, by chance: or all workers of a cluster come
            back in the same moment.
    """

    first_s: float
    longest_s: float = math.inf
    patience_s: float = math.inf
    attempts: float = math.inf
    is_spread: bool = False

    def run(
        self,
        work: Callable[[], T],
        *,
        passes: Callable[[Exception], bool],
        told: Callable[[Exception], None] | None = None,
        least_s: Callable[[Exception], float] | None = None,
        progress: Callable[[], float] | None = None,
    ) -> T:
        """What `work()` returns, once it does.

        Args:
            passes: whether this failure may pass; any other is raised at once, as it is.
            told: called once, after the first failure, before the pause.
            least_s: the least pause after this failure, which a server asked for; no longer than `longest_s`.
            progress: how far the work has come: attempts and pauses are counted anew after one that came further.

        Raises:
            GaveUp: patience ended; from the last failure.
        """
        started, failures, idle = time.monotonic(), 0, 0
        while True:
            before = progress() if progress is not None else 0.0
            try:
                return work()
            except Exception as error:
                if not passes(error):
                    raise
                failures += 1
                idle = 0 if progress is not None and progress() > before else idle + 1
                pause_s = self._pause_s(idle, least_s(error) if least_s is not None else 0.0)
                tried_s = time.monotonic() - started
                if idle >= self.attempts or tried_s + pause_s > self.patience_s:
                    raise GaveUp(error, failures, tried_s) from error
                if told is not None and failures == 1:
                    told(error)
            time.sleep(pause_s)

    def _pause_s(self, idle: int, least_s: float) -> float:
        doubled = self.first_s * 2.0 ** min(max(0, idle - 1), 60)  # beyond that a float would overflow
        pause_s = min(self.longest_s, max(doubled, least_s))
        return pause_s * _random.uniform(0.5, 1.0) if self.is_spread else pause_s
