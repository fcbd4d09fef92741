"""File name -> component: the only place that imports by name."""

from __future__ import annotations

import difflib
import hashlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

from contracts.errors import ConfigError
from pipeline.settings.outline import running_a_part

KINDS = {
    "source": "pipeline.ingest.sources",
    "world": "pipeline.ingest.worlds",
    "task": "lightning_modules.tasks",
    "report": "lightning_modules.reports",
    "model": "lightning_modules.models",
    "text": "lightning_modules.texts",
    "scorer": "pipeline.measuring.scorers",
    "format": "pipeline.shards.formats",
}


def names(kind: str) -> list[str]:
    """Sorted names of the components of a kind, found without importing them."""
    return sorted({path.stem for folder in _folders(kind) for path in folder.glob("[!_]*.py")})


def _folders(kind: str) -> list[Path]:
    """Where its package lies. Ray ships each package in a folder of its own: only Python knows."""
    package = KINDS[kind]
    if package in sys.modules:
        return [Path(folder) for folder in sys.modules[package].__path__]
    spec = importlib.util.find_spec(package)
    assert spec is not None and spec.submodule_search_locations
    return [Path(folder) for folder in spec.submodule_search_locations]


def digest(kind: str, name: str) -> str:
    """sha256 of the file of a component that exists, without importing it."""
    path = next(path for folder in _folders(kind) if (path := folder / f"{name}.py").is_file())
    return hashlib.sha256(path.read_bytes()).hexdigest()


def load(kind: str, name: str, *, where: str) -> ModuleType:
    """The module of component `name`.

    Args:
        kind: a key of `KINDS`.
        name: the file's name without `.py`.
        where: the key of params.yaml that asked for it, for the error.

    Raises:
        ConfigError: there is no such component; lists the choices and the nearest one.
    """
    known = names(kind)
    if name not in known:
        near = difflib.get_close_matches(str(name), known, n=1)
        raise ConfigError(
            f"unknown {kind}",
            value=name,
            where=where,
            allowed=", ".join(known),
            fix=f"did you mean {near[0]!r}?" if near else f"add {KINDS[kind].replace('.', '/')}/{name}.py",
        )
    with running_a_part():
        return importlib.import_module(f"{KINDS[kind]}.{name}")
