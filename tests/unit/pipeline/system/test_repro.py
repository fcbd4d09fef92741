"""`sightline repro` tells a line a stage, and ends as DVC does."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

REPRO = (
    "import sys; from pipeline.system.repro import repro; sys.exit(repro(sys.argv[2:], int(sys.argv[1]), {'a': 'b'}))"
)


@pytest.fixture(scope="module")
def initialised(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("initialised")
    subprocess.run([sys.executable, "-m", "dvc", "init", "--no-scm", "-q"], cwd=folder, check=True)
    return folder


@pytest.fixture
def project(initialised: Path, tmp_path: Path) -> Path:
    shutil.copytree(initialised, tmp_path, dirs_exist_ok=True)
    stages = {
        "check": {"cmd": "echo checked > one", "outs": ["one"]},
        "draw": {"foreach": ["a", "b"], "do": {"cmd": "cp one ${item}", "deps": ["one"], "outs": ["${item}"]}},
    }
    (tmp_path / "dvc.yaml").write_text(yaml.safe_dump({"stages": stages}))
    return tmp_path


def repro(root: Path, project: Path, *arguments: str, jobs: int = 1) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-c", REPRO, str(jobs), *arguments], cwd=project, env=os.environ | {"PYTHONPATH": str(root)},
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


@pytest.mark.parametrize(
    ("sent", "shell", "jobs"),
    [
        (signal.SIGINT, "/bin/sh", 1),
        (signal.SIGINT, "/bin/bash", 2),
        (signal.SIGTERM, "/bin/sh", 2),
        (signal.SIGTERM, "/bin/bash", 1),
    ],
)
def test_a_signal_ends_the_stage_in_its_own_way_and_then_the_command(
    root: Path, project: Path, sent: signal.Signals, shell: str, jobs: int
):
    stage = "import signal, sys, time\nsignal.signal(signal.SIGTERM, signal.default_int_handler)\ntry:\n"
    wait = "    print('on', flush=True)\n    time.sleep(60)\n"
    end = "except KeyboardInterrupt:\n    print('state written')\n    sys.exit(130)\n"
    (project / "stage.py").write_text(stage + wait + end)
    text = (project / "dvc.yaml").read_text()
    (project / "dvc.yaml").write_text(text.replace("echo checked > one", f"{sys.executable} stage.py"))
    process = subprocess.Popen(
        [sys.executable, "-c", REPRO, str(jobs)], cwd=project,
        env=os.environ | {"PYTHONPATH": str(root), "SHELL": shell},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip
    assert process.stdout is not None
    while not process.stdout.readline().endswith("on\n"):
        assert process.poll() is None
    if sent == signal.SIGINT:
        os.killpg(process.pid, sent)  # as a terminal does
    else:
        process.send_signal(sent)
    told = process.communicate(timeout=30)[0]
    assert process.returncode == 130
    assert "state written" in told and "ERROR" not in told and "Traceback" not in told


@pytest.fixture
def branches(project: Path) -> Path:
    """`check`, then four branches of two stages each, whose first ones wait for each other in pairs, then `all`."""
    wait = "for i in $(seq 200); do [ -e met-{1} ] && break; sleep 0.05; done"
    meet = f"touch met-{{0}}; {wait}; [ -e met-{{1}} ] && echo {{0}} > {{0}}"
    pairs = {"a": "b", "b": "a", "c": "d", "d": "c"}
    stages: dict[str, Any] = {"check": {"cmd": "echo checked > one", "outs": ["one"], "always_changed": True}}
    for name, other in pairs.items():
        stages[f"train_{name}"] = {"cmd": meet.format(name, other), "deps": ["one"], "outs": [name]}
        stages[f"use_{name}"] = {"cmd": f"cp {name} {name}2", "deps": [name], "outs": [f"{name}2"]}
    stages["all"] = {"cmd": "cat a2 b2 c2 d2 > all", "deps": ["a2", "b2", "c2", "d2"], "outs": ["all"]}
    (project / "dvc.yaml").write_text(yaml.safe_dump({"stages": stages}))
    return project


def locked(project: Path) -> dict[str, Any]:
    return yaml.safe_load((project / "dvc.lock").read_text())["stages"]


def test_stages_that_do_not_depend_on_each_other_run_at_once(root: Path, branches: Path):
    """Each waits for another one, so one after the other they would all fail."""
    code, told = repro(root, branches, jobs=2)
    assert code == 0, told
    assert (branches / "all").read_text() == "a\nb\nc\nd\n"
    assert "[1/10] check" in told and "10 stages ran, 0 were up to date" in told
    side_by_side = locked(branches)
    code, told = repro(root, branches, jobs=2)
    assert code == 0 and "1 stages ran, 9 were up to date" in told and locked(branches) == side_by_side
    assert "9 were up to date" in repro(root, branches)[1], "one after the other it is the same project"
    (branches / "a2").unlink()
    assert "2 stages ran" not in repro(root, branches, "use_a", jobs=2)[1], "from DVC's cache of runs"
    assert (branches / "a2").read_text() == "a\n"


@pytest.mark.parametrize(("jobs", "given", "expected"), [(1, None, "all"), (1000, None, "1"), (1000, "3", "3")])
def test_stages_at_once_share_the_processors(
    root: Path, project: Path, monkeypatch: pytest.MonkeyPatch, jobs: int, given: str | None, expected: str
):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if given:
        monkeypatch.setenv("OMP_NUM_THREADS", given)
    text = (project / "dvc.yaml").read_text()
    (project / "dvc.yaml").write_text(
        text.replace("echo checked > one", "printenv OMP_NUM_THREADS > one || echo all > one")
    )
    repro(root, project, "check", jobs=jobs)
    assert (project / "one").read_text() == f"{expected}\n"


def test_lines_of_stages_side_by_side_are_told_apart(root: Path, branches: Path):
    text = (branches / "dvc.yaml").read_text()
    (branches / "dvc.yaml").write_text(text.replace("cp a a2", "echo one step; echo two >&2; cp a a2"))
    told = repro(root, branches, jobs=2)[1].splitlines()
    assert "use_a | one step" in told and "use_a | two" in told


@pytest.mark.parametrize(("options", "missing"), [((), {"all"}), (("--keep-going",), {"all", "a2"})])
def test_of_what_fails_side_by_side_the_others_are_kept(root: Path, branches: Path, options, missing):
    text = (branches / "dvc.yaml").read_text()
    (branches / "dvc.yaml").write_text(text.replace("cp a a2", "exit 7"))
    code, told = repro(root, branches, *options, jobs=2)
    assert code not in (0, 130) and "exit 7" in told and "use_a" in told
    assert not any((branches / name).exists() for name in missing)
    if options:
        assert {"b2", "c2", "d2"} <= {path.name for path in branches.iterdir()}
    assert set(locked(branches)) >= {"check", "train_a", "train_b"} and "use_a" not in locked(branches)
    assert subprocess.run([sys.executable, "-m", "dvc", "status"], cwd=branches, check=False).returncode == 0, (
        "unlocked"
    )


@pytest.fixture
def trainings(project: Path) -> Path:
    """Two runs that `a.sh` and `b.sh` train; `a` starts from `b`."""
    train = {"foreach": ["a", "b"], "do": {"cmd": "sh ${item}.sh", "deps": ["one"], "outs": ["${item}"]}}
    check = {"cmd": "echo checked > one", "outs": ["one"]}
    (project / "dvc.yaml").write_text(yaml.safe_dump({"stages": {"check": check, "train": train}}))
    return project


def test_a_run_waits_for_the_one_that_it_starts_from(root: Path, trainings: Path):
    """DVC knows nothing of it: named alone, it would run without, and beside the other, before it is done."""
    project = trainings
    (project / "a.sh").write_text("cat b > a")
    (project / "b.sh").write_text("sleep 1; echo weights > b")
    code, told = repro(root, project, "train@a", jobs=2)
    assert code == 0, told
    assert (project / "a").read_text() == "weights\n" and "[1/3] check" in told and "[3/3] train a" in told


def test_a_run_does_not_begin_where_the_one_that_it_starts_from_failed(root: Path, trainings: Path):
    project = trainings
    (project / "a.sh").write_text("touch begun; echo > a")
    (project / "b.sh").write_text("exit 7")
    for options in ((), ("--keep-going",)):
        code, told = repro(root, project, *options, jobs=2)
        assert code not in (0, 130) and "exited with 7" in told
        assert not (project / "begun").exists(), "it starts from b"
