"""Every command starts guarded, and every stage says what it writes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pipeline.stages._command import READS, WRITES

ROOT = Path(__file__).resolve().parents[2]
COMMANDS = sorted(path for path in (ROOT / "pipeline").rglob("*.py") if '__name__ == "__main__"' in path.read_text())


@pytest.mark.parametrize("path", COMMANDS, ids=lambda path: path.stem)
def test_every_command_is_guarded_first(path):
    text = path.read_text()
    assert "guard_process()" in text or "from pipeline.stages._command import main" in text


def test_every_stage_locks_what_it_writes():
    starts = [re.search(r"^    main\((\w+), ", path.read_text(), re.MULTILINE) for path in COMMANDS]
    stages = {start[1] for start in starts if start}
    assert len(stages) >= 6
    assert stages == WRITES.keys()
    assert READS.keys() <= WRITES.keys()
