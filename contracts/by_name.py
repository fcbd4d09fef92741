"""Annotations as JSON by name, and back: what is not said is absent, and what no class declares is refused.

Knows dataclasses of texts, numbers and tuples of them. The annotation of a field, as text, says how it is read.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields
from functools import cache
from typing import Any, TypeVar, get_args

import numpy as np

from contracts.annotations import Direction, Role

T = TypeVar("T")


def as_plain(value: Any) -> Any:
    """Texts, numbers, lists and dicts by name, in the order in which a class declares its fields."""
    if isinstance(value, str | int | float) or value is None:
        return value
    if isinstance(value, tuple | list):
        return [part if isinstance(part, str | float) else as_plain(part) for part in value]
    if isinstance(value, np.ndarray):
        return value.tolist()
    found = ((name, getattr(value, name), default) for name, default in _defaults(value.__class__))
    return {name: as_plain(part) for name, part, default in found if default is MISSING or part != default}


@cache
def _defaults(cls: type) -> tuple[tuple[str, Any], ...]:
    """Name and default of each field; MISSING where it must be said."""
    return tuple((field.name, field.default) for field in fields(cls))


def texts(value: Any) -> tuple[str, ...]:
    return tuple(text(part) for part in _listed(value))


def text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r:.40} is no text")
    return value


def number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise TypeError(f"{value!r:.40} is no finite number")
    return value


def numbers(value: Any) -> tuple[float, ...]:
    return tuple(number(part) for part in _listed(value))


def whole(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{value!r:.40} is no whole number")
    return value


def identifier(value: Any) -> int | str:
    return value if isinstance(value, str) else whole(value)


def many(read: Callable[[Any], T]) -> Callable[[Any], tuple[T, ...]]:
    """Reads a list, each part of it by `read`."""
    return lambda value: tuple(read(part) for part in _listed(value))


def item(cls: type[T]) -> Callable[[Any], T]:
    """Reads one dataclass of the fields that `_READERS` knows."""
    readers = {field.name: _READERS[field.type] for field in fields(cls)}  # type: ignore[arg-type, index]

    def read(value: Any) -> T:
        if not isinstance(value, Mapping):
            raise TypeError(f"{value!r:.40} is no {cls.__name__}")
        return cls(**{name: readers[name](part) for name, part in value.items()})

    return read


def _listed(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise TypeError(f"{value!r:.40} is no list")
    return value


def _pair(value: Any) -> tuple[int, int]:
    first, second = _listed(value)
    return whole(first), whole(second)


def _box(value: Any) -> tuple[float, float, float, float]:
    x1, y1, x2, y2 = numbers(value)
    return x1, y1, x2, y2


def _one_of(choices: Any) -> Callable[[Any], str]:
    def read(value: Any) -> str:
        if text(value) not in get_args(choices):
            raise ValueError(f"{value!r:.40} is none of {get_args(choices)}")
        return value

    return read


_READERS: dict[str, Callable[[Any], Any]] = {
    "str": text,
    "int | str": identifier,
    "int | None": whole,
    "float": number,
    "Role": _one_of(Role),
    "Direction": _one_of(Direction),
    "tuple[str, ...]": texts,
    "tuple[Box, ...]": many(_box),
    "tuple[Link, ...]": many(_pair),
}
