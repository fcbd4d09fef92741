"""A section of params.yaml -> a part's frozen Config dataclass, with every mistake told at once."""

from __future__ import annotations

import dataclasses
import difflib
import json
import typing
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from types import UnionType
from typing import Any, TypeVar

import yaml
from pydantic import TypeAdapter, ValidationError

from contracts.errors import ConfigError, SightlineError
from contracts.ranges import RangeError
from pipeline.settings.document import shown

T = TypeVar("T")

Problems = list[str]
Place = str | Callable[[Sequence[str]], str]

# pydantic's names of what went wrong, in the words of people who write YAML.
_KINDS = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "string_type": "text",
    "dict_type": "a mapping",
    "dataclass_type": "a mapping",
    "dataclass_exact_type": "a mapping",
    "tuple_type": "a list",
    "list_type": "a list",
    "none_required": "null",
}


def parse(cls: type[T], section: Any, where: Place, problems: Problems) -> T | None:
    """Build `cls` from `section`, strictly: no unknown key, no missing key, no silent conversion ("3" is no int).

    Args:
        cls: a dataclass; nested dataclasses are built from nested mappings, each laid over the default of its field.
        section: plain values as YAML gives them; null is an empty section.
        where: dotted path of the section, for the messages; or a function that makes one of the keys below it.
        problems: what is wrong is appended here, one text each; None is returned then.
    """
    at = where if callable(where) else lambda keys: ".".join([where, *keys])
    section = {} if section is None else section
    if not isinstance(section, Mapping):
        problems.append(f"{at([])}: must be a mapping (is {shown(section)})")
        return None
    rest, found = _over_defaults(cls, json.loads(json.dumps(section))), dict[str, None]()
    while True:
        try:
            adapter = _adapter(cls)  # type: ignore[arg-type]  # a class is hashable
            value = adapter.validate_json(json.dumps(rest), strict=True, extra="forbid")
            break
        except ValidationError as error:
            # Ranges are looked at only where all else is right: once more, without what has been told.
            told = [one for item in error.errors() for one in _explain(cls, item, again=bool(found))]
            found |= dict.fromkeys(f"{at(keys)}: {text}" for keys, text in told)
            if not [keys for keys, _ in told if _drop(rest, keys)]:
                break
        except (SightlineError, TypeError) as error:
            found[f"{at([])}: {indented(error)}"] = None
            break
    problems += found
    return None if found else value


def _over_defaults(cls: type, section: dict[str, Any]) -> dict[str, Any]:
    """`section` with the defaults of the sections in it, which may differ from those of their own class."""
    out = dict(section)
    for field in dataclasses.fields(cls):  # type: ignore[arg-type]
        own = None if field.default_factory is dataclasses.MISSING else field.default_factory
        default = own() if own is not None else field.default
        below = out.get(field.name)
        if isinstance(below, dict) and dataclasses.is_dataclass(default) and not isinstance(default, type):
            values = json.loads(json.dumps(dataclasses.asdict(default)))
            out[field.name] = merged(values, _over_defaults(type(default), below))
    return out


@cache
def _adapter(cls: Any) -> TypeAdapter[Any]:
    return TypeAdapter(cls)


def _explain(cls: type, item: Any, *, again: bool) -> list[tuple[list[str], str]]:
    """Keys and text of each mistake that one of pydantic's errors tells.

    Args:
        again: keys with mistakes were taken out before: what may follow from that is left out.
    """
    keys, kinds = _follow(cls, item["loc"])
    kind, error = item["type"], item.get("ctx", {}).get("error")
    if isinstance(error, RangeError):
        return [([*keys, n], f"must be {said} (is {shown(value)})") for n, (value, said) in error.found.items()]
    if again and (kind == "missing" or isinstance(error, SightlineError)):
        return []
    if len(kinds) > 1 and isinstance(item["input"], Mapping):
        mapping = next((getattr(one, "__name__", None) for one in kinds if dataclasses.is_dataclass(one)), None)
        if mapping not in (None, item["loc"][-1]):
            return []  # it was meant to be the mapping, whose own mistakes are told
    return [(keys, _text(cls, item, kinds, error))]


def _text(cls: type, item: Any, kinds: list[Any], error: Exception | None) -> str:
    kind = item["type"]
    if kind in ("unexpected_keyword_argument", "extra_forbidden"):
        known = _fields(_follow(cls, item["loc"][:-1])[1])
        return f"unknown key; {nearest(item['loc'][-1], known, 'known keys')}"
    if kind == "missing":
        return "missing"
    if isinstance(error, SightlineError):
        return indented(error)
    if len(kinds) > 1:
        text = "must be " + " or ".join(_said(one) for one in kinds)
    elif kind == "literal_error":
        text = f"must be one of {item['ctx']['expected'].replace(chr(39), '')}"
    else:
        text = f"must be {_KINDS[kind]}" if kind in _KINDS else item["msg"]
    return f"{text} (is {shown(item['input'])})"


def _drop(section: Any, keys: Sequence[str]) -> bool:
    """Take the entry at `keys` out, or the list that holds it; False if it is not there."""
    for i, key in enumerate(keys):
        below = section.get(key)
        if key not in section:
            return False
        if i == len(keys) - 1 or not isinstance(below, dict):
            del section[key]
            return True
        section = below
    return False


def _follow(cls: Any, location: Sequence[str | int]) -> tuple[list[str], list[Any]]:
    """pydantic's location in `cls` -> its keys, and the types that may stand there.

    Where a value may be of several types, pydantic adds the name of the one it tried: that is no key.
    """
    keys: list[str] = []
    kinds = [cls]
    for part in location:
        if len(kinds) > 1:
            fits = [one for one in kinds if getattr(one, "__name__", "") == part]
            if fits and dataclasses.is_dataclass(fits[0]) and part != location[-1]:
                kinds = fits
            continue
        keys.append(str(part))
        kinds = _below(kinds[0], part)
    return keys, kinds


def _below(kind: Any, part: str | int) -> list[Any]:
    """The types that may stand under `part` of a value of type `kind`."""
    if dataclasses.is_dataclass(kind):
        fields = {key: name for name, key in keys_of(kind).items()}
        found = typing.get_type_hints(kind).get(fields.get(str(part), ""), Any)
    else:
        found = next(iter(typing.get_args(kind)[-2 if isinstance(part, int) else -1 :]), Any)
    if typing.get_origin(found) in (typing.Union, UnionType):
        return [one for one in typing.get_args(found) if one is not type(None)]
    return [found]


def _fields(kinds: list[Any]) -> list[str]:
    return [key for kind in kinds if dataclasses.is_dataclass(kind) for key in keys_of(kind).values()]


def keys_of(cls: Any) -> dict[str, str]:
    """Each field of a dataclass with its key in YAML: the field's name, or where that is a word of Python the alias
    (`Annotated[str, pydantic.Field(alias="from")]`)."""
    hints = typing.get_type_hints(cls, include_extras=True)
    notes = {name: getattr(hints[name], "__metadata__", ()) for name in hints}
    alias = {name: getattr(note, "alias", None) for name, found in notes.items() for note in found}
    return {f.name: alias.get(f.name) or f.name for f in dataclasses.fields(cls)}


def _said(kind: Any) -> str:
    if dataclasses.is_dataclass(kind):
        return "a mapping of " + " and ".join(f.name for f in dataclasses.fields(kind))
    if typing.get_origin(kind) is typing.Literal:
        return " or ".join(map(str, typing.get_args(kind)))
    return _KINDS.get(f"{ {str: 'string'}.get(kind, getattr(kind, '__name__', '')) }_type", str(kind))


def indented(error: Exception) -> str:
    """An error's lines as one entry of a list."""
    return str(error).replace("\n", "\n    ")


def nearest(name: object, known: Sequence[str], what: str = "known") -> str:
    """What was probably meant by `name`, or all that there is."""
    near = difflib.get_close_matches(str(name), known, n=1)
    return f"did you mean {near[0]!r}?" if near else f"{what}: {', '.join(sorted(known)) or 'none'}"


def merged(base: Mapping[str, Any], override: Mapping[str, Any]) -> dict[str, Any]:
    """`override` laid over `base`, mapping by mapping."""
    out = dict(base)
    for key, value in override.items():
        below = out.get(key)
        out[key] = merged(below, value) if isinstance(below, Mapping) and isinstance(value, Mapping) else value
    return out


def raise_if(problems: Problems, file: str) -> None:
    """Raise one ConfigError that lists every problem, each once."""
    if told := dict.fromkeys(problems):
        listing = "\n".join(f"  - {problem}" for problem in told)
        raise ConfigError(f"{len(told)} mistake{'s' * (len(told) > 1)} in {file}:\n{listing}")


def one_line(value: Any) -> str:
    """A value as YAML has it in one line."""
    text = yaml.safe_dump(value, default_flow_style=True, width=10**6, sort_keys=False).strip()
    return text.removesuffix("\n...").strip()
