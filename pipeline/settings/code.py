"""The code that a stage's results depend on: what dvc.yaml lists among the stage's dependencies, and a digest of it.

There is one list, dvc.yaml's, which `tests/contract/test_dvc_graph.py` compares with the imports. Hashed is what
really runs: the files of the imported packages, wherever they are installed. A project outside this repository lists
none, since its paths would name another place: `check` writes the digests into it, and its stages depend on those.
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
STAGES = {"fetch": "datasets", "shard": "datasets", "vocab": "datasets"} | dict.fromkeys(
    ("train", "evaluate", "register"), "runs"
)
WHOLE = ("report",)  # stages of the whole project
_VARIABLE = re.compile(r"\$\{([^}]*)\}")


def code_digest(root: Path, item: Mapping[str, Any], code: Path = CODE, *, stage: str = "train") -> str:
    """sha256 over names and bytes of all files that a stage's results depend on.

    Args:
        root: the project's folder; where its dvc.yaml lists no code, the one beside the code counts, and without that
            all code.
        item: the data set or run as dvc.yaml sees it, such as `{"task": {"name": ...}, "model": {"name": ...}}`.
        code: the folder of the packages.

    Raises:
        ConfigError: dvc.yaml has no such stage, or lists a file that is not there.
    """
    listed: list[str] = []
    for folder in (root, code):
        if not listed and (folder / "dvc.yaml").is_file():
            listed = _listed(folder / "dvc.yaml", item, stage)
    digest = hashlib.sha256()
    for path in sorted(set(_files(code, listed or PACKAGES))):
        digest.update(f"{path.relative_to(code).as_posix()}\n".encode())
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def is_code(dependency: str) -> bool:
    """Whether a dependency that dvc.yaml lists is a file or folder of the packages."""
    return dependency.split("/")[0] in PACKAGES


def _listed(template: Path, item: Mapping[str, Any], stage: str = "train") -> list[str]:
    """The code among the dependencies of one of dvc.yaml's stages, for one data set or run."""
    where = f"{template}: stages.{stage}.do.deps"

    def value(found: re.Match[str]) -> str:
        node: Any = {"item": item}
        for key in found[1].split("."):
            node = node.get(key) if isinstance(node, Mapping) else None
        if not isinstance(node, str):
            raise ConfigError("a variable that no data set or run has", value=found[0], where=where)
        return node

    try:
        found = yaml.safe_load(template.read_text())["stages"][stage]
        deps = found.get("do", found)["deps"]
        packages = [dep for dep in deps if is_code(dep)]
    except (yaml.YAMLError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(
            f"no list of what the stage {stage} depends on",
            value=f"{type(error).__name__}: {error}"[:200],
            where=where,
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
            raise ConfigError("no such file or folder", value=name, where="dvc.yaml: stages.*.do.deps")
