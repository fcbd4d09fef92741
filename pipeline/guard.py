"""What every process of this project makes sure of before it does anything: called first by each `main` and worker."""

from __future__ import annotations

import os

from contracts.errors import ConfigError

_PRIVATE = 0o077
UMASK_HELP = (
    "Files are made for the user alone; SIGHTLINE_UMASK, an octal number such as 027 or 022, shares them on purpose."
)
_FORCED = ("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD",)


def guard_process() -> None:
    """Files are made for the user alone, and weights are never unpickled.

    SIGHTLINE_UMASK, an octal number such as 027, shares what is written on purpose.

    Raises:
        ConfigError: the environment asks torch to unpickle whatever a file holds, or the umask is no octal number.
    """
    for name in _FORCED:
        if os.environ.get(name, "").lower() not in ("", "0", "false", "no"):
            raise ConfigError(
                "this variable makes a checkpoint run code that is hidden in it",
                value=os.environ[name],
                where=f"environment variable {name}",
                fix=f"unset {name}",
            )
    wanted = os.environ.get("SIGHTLINE_UMASK")
    try:
        mask = _PRIVATE if wanted is None else int(wanted, 8)
    except ValueError:
        raise ConfigError(
            "no octal number", value=wanted, where="environment variable SIGHTLINE_UMASK", allowed="077, 027, 022, ..."
        ) from None
    os.umask(mask)
