"""params.yaml -> plain values. What YAML leaves open is closed here, so that nothing in the file is read in two ways.

Scalars are read by YAML 1.2's core rules, as DVC reads the same file: `1e-3` is a number, `no` and `2024-01-01` are
text. Doubled keys, keys that are no text, tags, and numbers that are none are mistakes; anchors and `<<` work.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Hashable
from pathlib import Path
from typing import Any, ClassVar

import yaml
from yaml.nodes import MappingNode, ScalarNode

from contracts.errors import ConfigError

MAX_BYTES = 2**20
MAX_DEPTH = 32
MAX_VALUES = 100_000  # anchors in anchors write billions of values in a few lines
_LARGEST = 2**63 - 1
_KEY_TAGS = ("tag:yaml.org,2002:str", "tag:yaml.org,2002:merge")
_NO_TEXT = re.compile("[\0\ud800-\udfff]")


class _Loader(yaml.SafeLoader):
    """Collects doubled keys (PyYAML's own loader lets the last one win) and keys that are no text in `problems`."""

    yaml_implicit_resolvers: dict[str, list[Any]] = {}  # noqa: RUF012  # PyYAML's own rules are YAML 1.1's
    yaml_constructors: ClassVar[dict[str | None, Any]] = {}  # no dates, no binary, no sets, no objects

    def __init__(self, stream: str):
        super().__init__(stream)
        self.problems: list[str] = []

    def construct_mapping(self, node: MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        lines: dict[str, int] = {}
        for key, _ in node.value if isinstance(node, MappingNode) else ():
            line, name = key.start_mark.line + 1, key.value
            if key.tag not in _KEY_TAGS:
                text = name if isinstance(key, ScalarNode) else "a list or mapping"
                self.problems.append(f"line {line}: a key must be text (is {text}); put it in quotes")
            elif name in lines:
                self.problems.append(
                    f"line {line}: {name!r} stands twice in one section, first in line {lines[name]}; leave one of them"
                )
            lines.setdefault(str(name), line)
        return super().construct_mapping(node, deep=deep)


def _number(kind: type) -> Any:
    def construct(loader: _Loader, node: ScalarNode) -> Any:
        text = str(loader.construct_scalar(node))
        try:
            return kind(text.lower().replace(".inf", "inf").replace(".nan", "nan") if kind is float else text)
        except ValueError as error:
            raise yaml.constructor.ConstructorError(None, None, f"no number: {error}", node.start_mark) from None

    return construct


def _boolean(loader: _Loader, node: ScalarNode) -> bool:
    return str(loader.construct_scalar(node)).lower() == "true"


_CORE = {
    "null": (r"~|null|Null|NULL|", [*"~nN", ""], _Loader.construct_yaml_null),
    "bool": (r"true|True|TRUE|false|False|FALSE", [*"tTfF"], _boolean),
    "int": (r"[-+]?(?:0|[1-9][0-9]*)", [*"-+0123456789"], _number(int)),
    "float": (
        r"[-+]?(?:\.[0-9]+|(?:0|[1-9][0-9]*)(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
        [*"-+.0123456789"],
        _number(float),
    ),
}
for _name, (_pattern, _first, _construct) in _CORE.items():
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_name}", re.compile(f"^(?:{_pattern})$"), _first)
    _Loader.add_constructor(f"tag:yaml.org,2002:{_name}", _construct)
_Loader.add_implicit_resolver("tag:yaml.org,2002:merge", re.compile(r"^<<$"), ["<"])
for _name in ("str", "seq", "map"):
    _Loader.add_constructor(f"tag:yaml.org,2002:{_name}", getattr(yaml.SafeLoader, f"construct_yaml_{_name}"))
_Loader.yaml_constructors[None] = _Loader.construct_undefined


def read_document(path: Path) -> tuple[dict[str, Any], list[str]]:
    """The document of the file at `path`, and what is wrong with its keys and values wherever they stand.

    Raises:
        ConfigError: there is no file, it cannot be read, or it is no YAML with a mapping at its top.
    """
    text, cleaner = _read(path), _Cleaner()
    try:
        loader = _Loader(text)
        document = loader.get_single_data()
        cleaned = cleaner.clean(document, "", 0)
    except yaml.YAMLError as error:
        where = " ".join(str(error).replace('"<unicode string>"', path.name).split())
        raise ConfigError(f"{path.name} is not valid YAML", where=where) from None
    except RecursionError:
        raise ConfigError(f"{path.name} is nested too deeply", where=str(path), allowed=f"{MAX_DEPTH} levels") from None
    if document is None:
        raise ConfigError(f"{path.name} is empty", where=str(path), fix="it needs `datasets` and `runs`")
    if not isinstance(cleaned, dict):
        raise ConfigError(
            f"{path.name} must be a mapping", value=shown(cleaned), where=str(path), allowed="datasets: ..., runs: ..."
        )
    return cleaned, [*loader.problems, *cleaner.problems]


def shown(value: Any) -> str:
    """`value` as it stands in the file, cut where it is long."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _read(path: Path) -> str:
    try:
        with open(path, "rb") as file:
            data = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise ConfigError(f"no {path.name} here", where=str(path.parent), fix="run from the project's folder") from None
    except OSError as error:
        raise ConfigError(f"{path.name} cannot be read", value=error.strerror, where=str(path)) from None
    if len(data) > MAX_BYTES:
        raise ConfigError(f"{path.name} is too large", where=str(path), allowed=f"{MAX_BYTES} bytes")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigError(
            f"{path.name} is not UTF-8 text",
            value=data[error.start : error.start + 8],
            where=f"{path}, line {line}",
            fix="save it as UTF-8",
        ) from None


class _Cleaner:
    """Copies plain values, leaving out keys that are no text, and collects what no part can take in `problems`."""

    def __init__(self) -> None:
        self.problems: list[str] = []
        self._left = MAX_VALUES

    def clean(self, value: Any, where: str, depth: int) -> Any:
        self._left -= 1
        if depth > MAX_DEPTH or self._left < 0:
            raise ConfigError(
                "params.yaml holds too much: does an anchor hold itself?",
                where=where[:80],
                allowed=f"{MAX_DEPTH} levels, {MAX_VALUES} values",
            )
        if isinstance(value, dict):
            return {
                key: self.clean(below, f"{where}.{key}".lstrip("."), depth + 1)
                for key, below in value.items()
                if isinstance(key, str)
            }
        if isinstance(value, list):
            return [self.clean(below, f"{where}.{i}", depth + 1) for i, below in enumerate(value)]
        if isinstance(value, float) and not math.isfinite(value):
            self.problems.append(f"{where}: must be a finite number (is {value})")
        elif isinstance(value, int) and abs(value) > _LARGEST:
            self.problems.append(f"{where}: must be a number of at most 64 bits")
        elif isinstance(value, str) and _NO_TEXT.search(value):
            self.problems.append(f"{where}: holds a character that no text may hold (is {value!r})")
        return value
