"""A part's `Config` -> a table for people who write params.yaml: setting, what may stand there, default, meaning.

Types and defaults are the dataclass's own, ranges what its `__post_init__` checks, and the meaning is what its
docstring says of the field.
"""

from __future__ import annotations

import dataclasses
import inspect
import json
import re
import typing
from contextlib import ExitStack, suppress
from itertools import pairwise
from types import NoneType, UnionType
from typing import Any, Literal
from unittest.mock import patch

import yaml

from contracts.ranges import Range
from docs.hooks.shared_words import WORDS
from pipeline.settings.archives import DownloadConfig
from pipeline.settings.parse import keys_of
from pipeline.settings.sections import ClusterConfig, DatasetConfig, WorkerRange
from pipeline.settings.train_config import StageConfig

# Of what has no defaults, or checks a range only where a number stands: some values that are right.
RIGHT: dict[type, dict[str, Any]] = {
    ClusterConfig: {"num_workers": 1},
    DatasetConfig: {"origin": "local", "input": "data", "sources": {"coco": {}}},
    DownloadConfig: {"archives": ("coco_val2017",)},
    StageConfig: {"epochs": 1},
    WorkerRange: {"min": 1, "max": 2},
}
_KINDS = {
    int: "whole number",
    float: "number",
    str: "text",
    bool: "`true`, `false`",
    NoneType: "`null`",
    Any: "any value",
}
_SENTENCE = re.compile(r"(?<=[.!?])\s+(?=[A-Z`\"(])")
_SECTION = re.compile(r"^(?:Args|Attributes):\n((?:[ ]+.*\n?|\n)+)", re.MULTILINE)
_ENTRY = re.compile(r"(?:^|(?<=\. ))((?:\w+)(?:, \w+)*): ", re.MULTILINE)


@dataclasses.dataclass(frozen=True)
class Setting:
    """One field: `kind` and `default` in Markdown, `allowed` the range in words, `meaning` a text or empty."""

    name: str
    kind: str
    default: str
    allowed: str
    meaning: str


def settings_of(config: type) -> list[Setting]:
    """The fields of a Config in their order."""
    hints, ranges, said = typing.get_type_hints(config), ranges_of(config), meanings_of(config)
    keys = keys_of(config)
    return [
        Setting(
            name=keys[field.name],
            kind=kind_of(hints[field.name]),
            default=_default(field),
            allowed=str(ranges[field.name]) if field.name in ranges else "",
            meaning=said.get(keys[field.name])
            or WORDS.get(f"{config.__name__}.{field.name}")
            or WORDS.get(field.name, ""),
        )
        for field in dataclasses.fields(config)
    ]


def table(config: type) -> str:
    """Markdown; a line of text where there is nothing to set."""
    rows = settings_of(config)
    if not rows:
        return "Nothing to set.\n"
    lines = ["| setting | what may stand there | default | meaning |", "| --- | --- | --- | --- |"]
    for row in rows:
        kind = f"{row.kind}; {row.allowed}" if row.allowed else row.kind
        cells = (f"`{row.name}`", kind, row.default, row.meaning)
        lines.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |")
    return "\n".join(lines) + "\n"


def ranges_of(config: type) -> dict[str, Range]:
    """What `check_ranges` is asked about this Config, wherever in its classes that is."""
    found: dict[str, Range] = {}
    right = RIGHT.get(config, {})
    one = object.__new__(config)
    for field in dataclasses.fields(config):
        factory = field.default_factory
        default = factory() if factory is not dataclasses.MISSING else field.default
        object.__setattr__(one, field.name, right.get(field.name, None if default is dataclasses.MISSING else default))
    with ExitStack() as stack:
        for base in config.__mro__:
            if (check := vars(base).get("__post_init__")) and "check_ranges" in check.__globals__:
                note = lambda _, **ranges: found.update(ranges)  # noqa: E731
                stack.enter_context(patch.dict(check.__globals__, check_ranges=note))
        with suppress(Exception):  # what is not set may fail after its ranges
            one.__post_init__()
    return found


def meanings_of(config: type) -> dict[str, str]:
    """Field -> what the docstring says of it: its entry under Args or Attributes, else the sentences that name it in
    backticks. A Config says of a field more than the one that it inherits from."""
    said: dict[str, str] = {}
    for base in reversed([base for base in config.__mro__ if dataclasses.is_dataclass(base)]):
        text = inspect.cleandoc(base.__doc__ or "")
        listed = "\n".join(inspect.cleandoc(section) for section in _SECTION.findall(text))
        entries = _entries(listed)
        prose = _SENTENCE.split(" ".join(_SECTION.sub("", text).split()))
        for name in keys_of(base).values():
            about = [one for one in prose if re.match(rf"\W*`{name}[`:]", one)]
            about = about or [one for one in prose if re.search(rf"`{name}[`:]", one)]
            if text := entries.get(name) or " ".join(about):
                said[name] = _plain(re.sub(rf"^`{name}`(?: is| are|:) ", "", text))
    return said


def _plain(text: str) -> str:
    """As a sentence of Markdown, in the words of YAML."""
    outside = re.split(r"(`[^`]*`)", text[0].upper() + text[1:])
    escaped = [part if part.startswith("`") else part.replace("<", "&lt;").replace("*", r"\*") for part in outside]
    return re.sub(r"\bNone\b", "null", "".join(escaped))


def _entries(listed: str) -> dict[str, str]:
    """Of `name: text`, or `name, other: text`, also several in one line."""
    found: dict[str, str] = {}
    unfolded = re.sub(r"\n[ ]+", " ", listed)
    for line in unfolded.splitlines():
        cut = [*_ENTRY.finditer(line), None]
        for match, following in pairwise(cut):
            if match is not None:
                text = line[match.end() : following.start() if following else None].strip()
                found |= dict.fromkeys(match[1].split(", "), text)
    return found


def kind_of(hint: Any) -> str:
    """In the words of people who write YAML."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        return ", ".join(f"`{value}`" for value in inner)
    if origin in (typing.Union, UnionType):
        return " or ".join(dict.fromkeys(map(kind_of, inner)))
    if origin is tuple and inner[-1] is Ellipsis:
        return f"list of {kind_of(inner[0])}"
    if origin is tuple:
        return f"list of {len(inner)}: {', '.join(map(kind_of, inner))}"
    if origin is dict:
        return "mapping" if inner[1] is Any else f"mapping of {kind_of(inner[0])} to {kind_of(inner[1])}"
    if origin is not None:
        return kind_of(inner[0])  # Annotated
    if dataclasses.is_dataclass(hint):
        return f"[{title(hint)}](#{anchor(hint)})"
    return _KINDS.get(hint, f"`{getattr(hint, '__name__', hint)}`")


def title(config: Any) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", config.__name__).lower().removesuffix(" config")


def anchor(config: Any) -> str:
    return title(config).replace(" ", "-")


def sections_in(config: type) -> list[type]:
    """The Configs that may stand in the fields of this one, and in theirs, each once."""
    found: dict[type, None] = {}

    def look(hint: Any) -> None:
        if dataclasses.is_dataclass(hint) and hint not in found:
            found[typing.cast(type, hint)] = None
            for below in typing.get_type_hints(hint).values():
                look(below)
        for below in typing.get_args(hint):
            look(below)

    for hint in typing.get_type_hints(config).values():
        look(hint)
    return list(found)


def _default(field: dataclasses.Field) -> str:
    if field.default_factory is not dataclasses.MISSING:
        value: Any = field.default_factory()
    elif field.default is dataclasses.MISSING:
        return "must be given"
    else:
        value = field.default
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = _changed(value)
        return f"`{_yaml(value)}`" if value else "as there"
    return f"`{_yaml(value)}`"


def _changed(value: Any) -> dict[str, Any]:
    """What differs from the defaults of its own class, where it has some."""
    try:
        plain = dataclasses.asdict(type(value)())
    except TypeError:
        plain = {}
    return {key: own for key, own in dataclasses.asdict(value).items() if key not in plain or own != plain[key]}


def _yaml(value: Any) -> str:
    text = yaml.safe_dump(json.loads(json.dumps(value)), default_flow_style=True, width=10**6, sort_keys=False)
    return text.strip().removesuffix("...").strip()


def slug(heading: str) -> str:
    """The anchor of a heading, as GitHub and the pages make it."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")
