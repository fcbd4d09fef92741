"""One command, guarded before it does anything; and every stage says what it writes."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
import typer

from contracts.errors import ConfigError
from pipeline import cli
from pipeline.commands import _app
from pipeline.stages._command import _WHAT, STAGES
from tests.command import sightline

ROOT = Path(__file__).resolve().parents[2]
STARTED = sorted(path for path in (ROOT / "pipeline").rglob("*.py") if '__name__ == "__main__"' in path.read_text())


def test_there_is_one_command_beside_the_stages_that_dvc_runs():
    """And two scripts that other processes start."""
    assert [path.name for path in STARTED] == ["cli.py", "process_start.py", "warm.py"]
    assert [path.parent.name for path in (ROOT / "pipeline").rglob("__main__.py")] == ["stages"]
    reading = [path for path in (ROOT / "pipeline").rglob("*.py") if "argparse" in path.read_text()]
    assert [path.name for path in reading] == ["_command.py"]


def test_every_command_is_guarded_and_framed():
    for registered in cli.app.registered_commands:
        assert registered.callback.__qualname__ == registered.callback.__wrapped__.__qualname__
        assert registered.callback.__code__.co_name == "framed", registered.name


@pytest.mark.parametrize(
    ("asked", "code", "said"),
    [("check", 0, "Tell every mistake in params.yaml"), ("chekc", 2, "Did you mean 'check'?")],
)
def test_only_the_command_that_is_asked_for_is_looked_at(monkeypatch, capsys, asked, code, said):
    commands = cli.app.registered_commands
    monkeypatch.setattr(cli.app, "registered_commands", commands)
    monkeypatch.setattr(sys, "argv", ["sightline", asked, "--help"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == code
    assert said in "".join(capsys.readouterr())
    assert len(cli.app.registered_commands) == (1 if code == 0 else len(commands))


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
    monkeypatch.setattr(_app, "app", typer.Typer(rich_markup_mode=None))
    monkeypatch.setattr(_app, "guard_process", lambda: done.append("guarded"))
    monkeypatch.setattr("tests.command.app", _app.app)

    @_app.command("other")
    def other() -> None:
        """Beside the one that is tested: typer takes a single command for the whole program."""

    @_app.command("work")
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


def test_every_stage_is_a_file_with_its_function_and_locks_what_it_writes():
    files = {path.stem for path in (ROOT / "pipeline/stages").glob("[!_]*.py")}
    assert files == STAGES.keys()
    for name, stage in STAGES.items():
        assert re.search(rf"^def {name}\(", (ROOT / f"pipeline/stages/{name}.py").read_text(), re.MULTILINE)
        assert {stage.writes, *stage.reads} <= _WHAT.keys()
