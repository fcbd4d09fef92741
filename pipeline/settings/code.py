"""The code that a stage's results depend on, and a digest of it, which `check` writes for every stage of every project.

A digest covers what a run's own task and model import, not the folders that these lie in: one system more, or a change
to one, runs no other one again. Hashed is what really runs: the files of the imported packages, wherever they are.
`tests/contract/test_dvc_graph.py` compares the lists below with the imports.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from contracts.errors import ConfigError

CODE = Path(__file__).resolve().parents[2]
PACKAGES = ("contracts", "lightning_modules", "pipeline")
STAGES = {"fetch": "datasets", "shard": "datasets", "vocab": "datasets"} | dict.fromkeys(
    ("train", "evaluate", "register"), "runs"
)
WHOLE = ("report",)  # stages of the whole project


class Covered(NamedTuple):
    """Names of files and folders; `{task}`, `{model}`, `{world}` and `{source}` stand for those of the run or data set.

    Attributes:
        always: these count in any case.
        imported: of these counts what a file of `always` imports, directly or not, inside functions too.
    """

    always: tuple[str, ...]
    imported: tuple[str, ...] = ("contracts",)


_PARTS = ("lightning_modules/tasks/{task}.py", "lightning_modules/models/{model}.py")
_ROOMS = ("augment", "base", "blocks", "ops", "solvers", "tasks", "models")
_MODULES = tuple(f"lightning_modules/{room}" for room in _ROOMS)
_MEASURED = tuple(f"lightning_modules/{room}" for room in ("drawing", "metrics", "reports"))
_REPORT = "lightning_modules/reports/{task}.py"
# Protocols and sizes of all families: nothing in it computes, and one family more runs nothing again.
_BESIDE = ("lightning_modules/base/families.py",)
COVERED = {
    "fetch": Covered(
        ("pipeline/stages/fetch.py", "pipeline/ingest/worlds/{world}.py"),
        (
            "contracts",
            "lightning_modules/drawing/arabic.py",
            "pipeline/ingest/worlds",
            "pipeline/ingest/download.py",
            "pipeline/ingest/extract.py",
            "pipeline/ingest/tree.py",
            "pipeline/settings/archives.py",
            "pipeline/shards/raw_listing.py",
        ),
    ),
    "shard": Covered(
        ("pipeline/stages/shard.py", "pipeline/ingest/sources/{source}.py", "pipeline/shards/writing.py"),
        (
            "contracts",
            "lightning_modules/augment/images.py",
            "lightning_modules/ops",  # Selective Search, where a data set asks for it
            "pipeline/ingest/door",
            "pipeline/ingest/sources",
            "pipeline/ingest/tree.py",
            "pipeline/shards",
        ),
    ),
    "vocab": Covered(
        ("pipeline/stages/vocab.py", "lightning_modules/texts"),
        ("contracts", "lightning_modules/metrics", "pipeline/shards"),
    ),
    # What weights depend on, and nothing else: the fingerprint of a training's state is this digest.
    "train": Covered(
        (
            *_PARTS,
            "pipeline/loading",
            "pipeline/shards/reader.py",
            "pipeline/shards/samples.py",
            "pipeline/training/checkpoints.py",
            "pipeline/training/finishing.py",
            "pipeline/training/fit.py",
        ),
        (
            *(f"contracts/{name}.py" for name in ("annotations", "by_name", "records", "scripts", "seeds", "text")),
            *_MODULES,
            "lightning_modules/metrics/vqa_accuracy.py",  # VQA learns the scores that it is measured by
        ),
    ),
    "evaluate": Covered(
        (*_PARTS, _REPORT, "pipeline/stages/evaluate.py", "pipeline/loading", "pipeline/shards", "pipeline/training"),
        (
            "contracts",
            *_MODULES,
            *_MEASURED,
            *(f"pipeline/measuring/{name}.py" for name in ("charts", "comparison", "evaluation", "keeping")),
        ),
    ),
    "register": Covered(
        (*_PARTS, _REPORT, "pipeline/stages/register.py", "pipeline/loading", "pipeline/shards", "pipeline/training"),
        (
            "contracts",
            *_MODULES,
            *_MEASURED,
            "pipeline/ingest/door",
            "pipeline/measuring/charts.py",
            "pipeline/measuring/evaluation.py",
            "pipeline/predicting",
            "pipeline/tracking",
        ),
    ),
    "report": Covered(("pipeline/measuring",), ()),
}


def starting_digest(root: Path = CODE) -> str:
    """Digest of what lays weights over a model's own, which only runs with `init` depend on: beside the others."""
    return hashlib.sha256((root / "pipeline/training/beginning.py").read_bytes()).hexdigest()


class Code:
    """The packages' files as they are now: each is read once, however many digests are asked for."""

    def __init__(self, root: Path = CODE):
        self.root = root
        packages = (root / package for package in PACKAGES)
        walked = (walk for package in packages for walk in os.walk(package) if not walk[0].endswith("__pycache__"))
        paths = (os.path.join(folder, name) for folder, _, names in walked for name in names)
        self._all = frozenset(os.path.relpath(path, root).replace(os.sep, "/") for path in paths)
        self._imports: dict[str, frozenset[str]] = {}
        self._digests: dict[str, str] = {}
        self._done: dict[tuple[str, ...], str] = {}

    def digest(self, item: Mapping[str, Any], stage: str = "train") -> str:
        """sha256 over names and bytes of all files that a stage's results depend on.

        Args:
            item: the data set or run as params.yaml has it, such as `{"task": {"name": ...}, "model": {"name": ...}}`.
            stage: a key of `COVERED`.

        Raises:
            ConfigError: a file that is named is not there.
        """
        parts = (stage, *(one for name in COVERED[stage].always for one in _named(name, item)))
        if parts not in self._done:
            lines = (f"{file} {self._digest(file)}\n" for file in self.covered(item, stage))
            self._done[parts] = hashlib.sha256("".join(lines).encode()).hexdigest()
        return self._done[parts]

    def covered(self, item: Mapping[str, Any], stage: str = "train") -> list[str]:
        """The files behind `digest`, as names below the root, sorted."""
        named, among = COVERED[stage]
        always = {file for name in named for one in _named(name, item) for file in self._files(one)}
        reached = (file for file in self.imports(always) if file not in _BESIDE and _lies_in(file, among))
        return sorted({*always, *reached})

    def imports(self, start: Iterable[str]) -> set[str]:
        """Files of the packages that these files import, directly or not, inside functions too, and they themselves."""
        seen: set[str] = set()
        todo = list(start)
        while todo:
            file = todo.pop()
            if file not in seen:
                seen.add(file)
                todo += self._imported_by(file)
        return seen

    def _digest(self, file: str) -> str:
        if file not in self._digests:
            self._digests[file] = hashlib.sha256((self.root / file).read_bytes()).hexdigest()
        return self._digests[file]

    def _imported_by(self, file: str) -> frozenset[str]:
        if file not in self._imports:
            names = _imported_names((self.root / file).read_text()) if file.endswith(".py") else ()
            self._imports[file] = frozenset(found for name in names for found in self._modules(name))
        return self._imports[file]

    def _modules(self, name: str) -> list[str]:
        """The file of a module, and those of the packages above it, whose code runs first."""
        path = name.replace(".", "/")
        own = [file for file in (f"{path}.py", f"{path}/__init__.py") if file in self._all][:1]
        folders = path.split("/")[:-1] if own else []
        above = ["/".join([*folders[: i + 1], "__init__.py"]) for i in range(len(folders))]
        return [*own, *(file for file in above if file in self._all)]

    def _files(self, name: str) -> list[str]:
        if found := [name] if name in self._all else [file for file in self._all if file.startswith(f"{name}/")]:
            return found
        raise ConfigError("no such file or folder of the code", value=name, where=str(self.root))


def _named(name: str, item: Mapping[str, Any]) -> list[str]:
    """`{source}` stands for each of a data set's sources, the others for one part, or for none where there is none."""
    if "{" not in name:
        return [name]
    kind = name[name.index("{") + 1 : name.index("}")]
    found = item.get("sources" if kind == "source" else kind) or {}
    parts = list(found) if kind == "source" else [found["name"]] if found else []
    return [name.replace(f"{{{kind}}}", part) for part in parts]


def _lies_in(file: str, names: tuple[str, ...]) -> bool:
    return any(file == name or file.startswith(f"{name}/") for name in names)


# Not `ast`, which takes half a second for all of it, ten times as long, and `check` runs before everything else.
_IMPORT = re.compile(r"^[ \t]*(?:from[ \t]+([\w.]+)[ \t]+import[ \t]+(\([^)]*\)|.+)|import[ \t]+(.+))", re.MULTILINE)
_NAME = re.compile(r"[\w.]+")


def _imported_names(text: str) -> set[str]:
    """Modules, and what may be one: `from a import b` gives a and a.b."""
    names: set[str] = set()
    for module, members, modules in _IMPORT.findall(text):
        if module.split(".")[0] in PACKAGES:
            names |= {module, *(f"{module}.{name}" for name in _NAME.findall(members))}
        names |= {name for name in _NAME.findall(modules) if name.split(".")[0] in PACKAGES}
    return names
