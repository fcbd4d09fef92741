"""The table of faults names tests that are there, and every test of a fault stands in it."""

from __future__ import annotations

import re
from pathlib import Path

ROW = re.compile(r"(?P<file>[\w./]*test_\w+\.py)?(?:::(?P<test>test_\w+))?")


def named(root: Path) -> list[tuple[Path, str]]:
    """Files, with a test of theirs or "", in the last column of the table's rows."""
    found: list[tuple[Path, str]] = []
    for line in (root / "tests/faults/README.md").read_text().splitlines():
        if not line.startswith("|") or line.startswith(("| fault |", "| --- |")):
            continue
        place = None
        for match in ROW.finditer(line.rstrip(" |").rpartition("| ")[2]):
            if match["file"]:
                name = match["file"].removeprefix("../").removeprefix("tests/")
                place = root / "tests" / (name if "/" in name else _folder(name))
            if match["file"] or match["test"]:
                assert place is not None, line
                found.append((place, match["test"] or ""))
    return found


def _folder(name: str) -> str:
    return f"unit/pipeline/{name}" if name in ("test_lock.py", "test_guard.py") else f"faults/{name}"


def test_every_test_that_the_table_names_is_there(root):
    for path, test in named(root):
        assert path.is_file(), path
        assert not test or f"def {test}(" in path.read_text(), f"{path}::{test}"


def test_every_file_of_fault_tests_stands_in_the_table(root):
    assert set((root / "tests/faults").glob("test_*.py")) <= {path for path, _ in named(root)}
