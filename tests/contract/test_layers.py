"""Imports go one way, and the libraries that are slow or heavy stay where they belong."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.cli import app

ALLOWED = {
    "contracts": {"contracts"},
    "lightning_modules": {"contracts", "lightning_modules"},
    "pipeline": {"contracts", "lightning_modules", "pipeline"},
}
# The rooms of `pipeline`, lowest first: a room imports itself and what stands before it.
ROOMS = (
    "system",
    "settings",
    "ingest",
    "shards",
    "loading",
    "training",
    "cluster",
    "tracking",
    "measuring",
    "predicting",
    "sweeping",
    "stages",
    "commands",
)
ONLY_IN = {"ray": "pipeline/cluster/", "mlflow": "pipeline/tracking/", "dvc": "pipeline/system/repro.py"}
MOST_LINES, MOST_LINES_OF_A_FUNCTION = 400, 60


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


def test_every_file_of_the_pipeline_has_a_room(root):
    assert {path.parent.name for path in (root / "pipeline").glob("*/__init__.py")} == set(ROOMS)
    assert {path.name for path in (root / "pipeline").glob("*.py")} == {"__init__.py", "cli.py"}


def test_rooms_import_downwards_only(root):
    for path in files(root, "pipeline"):
        room = path.relative_to(root / "pipeline").parts[0]
        if room not in ROOMS:
            continue
        for name in imported(path):
            package, _, rest = name.partition(".")
            other = rest.split(".")[0]
            if package == "pipeline" and other in ROOMS:
                assert ROOMS.index(other) <= ROOMS.index(room), f"{path} imports {name}"


def test_files_and_functions_can_be_read_at_once(root):
    too_long = []
    for package in (*ALLOWED, "tests", "benchmarks"):
        for path in files(root, package):
            text = path.read_text()
            if text.count("\n") > MOST_LINES:
                too_long.append(f"{path.relative_to(root)}: {text.count(chr(10))} lines")
            for node in ast.walk(ast.parse(text)):
                if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                    length = (node.end_lineno or 0) - node.lineno + 1
                    if length > MOST_LINES_OF_A_FUNCTION:
                        too_long.append(f"{path.relative_to(root)}: {node.name} has {length} lines")
    assert not too_long


def test_contracts_need_only_numpy(root):
    for path in files(root, "contracts"):
        tops = {name.split(".")[0] for name in imported(path)} - {"contracts", "numpy", "__future__"}
        assert tops <= set(sys.stdlib_module_names), f"{path} imports {tops}"


@pytest.mark.parametrize("library", sorted(ONLY_IN))
def test_library_is_imported_only_where_it_belongs(root, library):
    for package in ALLOWED:
        for path in files(root, package):
            if any(name.split(".")[0] == library for name in imported(path)):
                assert str(path.relative_to(root)).startswith(ONLY_IN[library]), f"{path} imports {library}"


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
    modules = imported_by(root, f"pipeline.stages.{stage}")
    assert not modules & {"mlflow", "numpy", "ray", "requests", "torch"}


def test_a_training_is_driven_without_what_trains(root):
    """Of a run's fixed cost, Lightning is two seconds, and Ray is there before it is needed."""
    assert not imported_by(root, "pipeline.stages.train") & {"pytorch_lightning", "ray"}


HEAVY = {"albumentations", "cv2", "matplotlib", "mlflow", "numpy", "pytorch_lightning", "ray", "torch", "torchmetrics"}


def test_settings_are_checked_without_what_is_slow_to_import(root):
    """Of the shipped runs, which name tasks, models, sources and worlds."""
    imported = imported_by(root, "pipeline.cli", "check")
    assert not imported & HEAVY
    assert {"lightning_modules.models.faster_rcnn", "pipeline.ingest.sources.coco"} <= imported


HELP = """
import sys
from contextlib import suppress
from pipeline import cli
commands = cli.app.registered_commands
for command in commands:
    sys.argv, cli.app.registered_commands = ["sightline", command.name, "--help"], commands
    with suppress(SystemExit):
        cli.main()
    print(sorted({command.name, *sys.modules}))
"""


def test_help_needs_nothing_but_the_command_line(root):
    """Of each command. typer itself is two thirds of the 0.2 s that it may take."""
    out = subprocess.run([sys.executable, "-c", HELP], cwd=root, capture_output=True, text=True, check=True).stdout
    helped = [set(ast.literal_eval(line)) for line in out.splitlines() if line.startswith("['")]
    for command, modules in zip(app.registered_commands, helped, strict=True):
        assert command.name in modules and f"Usage: sightline {command.name} " in out
        assert not modules & (HEAVY | {"pydantic", "rich", "yaml", "psutil"}), command.name


def test_one_file_deletes_folders(root):
    """`remove_tree` proves that what it deletes lies inside the project."""
    deleting = {
        str(path.relative_to(root))
        for package in ALLOWED
        for path in files(root, package)
        if "rmtree" in path.read_text()
    }
    assert deleting == {"pipeline/system/removal.py"}


def test_one_file_gives_files_their_names(root):
    """`disk.publish` brings a file to the disk first, so that a power cut leaves the old one or the new."""
    renaming = {
        str(path.relative_to(root))
        for package in ALLOWED
        for path in files(root, package)
        if re.search(r"os\.(replace|rename)\(|\.rename\(|shutil\.move", path.read_text())
    }
    assert renaming == {"pipeline/system/disk.py"}
