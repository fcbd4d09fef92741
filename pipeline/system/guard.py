"""What every process of this project makes sure of before it does anything: called first by each `main` and worker."""

from __future__ import annotations

import atexit
import ctypes
import gc
import os
import re
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from contracts.errors import ConfigError, SightlineError
from contracts.redact import redact_tracebacks_and_logs

_PRIVATE = "077"
UMASK_HELP = (
    "Files are made for the user alone; SIGHTLINE_UMASK, an octal number such as 027 or 022, shares them on purpose."
)
_FORCED = ("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD",)
_PR_SET_PDEATHSIG = 1  # prctl(2)


@contextmanager
def ended_plainly(interrupted: str = "interrupted") -> Iterator[None]:
    """Around a command's work: exit code 2 for an error that the user can mend (told in full, without a traceback), 130
    when interrupted, which is told in the given words."""
    try:
        yield
    except SightlineError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
        sys.exit(2)
    except KeyboardInterrupt:
        print(interrupted, file=sys.stderr, flush=True)
        sys.exit(130)


def end_on_sigterm() -> None:
    """SIGTERM ends this process as Ctrl-C does, but once: a caller, a cluster and a lost DVC each send theirs, and none
    may disturb the orderly end that the first one began."""

    def end(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGTERM, lambda *_: None)  # not SIG_IGN, which processes started meanwhile would keep
        signal.default_int_handler(number, frame)

    signal.signal(signal.SIGTERM, end)


def guard_process() -> None:
    """Files are made for the user alone, weights are never unpickled, and no traceback or log shows a secret.

    SIGHTLINE_UMASK, an octal number such as 027, shares what is written on purpose.

    Raises:
        ConfigError: the environment asks torch to unpickle whatever a file holds, or the umask would shut out the user.
    """
    redact_tracebacks_and_logs()
    # At its end Python looks for garbage among all that torch and MLflow made: two seconds of each stage.
    atexit.register(gc.freeze)
    for name in _FORCED:
        if os.environ.get(name, "").lower() not in ("", "0", "false", "no"):
            raise ConfigError(
                "this variable makes a checkpoint run code that is hidden in it",
                value=os.environ[name],
                where=f"environment variable {name}",
                fix=f"unset {name}",
            )
    wanted = os.environ.get("SIGHTLINE_UMASK", _PRIVATE)
    if not re.fullmatch("0?0[0-7]{2}", wanted):
        raise ConfigError(
            "must be an octal number that leaves files to the user",
            value=wanted,
            where="environment variable SIGHTLINE_UMASK",
            allowed="077, 027, 022, ...",
        )
    os.umask(int(wanted, 8))


def end_with_parent() -> None:
    """Let the kernel kill this process when the one that started it is gone (Linux; elsewhere nothing happens).

    A process that is stopped (SIGSTOP, a debugger) sees no closed socket and no signal but SIGKILL: it would stay for
    ever, with its memory.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
