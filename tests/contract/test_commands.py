"""One command, guarded before it does anything; and every stage says what it writes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import typer

from contracts.errors import ConfigError
from pipeline import cli
from pipeline.stages._command import READS, WRITES
from tests.command import sightline

ROOT = Path(__file__).resolve().parents[2]
STARTED = sorted(path for path in (ROOT / "pipeline").rglob("*.py") if '__name__ == "__main__"' in path.read_text())
STAGES = [path for path in STARTED if path.parent.name == "stages"]


def test_there_is_one_command_beside_the_stages_that_dvc_runs():
    assert [path.name for path in STARTED if path not in STAGES] == ["cli.py"]
    for path in STAGES:
        assert "from pipeline.stages._command import main" in path.read_text()
    reading = [path for path in (ROOT / "pipeline").rglob("*.py") if "argparse" in path.read_text()]
    assert [path.name for path in reading] == ["_command.py"]


def test_every_command_is_guarded_and_framed():
    for registered in cli.app.registered_commands:
        assert registered.callback.__qualname__ == registered.callback.__wrapped__.__qualname__
        assert registered.callback.__code__.co_name == "framed", registered.name


@pytest.mark.parametrize(
    ("raised", "code", "said"),
    [
        (None, 0, ""),
        (1, 1, ""),
        (ConfigError("no such thing", value="x"), 2, "ConfigError: no such thing: 'x'"),
        (KeyboardInterrupt(), 130, "interrupted"),
    ],
    ids=["well", "wanting", "mistake", "interrupted"],
)
def test_a_command_ends_plainly_and_is_guarded_first(monkeypatch, capsys, raised, code, said):
    done = []
    monkeypatch.setattr(cli, "app", typer.Typer(rich_markup_mode=None))
    monkeypatch.setattr(cli, "guard_process", lambda: done.append("guarded"))
    monkeypatch.setattr("tests.command.app", cli.app)

    @cli.command("other")
    def other() -> None:
        """Beside the one that is tested: typer takes a single command for the whole program."""

    @cli.command("work")
    def work() -> int | None:
        done.append("worked")
        if isinstance(raised, BaseException):
            raise raised
        return raised

    assert sightline("work") == code
    assert done == ["guarded", "worked"]
    assert said in capsys.readouterr().err


def test_a_wrong_command_line_is_told_with_2(capsys):
    assert sightline("score", ["vqa", "--no-such-option"]) == 2
    assert "No such option: --no-such-option" in capsys.readouterr().err


def test_every_stage_locks_what_it_writes():
    starts = [re.search(r"^    main\((\w+), ", path.read_text(), re.MULTILINE) for path in STAGES]
    stages = {start[1] for start in starts if start}
    assert len(stages) >= 6
    assert stages == WRITES.keys()
    assert READS.keys() <= WRITES.keys()
