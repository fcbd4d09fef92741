"""A section of params.yaml -> a part's frozen Config dataclass, with every mistake told at once."""

from __future__ import annotations

import dataclasses
import difflib
import json
import typing
from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from contracts.errors import ConfigError, SightlineError

T = TypeVar("T")

Problems = list[str]


def parse(cls: type[T], section: Mapping[str, Any], where: str, problems: Problems) -> T | None:
    """Build `cls` from `section`, strictly: no unknown key, no missing key, no silent conversion ("3" is no int).

    Args:
        cls: a dataclass; nested dataclasses are built from nested mappings.
        section: plain values as YAML gives them.
        where: dotted path of the section, for the messages.
        problems: what is wrong is appended here, one text each; None is returned then.
    """
    if not isinstance(section, Mapping):
        problems.append(f"{where}: must be a mapping, is {section!r}")
        return None
    try:
        return TypeAdapter(cls).validate_json(json.dumps(section), strict=True, extra="forbid")
    except ValidationError as error:
        for item in error.errors():
            problems.append(_explain(cls, where, item))
    except (SightlineError, TypeError) as error:
        problems.append(f"{where}: {error}")
    return None


def _explain(cls: type, where: str, item: Any) -> str:
    path = ".".join([where, *(str(part) for part in item["loc"])])
    if item["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
        known = _fields_at(cls, item["loc"][:-1])
        near = difflib.get_close_matches(str(item["loc"][-1]), known, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else f"; known keys: {', '.join(sorted(known))}"
        return f"{path}: unknown key{hint}"
    if item["type"] == "missing":
        return f"{path}: missing"
    return f"{path}: {item['msg']} (is {item['input']!r})"


def _fields_at(cls: Any, location: tuple) -> list[str]:
    """Names of the fields of the dataclass nested in `cls` at `location`."""
    for part in location:
        found = typing.get_type_hints(cls).get(str(part)) if cls else None
        candidates = [found, *typing.get_args(found)]
        cls = next((c for c in candidates if dataclasses.is_dataclass(c)), None)
    return [f.name for f in dataclasses.fields(cls)] if dataclasses.is_dataclass(cls) else []


def merged(base: Mapping[str, Any], override: Mapping[str, Any]) -> dict[str, Any]:
    """`override` laid over `base`, mapping by mapping."""
    out = dict(base)
    for key, value in override.items():
        below = out.get(key)
        out[key] = merged(below, value) if isinstance(below, Mapping) and isinstance(value, Mapping) else value
    return out


def raise_if(problems: Problems, file: str) -> None:
    """Raise one ConfigError that lists every problem."""
    if problems:
        listing = "\n".join(f"  - {problem}" for problem in problems)
        raise ConfigError(f"{len(problems)} mistake{'s' * (len(problems) > 1)} in {file}:\n{listing}")
