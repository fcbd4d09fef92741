"""Values written into params.yaml: only these values change, every comment and all else stays byte for byte."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode

from contracts.errors import ConfigError
from pipeline.settings.parse import one_line
from pipeline.system.disk import write_text


def write_values(path: Path, values: Mapping[tuple[str, ...], Any]) -> bool:
    """Write values into a YAML file; False where it has them already.

    Raises:
        ConfigError: as `with_values`; nothing is written then.
    """
    with open(path, encoding="utf-8-sig", newline="") as file:
        before = file.read()
    after = with_values(before, values)
    if after != before:
        write_text(path, after)
    return after != before


def with_values(text: str, values: Mapping[tuple[str, ...], Any]) -> str:
    """`text` of a YAML file with each value at its keys; a key that is not there yet is put in.

    Raises:
        ConfigError: a value stands where it cannot be changed alone, such as behind an alias (`*name`), which other
            sections share.
    """
    for keys, value in values.items():
        text = _with_value(text, tuple(keys), value)
    return text


def _with_value(text: str, keys: tuple[str, ...], value: Any) -> str:
    expected = _set(yaml.load(text, yaml.BaseLoader), keys, yaml.load(one_line(value), yaml.BaseLoader))
    changed = _edited(text, keys, value)
    if changed is None or yaml.load(changed, yaml.BaseLoader) != expected:
        raise ConfigError(
            "this value cannot be written without changing others",
            value=one_line(value),
            where=".".join(keys),
            fix="write it by hand; an alias (`*name`) or `<<` stands there, or something that is no section",
        )
    return changed


def _edited(text: str, keys: tuple[str, ...], value: Any) -> str | None:
    node: Node | None = yaml.compose(text, yaml.SafeLoader)
    for depth, key in enumerate(keys):
        if not isinstance(node, MappingNode):
            return None
        below = next((child for name, child in node.value if name.value == key), None)
        last = depth == len(keys) - 1
        empty = isinstance(below, ScalarNode) and below.tag.endswith(":null")
        if below is None:
            return _put_in(text, node, keys[depth:], value)
        if last or empty:
            new = value
            for name in reversed(keys[depth + 1 :]):
                new = {name: new}
            return _replaced(text, below, new)
        node = below
    return None


def _replaced(text: str, node: Node, value: Any) -> str:
    start, end = node.start_mark.index, node.end_mark.index
    new = one_line(value)
    if start == end:  # nothing stands after the colon
        return f"{text[:start]} {new}{text[start:]}"
    if isinstance(node, MappingNode | yaml.SequenceNode) and not node.flow_style:  # to the key's line
        return f"{text[: text.rindex(':', 0, start) + 1]} {new}{text[_end(node) :]}"
    return text[:start] + new + text[end:]


def _end(node: Node) -> int:
    """Where the last value of a section ends; YAML counts the comments after it as the section's."""
    while isinstance(node, MappingNode | yaml.SequenceNode) and not node.flow_style and node.value:
        node = node.value[-1][1] if isinstance(node, MappingNode) else node.value[-1]
    return int(node.end_mark.index)


def _put_in(text: str, node: MappingNode, keys: Sequence[str], value: Any) -> str:
    """A key more, as the first one of its section."""
    new = value
    for name in reversed(keys[1:]):
        new = {name: new}
    if node.flow_style:
        place = node.start_mark.index + 1
        line = f"{one_line(keys[0])}: {one_line(new)}"
        return text[:place] + line + (", " if node.value else "") + text[place:]
    first = node.value[0][0].start_mark
    indent = " " * first.column
    return f"{text[: first.index]}{one_line(keys[0])}: {one_line(new)}\n{indent}{text[first.index :]}"


def _set(document: Any, keys: Sequence[str], value: Any) -> Any:
    """A copy of a document with `value` at `keys`."""
    if not keys:
        return value
    entry = document if isinstance(document, dict) else {}
    return {**entry, keys[0]: _set(entry.get(keys[0]), keys[1:], value)}
