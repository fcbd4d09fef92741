"""Ranges of numbers in settings: said once beside the fields, told together with what is allowed."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from contracts.errors import ConfigError


@dataclass(frozen=True)
class Range:
    """Finite numbers from `low` to `high`, either of them left out where it is open."""

    low: float | None = None
    high: float | None = None
    open_low: bool = False
    open_high: bool = False

    def __contains__(self, value: float) -> bool:
        """False for NaN, too."""
        above = self.low is None or (value > self.low if self.open_low else value >= self.low)
        below = self.high is None or (value < self.high if self.open_high else value <= self.high)
        return above and below and math.isfinite(value)

    def __str__(self) -> str:
        low = "" if self.low is None else f"more than {self.low:.10g}" if self.open_low else f"{self.low:.10g} or more"
        high = (
            ""
            if self.high is None
            else f"less than {self.high:.10g}"
            if self.open_high
            else f"at most {self.high:.10g}"
        )
        return " and ".join(filter(None, (low, high))) or "any finite number"


COUNT = Range(1)
AMOUNT = Range(0)
POSITIVE = Range(0, open_low=True)
SHARE = Range(0, 1)
SEED = Range(0, 2**32 - 1)


class RangeError(ConfigError):
    """One or more settings out of range; `found` maps each to its value and what is allowed."""

    def __init__(self, what: str, found: Mapping[str, tuple[Any, str]] | None = None):
        super().__init__(what)
        self.found = dict(found or {})


def check_ranges(config: object, **ranges: Range) -> None:
    """Raise one `RangeError` for all fields of `config` that lie outside their ranges.

    None has no range: it stands for "not set". Of a tuple every element is checked.
    """
    found = {}
    for name, allowed in ranges.items():
        value = getattr(config, name)
        numbers = () if value is None else value if isinstance(value, tuple) else (value,)
        if any(number not in allowed for number in numbers):
            found[name] = (value, str(allowed))
    if found:
        lines = [f"{name} must be {said} (is {value})" for name, (value, said) in found.items()]
        raise RangeError("\n".join(lines), found)
