"""What every process makes sure of before it does anything."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import psutil
import pytest

from contracts.errors import ConfigError
from pipeline.system.guard import guard_process


@pytest.fixture(autouse=True)
def umask() -> Iterator[None]:
    before = os.umask(0o022)
    yield
    os.umask(before)


@pytest.mark.parametrize(("wanted", "mode"), [(None, 0o600), ("077", 0o600), ("027", 0o640), ("022", 0o644)])
def test_files_are_for_the_user_alone_unless_shared_on_purpose(tmp_path, monkeypatch, wanted, mode):
    monkeypatch.delenv("SIGHTLINE_UMASK", raising=False)
    if wanted is not None:
        monkeypatch.setenv("SIGHTLINE_UMASK", wanted)
    guard_process()
    (tmp_path / "file").touch()
    assert (tmp_path / "file").stat().st_mode & 0o777 == mode


@pytest.mark.parametrize("text", ["u=rwx", "", "099", "777", "-1"])
def test_a_umask_that_is_none_is_refused(monkeypatch, text):
    monkeypatch.setenv("SIGHTLINE_UMASK", text)
    with pytest.raises(ConfigError, match="must be an octal number"):
        guard_process()


@pytest.mark.parametrize("text", ["1", "true", "yes"])
def test_unpickling_whatever_a_file_holds_is_refused(monkeypatch, text):
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", text)
    with pytest.raises(ConfigError, match="code that is hidden"):
        guard_process()


ENDING = """
import time
from pipeline.system.guard import end_on_sigterm, ended_plainly
with ended_plainly("ended in order"):
    end_on_sigterm()
    try:
        print("ready", flush=True)
        time.sleep(60)
    finally:
        print("ending", flush=True)
        time.sleep(1)
        print("ended", flush=True)
"""


def test_sigterm_once_begins_the_orderly_end_and_twice_does_not_disturb_it(root):
    command = [sys.executable, "-c", ENDING]
    with subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        for line in ("ready\n", "ending\n"):
            assert process.stdout.readline() == line
            process.terminate()
        out, err = process.communicate(timeout=30)
    assert (process.returncode, out, err) == (130, "ended\n", "ended in order\n")


CHILD = """
import os, signal
from pipeline.system.guard import end_with_parent
os.setsid()  # a stopped process of its parent's session is woken when that dies, and ends of it
end_with_parent()
print(os.getpid(), flush=True)
os.kill(os.getpid(), signal.SIGSTOP)
"""
PARENT = "import subprocess, sys; subprocess.run([sys.executable, '-c', sys.argv[1]])"


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's own service")
def test_a_stopped_process_ends_with_the_one_that_started_it(root):
    with subprocess.Popen([sys.executable, "-c", PARENT, CHILD], cwd=root, stdout=subprocess.PIPE, text=True) as parent:
        child = psutil.Process(int(parent.stdout.readline()))
        try:
            while child.status() != psutil.STATUS_STOPPED:
                pass
            parent.kill()
            assert not psutil.wait_procs([child], timeout=10)[1]
        finally:
            if child.is_running():
                child.kill()
