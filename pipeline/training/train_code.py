"""The code that a run is trained by: what dvc.yaml lists as the train stage's dependencies, and a digest of it.

There is one list, dvc.yaml's, which `tests/contract/test_dvc_graph.py` compares with the imports. Hashed is what
really runs: the files of the imported packages, wherever they are installed.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from contracts.errors import ConfigError

CODE = Path(__file__).resolve().parents[2]
PACKAGES = ("contracts", "lightning_modules", "pipeline")
_VARIABLE = re.compile(r"\$\{([^}]*)\}")


def code_digest(root: Path, item: Mapping[str, Any], code: Path = CODE) -> str:
    """sha256 over names and bytes of all files that train a run.

    Args:
        root: the project's folder; without a dvc.yaml in it, the one beside the code counts, and without that all code.
        item: the run as dvc.yaml sees it, `{"task": {"name": ...}, "model": {"name": ...}}`.
        code: the folder of the packages.

    Raises:
        ConfigError: dvc.yaml has no such stage, or lists a file that is not there.
    """
    template = next((folder / "dvc.yaml" for folder in (root, code) if (folder / "dvc.yaml").is_file()), None)
    listed = list(PACKAGES) if template is None else _listed(template, item)
    digest = hashlib.sha256()
    for path in sorted(set(_files(code, listed))):
        digest.update(f"{path.relative_to(code).as_posix()}\n".encode())
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def _listed(template: Path, item: Mapping[str, Any]) -> list[str]:
    """The code among the dependencies of dvc.yaml's train stage, for one run."""

    def value(found: re.Match[str]) -> str:
        node: Any = {"item": item}
        for key in found[1].split("."):
            node = node.get(key) if isinstance(node, Mapping) else None
        if not isinstance(node, str):
            raise ConfigError("a variable that no run has", value=found[0], where=f"{template}: stages.train.do.deps")
        return node

    try:
        deps = yaml.safe_load(template.read_text())["stages"]["train"]["do"]["deps"]
        packages = [dep for dep in deps if dep.split("/")[0] in PACKAGES]
    except (yaml.YAMLError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(
            "no list of what training depends on",
            value=f"{type(error).__name__}: {error}"[:200],
            where=f"{template}: stages.train.do.deps",
            fix="restore dvc.yaml: `git checkout dvc.yaml`",
        ) from error
    return [_VARIABLE.sub(value, dep) for dep in packages]


def _files(code: Path, listed: Iterable[str]) -> Iterable[Path]:
    for name in listed:
        path = code / name
        if path.is_file():
            yield path
        elif path.is_dir():
            yield from (p for p in path.rglob("*") if p.is_file() and "__pycache__" not in p.parts)
        else:
            raise ConfigError("no such file or folder", value=name, where="dvc.yaml: stages.train.do.deps")
