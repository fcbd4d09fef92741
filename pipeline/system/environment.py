"""On what a training ran: the kind of processor, Python, and the version of every package. What else may make two
trainings of the same code, data and settings differ."""

from __future__ import annotations

import hashlib
import importlib.metadata
import platform
import re
from functools import cache
from pathlib import Path
from typing import TypedDict

# Of /proc/cpuinfo: which kernels a library takes, and so the order of its sums, depends on these.
_KINDS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16", "sve", "bf16")


class Environment(TypedDict):
    """`cpu`: the processor's name and which of the instructions that matter it has; `packages`: `name==version`."""

    cpu: str
    python: str
    packages: list[str]


@cache
def environment() -> Environment:
    """Of this process."""
    return {"cpu": cpu_kind(), "python": platform.python_version(), "packages": packages()}


def cpu_kind(path: Path = Path("/proc/cpuinfo")) -> str:
    """Such as "Intel(R) Xeon(R) Processor, model 143, avx2 avx512f"."""
    try:
        text = path.read_text()
    except OSError:
        return platform.processor() or platform.machine()
    told = dict(re.findall(r"^([^\t:]+)[ \t]*:[ \t]*(.*)$", text.partition("\n\n")[0], re.MULTILINE))
    flags = set((told.get("flags") or told.get("Features") or "").split())  # Features: of ARM
    model = f", model {told['model']}" if "model" in told else ""
    kinds = " ".join(kind for kind in _KINDS if kind in flags)
    return f"{told.get('model name') or platform.machine()}{model}{', ' * bool(kinds)}{kinds}"


def packages() -> list[str]:
    """Of all that is installed, sorted; what is installed twice stands once, as it is imported."""
    found: dict[str, str] = {}
    for distribution in importlib.metadata.distributions():
        found.setdefault(distribution.name.lower().replace("_", "-"), distribution.version)
    return [f"{name}=={version}" for name, version in sorted(found.items())]


def digest(packages: list[str]) -> str:
    """sha256 of the list."""
    return hashlib.sha256("\n".join(packages).encode()).hexdigest()
