"""dvc.yaml against the code: what a stage imports and reads stands among its dependencies."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.train_code import _listed

# Changing these moves work and words, not results; listing them would train everything anew after each touch.
PLUMBING = {
    "pipeline/batch_memory.py",
    "pipeline/connection.py",
    "pipeline/delivery.py",
    "pipeline/cluster_backend.py",
    "pipeline/cluster_join.py",
    "pipeline/cluster_session.py",
    "pipeline/cluster_watch.py",
    "pipeline/discover.py",
    "pipeline/disk.py",
    "pipeline/distributed.py",
    "pipeline/document.py",
    "pipeline/event_tail.py",
    "pipeline/events.py",
    "pipeline/guard.py",
    "pipeline/heartbeat.py",
    "pipeline/ledger.py",
    "pipeline/out_of_memory.py",
    "pipeline/lock.py",
    "pipeline/orphan.py",
    "pipeline/loader_process.py",
    "pipeline/params.py",
    "pipeline/progress.py",
    "pipeline/project.py",
    "pipeline/reading.py",
    "pipeline/removal.py",
    "pipeline/resume.py",
    "pipeline/run_files.py",
    "pipeline/runs.py",
    "pipeline/sections.py",
    "pipeline/settings.py",
    "pipeline/shard_cache.py",
    "pipeline/state_copier.py",
    "pipeline/state_file.py",
    "pipeline/signing.py",
    "pipeline/state_mirror.py",
    "pipeline/stopping.py",
    "pipeline/stores.py",
    "pipeline/stages/_command.py",
    "pipeline/tracking.py",
    "pipeline/uris.py",
    "pipeline/train_code.py",
}
STAGES = ("fetch", "shard", "vocab", "train", "evaluate", "register")


def module_file(root: Path, name: str) -> Path | None:
    path = root / Path(*name.split("."))
    for candidate in (path.with_suffix(".py"), path / "__init__.py"):
        if candidate.is_file():
            return candidate
    return None


def closure(root: Path, start: Path) -> set[str]:
    """Project files that `start` imports, directly or not, inside functions too."""
    seen: set[Path] = set()
    todo = [start]
    while todo:
        path = todo.pop()
        if path in seen:
            continue
        seen.add(path)
        if str(path.relative_to(root)) in PLUMBING:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            names: list[str] = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module:
                names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
            todo += [found for name in names if (found := module_file(root, name)) is not None]
    return {str(path.relative_to(root)) for path in seen}


@pytest.fixture(scope="module")
def graph(root) -> dict[str, Any]:
    return yaml.safe_load((root / "dvc.yaml").read_text())["stages"]


@pytest.mark.parametrize("stage", STAGES)
def test_dependencies_cover_what_the_stage_imports(root, graph, stage):
    listed = [dep for dep in graph[stage]["do"]["deps"] if "${" not in dep]
    uncovered = {
        file
        for file in closure(root, root / f"pipeline/stages/{stage}.py") - PLUMBING
        if (root / file).read_text().strip() and not file.endswith("__init__.py")
        if not any(file == dep or file.startswith(f"{dep}/") for dep in listed)
    }
    assert not uncovered


def test_every_listed_file_is_there(root, graph):
    for stage in STAGES:
        for dep in graph[stage]["do"]["deps"]:
            if "${" not in dep and dep != "data/checked.json":
                assert (root / dep).exists(), f"{stage}: {dep}"


def test_nothing_runs_before_the_whole_file_is_checked(root, graph):
    checked = graph["check"]
    assert checked["outs"] == ["data/checked.json"]
    assert checked["params"] == [{"params.yaml": None}], "the whole file"
    assert set(checked["deps"]) == {"contracts", "lightning_modules", "pipeline"}, "every Config lies in one of these"
    assert set(graph) == {"check", *STAGES}
    for stage in STAGES:
        assert "data/checked.json" in graph[stage]["do"]["deps"], stage
        assert graph[stage]["do"]["cmd"] == f"python -m pipeline.stages.{stage} '${{key}}'", "a name is one quoted word"


def test_every_section_of_params_is_somebodys_dependency(root, graph):
    sections = set(yaml.safe_load((root / "params.yaml").read_text()))
    read = {param.split(".")[0] for stage in STAGES for param in graph[stage]["do"].get("params", [])}
    assert sections - read == {"cluster", "tracking"}, "where a run is trained and recorded does not make it another"


def test_the_fingerprint_counts_the_code_that_the_train_stage_depends_on(root, graph):
    """One list: dvc.yaml's, resolved as DVC does."""
    params = yaml.safe_load((root / "params.yaml").read_text())
    for name, item in params["runs"].items():
        deps = graph["train"]["do"]["deps"]
        for key in ("task", "model"):
            deps = [dep.replace(f"${{item.{key}.name}}", item[key]["name"]) for dep in deps]
        ours = [dep for dep in deps if not dep.startswith("data/")]
        assert _listed(root / "dvc.yaml", item) == ours and all((root / dep).exists() for dep in ours), name


def test_outputs_are_what_the_project_says(graph):
    outs = [out for stage in STAGES for out in graph[stage]["do"].get("outs", [])]
    names = [out if isinstance(out, str) else next(iter(out)) for out in outs]
    assert len(names) == len(set(names))
    assert all("state" not in name for name in names), "resumable state must lie outside every output"
