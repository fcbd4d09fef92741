"""A stage in a fork of the warm process is the stage that it would be alone: streams, folder, environment, end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from pipeline.system import warm

CALLER = """
import sys
from pipeline.system import warm
code = warm.hand_over(sys.argv[1:])
sys.exit(99 if code is None else code if code >= 0 else 128 - code)
"""
STAGE = """
import json, os, random, sys, time
mask = os.umask(0); os.umask(mask)
print(json.dumps([sys.argv[1:], os.getcwd(), os.environ["COLOR"], mask, "torch" in sys.modules, __name__]), flush=True)
print(random.random(), file=sys.stderr, flush=True)
if sys.argv[1] == "wait":
    open("started", "w").write(str(os.getpid()))
    try:
        time.sleep(60)
    except KeyboardInterrupt:
        print("interrupted once", flush=True)
        time.sleep(0.3)
        sys.exit(130)
sys.exit(3)
"""


@pytest.fixture
def server(tmp_path: Path, warm_socket: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Folder with a stage, which a fork of the warm process finds."""
    (tmp_path / "a_stage.py").write_text(STAGE)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv(warm.VARIABLE, warm_socket)
    return tmp_path


def caller(folder: Path, *arguments: str, **variables: str) -> subprocess.Popen[str]:
    return called(folder, "-m", "a_stage", *arguments, **variables)


def called(folder: Path, *arguments: str, **variables: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", CALLER, *arguments],
        cwd=folder, env=os.environ | {"COLOR": "red"} | variables, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True, umask=0o027, start_new_session=True,
    )  # fmt: skip


def waiting(folder: Path) -> tuple[subprocess.Popen[str], psutil.Process]:
    (folder / "started").unlink(missing_ok=True)
    process = caller(folder, "wait")
    while not (folder / "started").exists() or not (folder / "started").read_text():
        time.sleep(0.02)
        assert process.poll() is None, process.communicate()
    return process, psutil.Process(int((folder / "started").read_text()))


def test_it_is_the_stage_that_it_would_be_alone(server: Path):
    first, second = caller(server, "a", "b"), caller(server, "a", "b")  # at once
    told = [process.communicate(timeout=120) for process in (first, second)]
    assert [first.returncode, second.returncode] == [3, 3]
    assert told[0][0] == f'[["a", "b"], "{server}", "red", 23, true, "__main__"]\n'  # 23 is 0o027
    assert told[0][1] != told[1][1], "each draws its own numbers"


LOOKS = """
import json, sys
ours = [name for name in sys.modules if name.startswith("pipeline")]
print(json.dumps([sys.argv, ours, "torch" in sys.modules, sys.path]))
"""


@pytest.mark.parametrize("safe", ["1", ""])
def test_it_looks_for_modules_as_a_new_process_does(server: Path, tmp_path: Path, safe: str):
    variables = {"PYTHONSAFEPATH": safe, "PYTHONPATH": str(tmp_path)}
    alone = subprocess.run(
        [sys.executable, "-c", LOOKS, "a"], cwd=server, env=os.environ | variables, capture_output=True, check=True
    )
    forked = called(server, "-c", LOOKS, "a", **variables)
    argv, ours, has_torch, path = json.loads(forked.communicate(timeout=120)[0])
    assert (argv, ours, has_torch) == (["-c", "a"], [], True)
    assert path == [entry or str(server) for entry in json.loads(alone.stdout)[3]]  # "" is the folder that one is in


def test_a_signal_comes_once_and_the_stage_ends_in_its_own_way(server: Path):
    process, _ = waiting(server)
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=30)
    assert (out.splitlines()[1], process.returncode) == ("interrupted once", 130)
    process, _ = waiting(server)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=30)
    assert process.returncode == 128 + signal.SIGTERM


def test_the_stage_ends_with_its_caller(server: Path):
    process, stage = waiting(server)
    process.kill()
    process.communicate()
    assert psutil.wait_procs([stage], timeout=20)[0] == [stage]


def test_without_the_process_there_is_none_to_hand_over_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv(warm.VARIABLE, raising=False)
    assert warm.hand_over(("-m", "a_stage")) is None
    monkeypatch.setenv(warm.VARIABLE, str(tmp_path / "gone"))
    assert warm.hand_over(("-m", "a_stage")) is None


KILLER = """
import socket, sys
with socket.socket(socket.AF_UNIX) as listener:
    listener.bind(sys.argv[1])
    listener.listen()
    print("ready", flush=True)
    listener.accept()[0].close()
"""


def test_a_stage_whose_process_is_killed_is_killed_too_and_says_nothing(tmp_path: Path, root: Path):
    path = str(tmp_path / "warm")
    with subprocess.Popen([sys.executable, "-c", KILLER, path], stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None and server.stdout.readline() == "ready\n"
        done = subprocess.run(
            [sys.executable, "-m", "pipeline.stages", "train", "any"], cwd=root, capture_output=True, text=True,
            env=os.environ | {warm.VARIABLE: path}, check=False,
        )  # fmt: skip
    assert (done.returncode, done.stderr) == (-signal.SIGKILL, "")


OWNER = """
import sys, time
from pathlib import Path
from pipeline.system import warm
with warm.started(Path(sys.argv[1])) as start:
    start()
    time.sleep(60)
"""


def test_the_process_ends_with_whom_it_serves(tmp_path: Path, root: Path):
    for library in ("torch", "torchvision", "pytorch_lightning", "webdataset", "cv2", "albumentations", "mlflow"):
        (tmp_path / f"{library}.py").touch()  # found first: the real ones take ten seconds
    path = f"{tmp_path}{os.pathsep}{root}"
    owner = subprocess.Popen([sys.executable, "-c", OWNER, str(tmp_path)], env=os.environ | {"PYTHONPATH": path})
    while not (tmp_path / "warm").exists():
        time.sleep(0.05)
    (served,) = psutil.Process(owner.pid).children()
    owner.kill()
    owner.wait()
    assert psutil.wait_procs([served], timeout=60)[0] == [served]
