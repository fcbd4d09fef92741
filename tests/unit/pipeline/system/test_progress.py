"""Steps that another process tells are shown; what else it says passes unchanged."""

from __future__ import annotations

import io
import sys

import pytest

from pipeline.system import progress
from pipeline.system.progress import Steps, steps_shown, tell


def steps(done: int, text: str, *, keep: bool = False) -> Steps:
    return Steps(title="fcn", done=done, total=10, text=text, keep=keep)


def test_a_log_has_a_line_now_and_then_and_each_that_is_to_be_kept(capsys: pytest.CaptureFixture[str]):
    with steps_shown():
        tell(steps(1, "step 1"))
        tell(steps(2, "step 2"))  # at once after another
        print("a worker's own line")
        tell(steps(5, "epoch 1", keep=True))
    print("after")
    assert capsys.readouterr().out.splitlines() == ["fcn  step 1", "a worker's own line", "fcn  epoch 1", "after"]


def test_lines_come_in_pieces_and_may_be_cut(capsys: pytest.CaptureFixture[str]):
    with steps_shown():
        for piece in ("no newline yet", " ..\n", "\x1e{", '"title": "fcn", "done": 1, ', '"total": 2, "text": "t"}\n'):
            sys.stdout.write(piece)
        sys.stdout.write("half \x1enonsense\nend\n")
    assert capsys.readouterr().out.splitlines() == ["no newline yet ..", "fcn  t", "half ", "end"]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_has_one_bar_and_the_lines_to_be_kept(monkeypatch: pytest.MonkeyPatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setenv("TERM", "xterm")
    with steps_shown():
        tell(steps(1, "epoch 1/2  step 1/10"))
        print("a worker's own line")
        tell(steps(5, "epoch 1/2  step 5/10  val/mIoU 0.5", keep=True))
    shown = terminal.getvalue()
    assert "\x1e" not in shown and "{" not in shown
    assert "a worker's own line\n" in shown.replace("\r", "")
    assert "val/mIoU 0.5" in shown and "\x1b[" in shown
    assert sys.stdout is terminal


def test_a_bar_is_a_line_every_few_seconds_in_a_log(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    with progress.progress_bar("shard voc", 10) as advance:
        for second in range(4):
            now[0] = second * 3.0
            advance(1)
    assert capsys.readouterr().err == "shard voc: 3/10\n"
