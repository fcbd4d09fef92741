"""File name -> component: the only place that imports by name."""

from __future__ import annotations

import difflib
import importlib
import pkgutil
from types import ModuleType

from contracts.errors import ConfigError

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
    package = importlib.import_module(KINDS[kind])
    return sorted(module.name for module in pkgutil.iter_modules(package.__path__) if not module.name.startswith("_"))


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
    return importlib.import_module(f"{KINDS[kind]}.{name}")
