"""`sightline repro` tells a line a stage, and ends as DVC does."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

REPRO = "import sys; from pipeline.system.repro import repro; sys.exit(repro(sys.argv[1:]))"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    subprocess.run([sys.executable, "-m", "dvc", "init", "--no-scm", "-q"], cwd=tmp_path, check=True)
    stages = {
        "check": {"cmd": "echo checked > one", "outs": ["one"]},
        "draw": {"foreach": ["a", "b"], "do": {"cmd": "cp one ${item}", "deps": ["one"], "outs": ["${item}"]}},
    }
    (tmp_path / "dvc.yaml").write_text(yaml.safe_dump({"stages": stages}))
    return tmp_path


def repro(root: Path, project: Path, *arguments: str) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-c", REPRO, *arguments], cwd=project, env=os.environ | {"PYTHONPATH": str(root)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    return done.returncode, done.stdout + done.stderr


def test_stages_are_counted_and_told_in_a_line_each(root: Path, project: Path):
    code, told = repro(root, project)
    lines = [line for line in told.splitlines() if line]
    assert (code, lines[0]) == (0, "[1/3] check")
    assert lines[1].startswith("[2/3] draw ") and lines[2].startswith("[3/3] draw ")
    assert lines[-1] == "3 stages ran, 0 were up to date"
    assert "Running stage" not in told and "> " not in told
    text = (project / "dvc.yaml").read_text()
    (project / "dvc.yaml").write_text(text.replace("cp one ${item}", "cat one > ${item}"))
    code, told = repro(root, project, "draw@b")
    assert code == 0
    assert "[2/2] draw b" in told and "1 stages ran, 1 were up to date" in told


def test_a_stage_that_fails_is_told_by_dvc(root: Path, project: Path):
    text = (project / "dvc.yaml").read_text()
    (project / "dvc.yaml").write_text(text.replace("echo checked > one", "exit 7"))
    code, told = repro(root, project)
    assert code != 0
    assert "[1/3] check" in told and "failed to run: exit 7" in told


@pytest.mark.parametrize("shell", ["/bin/sh", "/bin/bash"])
@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_stage_in_its_own_way_and_then_the_command(
    root: Path, project: Path, sent: signal.Signals, shell: str
):
    stage = "import signal, sys, time\nsignal.signal(signal.SIGTERM, signal.default_int_handler)\ntry:\n"
    wait = "    print('on', flush=True)\n    time.sleep(60)\n"
    end = "except KeyboardInterrupt:\n    print('state written')\n    sys.exit(130)\n"
    (project / "stage.py").write_text(stage + wait + end)
    text = (project / "dvc.yaml").read_text()
    (project / "dvc.yaml").write_text(text.replace("echo checked > one", f"{sys.executable} stage.py"))
    process = subprocess.Popen(
        [sys.executable, "-c", REPRO], cwd=project, env=os.environ | {"PYTHONPATH": str(root), "SHELL": shell},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip
    assert process.stdout is not None
    while process.stdout.readline() != "on\n":
        assert process.poll() is None
    if sent == signal.SIGINT:
        os.killpg(process.pid, sent)  # as a terminal does
    else:
        process.send_signal(sent)
    told = process.communicate(timeout=30)[0]
    assert process.returncode == 130
    assert "state written" in told and "ERROR" not in told and "Traceback" not in told
