"""dvc.lock one stage at a time.

DVC parses and writes the whole file after each stage, which takes seconds where there are hundreds of them, and begins
by emptying it. Here a stage's own lines are parsed and replaced, in milliseconds, whole or not at all. DVC reads the
same from it; what several settings of a stage have in common is written out in each.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from pipeline.system.disk import write_text

_HEAD = "schema: '2.0'\nstages:\n"
_ANCHOR, _ALIAS = re.compile(r" &(id\d+)$", re.MULTILINE), re.compile(r" \*(id\d+)$", re.MULTILINE)
_NAME = re.compile(r"  ([^\s'\"#?&*!|>%`{\[-][^\s'\"#]*):")  # as YAML writes it without quotes

Modify = Callable[..., AbstractContextManager[dict[str, Any]]]


class Stages(dict[str, Any]):
    """Stages by name, parsed where they are asked for.

    Args:
        blocks: the lines of each.
        parse: of a document's text. dump: the text of a document.
    """

    def __init__(
        self, blocks: dict[str, str], parse: Callable[[str], Mapping[str, Any]], dump: Callable[[dict[str, Any]], str]
    ):
        super().__init__()
        self.blocks, self._parse, self._dump = blocks, parse, dump

    def get(self, name: str, default: Any = None) -> Any:
        return self._parse(self.blocks[name])[name] if name in self.blocks else default

    def update(self, stages: Mapping[str, Any]) -> None:  # type: ignore[override]
        for name, stage in stages.items():
            self.blocks[name] = self._dump({"stages": {name: stage}}).partition("\n")[2]


def blocks_of(text: str) -> dict[str, str] | None:
    """The lines of each stage, by name; None where the file has anything else, such as comments of people's, or a stage
    that refers to another's lines."""
    if not text.startswith(_HEAD):
        return None
    blocks: dict[str, str] = {}
    name = ""
    for line in text[len(_HEAD) :].rstrip("\n").split("\n"):
        if found := _NAME.fullmatch(line):
            name = found[1]
            if name in blocks:
                return None
            blocks[name] = f"{line}\n"
        elif name and line.startswith("    "):
            blocks[name] += f"{line}\n"
        else:
            return None
    alone = all(set(_ALIAS.findall(block)) <= set(_ANCHOR.findall(block)) for block in blocks.values())
    return blocks if alone else None


def by_stage(
    whole: Modify, parse: Callable[[str, str], Mapping[str, Any]], dump: Callable[[dict[str, Any]], str]
) -> Modify:
    """In place of `whole`, DVC's `modify_yaml`, which still changes every other file.

    Args:
        parse: (text, path) -> document. dump: the text of a document, without aliases.
    """

    @contextmanager
    def modify(path: str, fs: Any = None) -> Iterator[dict[str, Any]]:
        file = Path(path)
        text = file.read_text(encoding="utf-8") if file.name == "dvc.lock" and file.is_file() else ""
        blocks = blocks_of(text)
        if blocks is None:
            with whole(path, fs=fs) as document:
                yield document
            return
        yield {"schema": "2.0", "stages": Stages(blocks, lambda block: parse(block, path), dump)}
        renewed = _HEAD + "".join(blocks.values())
        if renewed != text:
            write_text(file, renewed)

    return modify
