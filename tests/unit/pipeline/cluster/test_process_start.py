"""Processes that Ray starts as forks are what they would be as new ones."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from pipeline.cluster import process_start
from pipeline.system import warm
from tests.waiting import until

SCRIPT = """
import json, os, sys
torch = sys.modules.get("torch")
threads = torch.get_num_threads() if torch else None
print(json.dumps([sys.argv, sys.path[0], os.environ.get("COLOR"), os.nice(0), threads, __name__]))
sys.exit(3)
"""
TOLD = {"env_vars": {"COLOR": "${SHADE}red", "OMP_NUM_THREADS": "1"}}


@pytest.fixture
def script(tmp_path: Path) -> Path:
    (tmp_path / "worker.py").write_text(SCRIPT)
    return tmp_path / "worker.py"


def started(script: Path, context: dict[str, object] | None, **variables: str) -> subprocess.CompletedProcess[str]:
    told = [] if context is None else [f"--serialized-runtime-env-context={json.dumps(context)}", "--language=PYTHON"]
    return subprocess.run(
        [sys.executable, process_start.__file__, str(script), "--a=b", *told],
        env=os.environ | {"SHADE": "dark ", warm.SERVER: ""} | variables,
        capture_output=True, text=True, check=False, preexec_fn=lambda: os.nice(3),
    )  # fmt: skip


def test_a_worker_is_a_fork_with_its_own_environment(script: Path, warm_socket: str):
    nice = os.nice(0)
    done = started(script, TOLD, **{warm.SERVER: warm_socket, "OMP_NUM_THREADS": "2"})
    assert done.returncode == 3, done.stderr
    expected = [[str(script), "--a=b"], str(script.parent), "dark red", nice + 3, 1, "__main__"]
    assert json.loads(done.stdout) == expected


@pytest.mark.parametrize(("asked", "threads"), [("3", 3), ("2, 4", 2), ("many", None), ("0", None)])
def test_a_fork_has_as_many_threads_as_its_environment_says(script: Path, warm_socket: str, asked: str, threads):
    told = json.loads(started(script, {"env_vars": {"OMP_NUM_THREADS": asked}}, **{warm.SERVER: warm_socket}).stdout)
    as_loaded = json.loads(started(script, {}, **{warm.SERVER: warm_socket, "OMP_NUM_THREADS": ""}).stdout)[4]
    assert told[4] == (threads or as_loaded)


def test_an_agent_is_a_fork_as_well(script: Path, warm_socket: str):
    done = started(script, None, **{warm.SERVER: warm_socket})
    assert (done.returncode, json.loads(done.stdout)[:2]) == (3, [[str(script), "--a=b"], str(script.parent)])


def test_ray_starts_a_module_as_well(script: Path, warm_socket: str):
    command = [sys.executable, process_start.__file__, "-m", script.stem, "--a=b"]
    environment = os.environ | {warm.SERVER: warm_socket, "PYTHONPATH": str(script.parent)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, json.loads(done.stdout)[0][1:]) == (3, ["--a=b"]), done.stderr


RAYS_OWN = "import json, sys; print(json.dumps(['own', *sys.argv[1:]]))"


@pytest.mark.parametrize("context", [{}, {"command_prefix": ["podman"]}, {"py_executable": "python3.9"}])
def test_without_the_process_or_in_a_container_it_starts_in_rays_way(
    script: Path, tmp_path: Path, warm_socket: str, context: dict[str, object]
):
    (tmp_path / "own.py").write_text(RAYS_OWN)
    server = str(tmp_path / "gone") if not context else warm_socket
    done = started(script, context, SIGHTLINE_RAY_SETUP_WORKER=str(tmp_path / "own.py"), **{warm.SERVER: server})
    told = f"--serialized-runtime-env-context={json.dumps(context)}"
    assert json.loads(done.stdout) == ["own", str(script), "--a=b", told, "--language=PYTHON"], done.stderr


def test_without_the_process_an_agent_starts_alone(script: Path, tmp_path: Path):
    done = started(script, None, **{warm.SERVER: str(tmp_path / "gone")})
    assert done.returncode == 3 and json.loads(done.stdout)[4] is None, done.stderr


ENDS = "import os, signal, time; print(os.getpid(), flush=True); os.kill(os.getpid(), signal.SIGSTOP); time.sleep(60)"


def test_a_frozen_fork_ends_at_once_with_whoever_ray_started(tmp_path: Path, warm_socket: str):
    """Ray ends the process that it started; the kernel does where Ray's own is gone."""
    (tmp_path / "frozen.py").write_text(ENDS)
    with subprocess.Popen(
        [sys.executable, process_start.__file__, str(tmp_path / "frozen.py")],
        env=os.environ | {warm.SERVER: warm_socket}, stdout=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        fork = int(process.stdout.readline())
        process.send_signal(signal.SIGKILL)
    until(lambda: not psutil.pid_exists(fork))
