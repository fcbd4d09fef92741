"""Imports go one way, and the libraries that are slow or heavy stay where they belong."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ALLOWED = {
    "contracts": {"contracts"},
    "lightning_modules": {"contracts", "lightning_modules"},
    "pipeline": {"contracts", "lightning_modules", "pipeline"},
}
ONLY_IN = {
    "ray": {
        "pipeline/cluster_backend.py",
        "pipeline/cluster_join.py",
        "pipeline/cluster_session.py",
        "pipeline/cluster_watch.py",
        "pipeline/distributed.py",
    },
    # served_model.py is the file that MLflow itself loads; the others talk to it.
    "mlflow": {
        "pipeline/connection.py",
        "pipeline/delivery.py",
        "pipeline/registry.py",
        "pipeline/served_model.py",
        "pipeline/tracking.py",
    },
    "dvc": set(),
}


def imported(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def files(root: Path, package: str) -> list[Path]:
    return sorted((root / package).rglob("*.py"))


@pytest.mark.parametrize("package", sorted(ALLOWED))
def test_packages_import_downwards_only(root, package):
    for path in files(root, package):
        for name in imported(path):
            top = name.split(".")[0]
            assert top not in ALLOWED or top in ALLOWED[package], f"{path} imports {name}"


def test_contracts_need_only_numpy(root):
    for path in files(root, "contracts"):
        tops = {name.split(".")[0] for name in imported(path)} - {"contracts", "numpy", "__future__"}
        assert tops <= set(sys.stdlib_module_names), f"{path} imports {tops}"


@pytest.mark.parametrize("library", sorted(ONLY_IN))
def test_library_is_imported_only_where_it_belongs(root, library):
    for package in ALLOWED:
        for path in files(root, package):
            if any(name.split(".")[0] == library for name in imported(path)):
                assert str(path.relative_to(root)) in ONLY_IN[library], f"{path} imports {library}"


@pytest.mark.parametrize("kind", ["tasks", "models"])
def test_tasks_and_models_do_not_import_each_other(root, kind):
    for path in files(root, f"lightning_modules/{kind}"):
        for name in imported(path):
            for other in ("tasks", "models"):
                assert not name.startswith(f"lightning_modules.{other}."), f"{path} imports {name}"


RUN = """
import runpy, sys
sys.argv = sys.argv[1:]
try:
    runpy.run_module(sys.argv[0], run_name="__main__")
finally:
    print(sorted(sys.modules))
"""


def imported_by(root: Path, *command: str) -> set[str]:
    """Modules that a command imports in a fresh interpreter."""
    out = subprocess.run([sys.executable, "-c", RUN, *command], cwd=root, capture_output=True, text=True, check=True)
    return set(ast.literal_eval(out.stdout.splitlines()[-1]))


@pytest.mark.parametrize("stage", ["fetch", "shard", "vocab"])
def test_data_stages_start_without_what_is_slow_to_import(root, stage):
    modules = imported_by(root, f"pipeline.stages.{stage}", "--help")
    assert not modules & {"mlflow", "numpy", "ray", "requests", "torch"}


def test_settings_are_checked_without_trainer_and_tracking(root):
    """Tasks and models need torch; what runs them takes twice as long to import and has no say in it."""
    assert not imported_by(root, "pipeline.check") & {"mlflow", "pytorch_lightning", "ray"}


def test_one_file_deletes_folders(root):
    """`remove_tree` proves that what it deletes lies inside the project."""
    deleting = {
        str(path.relative_to(root))
        for package in ALLOWED
        for path in files(root, package)
        if "rmtree" in path.read_text()
    }
    assert deleting == {"pipeline/removal.py"}
