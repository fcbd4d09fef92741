"""Stages of the user's own in a training's loading: `package.module:name` of a file of the project, and of no other.

What params.yaml names is looked for in the text of the file: nothing is imported before a training loads it.
"""

from __future__ import annotations

import ast
import hashlib
import importlib
import os
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from contracts.errors import ConfigError

FORM = "package.module:name, of a file in the project's folder"
_NAME = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")


@dataclass(frozen=True, kw_only=True)
class OwnStages:
    """Stages that a training's samples go through, as `package.module:name` of files of the project: `records`
    between the reader and the encoder, `examples` after the encoder. Validation and evaluation see the data as it is.

    A stage is what a `webdataset.DataPipeline` takes: a function that gets an iterator of samples and yields them, or
    one of webdataset's filters. A sample is a dict with `__key__`, `record`, `seed` (of the sample in this epoch) and,
    after the encoder, `example`. Samples of one batch come at a time; all of them must come out again, in order.
    """

    records: tuple[str, ...] = ()
    examples: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in self.names:
            if not _NAME.fullmatch(name):
                raise ConfigError("not the name of a stage", value=name, allowed=FORM)

    @property
    def names(self) -> tuple[str, ...]:
        return (*self.records, *self.examples)


def load(name: str) -> Any:
    """The stage itself. A process that was not started with `python -m` does not look into the project by itself."""
    module, _, attribute = name.partition(":")
    if (here := os.getcwd()) not in sys.path:
        sys.path.append(here)
    return getattr(importlib.import_module(module), attribute)


def packages(stages: OwnStages, root: Path) -> list[Path]:
    """The folder, or the file, below `root` that holds each stage's top package: what a cluster's nodes need of it."""
    tops = dict.fromkeys(name.split(":")[0].split(".")[0] for name in stages.names)
    return [root / top if (root / top).is_dir() else root / f"{top}.py" for top in tops]


def check(stages: OwnStages, root: Path) -> None:
    """Raise ConfigError unless each stage is defined in a file below `root`."""
    for name in stages.names:
        module, _, attribute = name.partition(":")
        path = root.joinpath(*module.split("."))
        file = next((file for file in (path.with_suffix(".py"), path / "__init__.py") if file.is_file()), None)
        if file is None:
            raise ConfigError("no such stage: the file is not there", value=name, where=f"{path}.py", allowed=FORM)
        try:
            known = set(_defined(file))
        except SyntaxError as error:
            raise ConfigError("a stage's file is no Python", value=str(error), where=str(file)) from None
        if attribute not in known:
            raise ConfigError(
                "no such stage in this file",
                value=name,
                where=str(file),
                allowed=", ".join(sorted(one for one in known if not one.startswith("_"))) or FORM,
            )


def _defined(file: Path) -> Iterator[str]:
    """Names that a module defines or imports at its top level."""
    for node in ast.parse(file.read_text()).body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            yield node.name
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            yield from (alias.asname or alias.name for alias in node.names)
        elif isinstance(node, (ast.Assign, ast.AnnAssign)):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            yield from (target.id for target in targets if isinstance(target, ast.Name))


def digests(stages: OwnStages, root: Path) -> dict[str, str]:
    """sha256 of each Python file of the stages' packages, by its path below `root`: weights depend on them."""
    check(stages, root)
    files = [file for path in packages(stages, root) for file in ([path] if path.is_file() else path.rglob("*.py"))]
    return {file.relative_to(root).as_posix(): hashlib.sha256(file.read_bytes()).hexdigest() for file in sorted(files)}
