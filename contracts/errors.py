"""The two errors that a user can cause. Everything else that raises is a defect of ours."""

from __future__ import annotations

from contracts.redact import redact

_UNSET = object()


class SightlineError(Exception):
    """An error told to the user in full: what is wrong, the value, where, what is allowed, what to do.

    Attributes hold the parts, so that callers can print or count them without parsing the text. Secrets in urls are
    redacted in all of them.
    """

    def __init__(self, what: str, *, value: object = _UNSET, where: str = "", allowed: str = "", fix: str = ""):
        what, where, allowed, fix = (redact(text) for text in (what, where, allowed, fix))
        self.what, self.where, self.allowed, self.fix = what, where, allowed, fix
        lines = [what if value is _UNSET else f"{what}: {redact(repr(value))}"]
        lines += [
            f"  {label}: {text}" for label, text in (("where", where), ("allowed", allowed), ("fix", fix)) if text
        ]
        super().__init__("\n".join(lines))


class ConfigError(SightlineError, ValueError):
    """params.yaml, the command line or the environment asks for something that cannot be done.

    A ValueError, so that the parser of settings goes on and tells all of them at once.
    """


class DataError(SightlineError):
    """Input data or a file derived from it is missing, damaged or contradicts itself."""


class TrainingError(SightlineError):
    """Training cannot go on: a loss that is not finite, workers that died or hang."""
