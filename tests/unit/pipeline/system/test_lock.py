"""Locks between real processes."""

from __future__ import annotations

import errno
import fcntl
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from contracts.errors import ConfigError
from pipeline.system.lock import hold

HOLDER = """
import sys, time
from pathlib import Path
from pipeline.system import lock, orphan
import psutil
folder, shared, seconds, ended = sys.argv[1], sys.argv[2] == "shared", float(sys.argv[3]), sys.argv[4:]
class Gone:
    pid, create_time = 2**22 + 1, lambda self: 0.0
orphan.watched[:] = [Gone()] if ended else []
with lock.hold(Path(folder), "shards-coco", "the shards", shared=shared):
    print("held", flush=True)
    time.sleep(seconds)
"""


@contextmanager
def holder(
    root: Path, folder: Path, how: str = "alone", seconds: float = 60, *more: str
) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the lock."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(folder), how, str(seconds), *more],
        cwd=root,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "held\n"
            yield process
        finally:
            process.kill()


def test_a_second_process_is_refused_and_told_who_is_there(root, tmp_path):
    with holder(root, tmp_path) as other:
        for shared in (False, True):
            with (
                pytest.raises(ConfigError, match="another process is at work on this") as caught,
                hold(tmp_path, "shards-coco", "the shards", shared=shared),
            ):
                raise AssertionError
            assert f"process {other.pid} of " in caught.value.where
            assert "since 20" in caught.value.where
        with hold(tmp_path, "shards-voc", "others"):
            pass


def test_readers_share_and_keep_writers_out(root, tmp_path):
    with holder(root, tmp_path, "shared") as other:
        with hold(tmp_path, "shards-coco", "the shards", shared=True):
            pass
        with (
            pytest.raises(ConfigError, match=f"process {other.pid} of"),
            hold(tmp_path, "shards-coco", "the shards"),
        ):
            raise AssertionError


def test_the_lock_of_one_that_was_killed_is_taken_over_in_a_line(root, tmp_path, capsys):
    with holder(root, tmp_path) as other:
        other.kill()
        other.wait()
        with hold(tmp_path, "shards-coco", "the shards"):
            pass
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith(f"the shards: taken over from process {other.pid} of ")
    with hold(tmp_path, "shards-coco", "the shards"):
        pass
    assert capsys.readouterr().out == "", "who let go in order is not spoken of"


def test_one_that_ends_because_its_dvc_is_gone_is_waited_for(root, tmp_path, capsys):
    with holder(root, tmp_path, "alone", 1.0, "ended") as other, hold(tmp_path, "shards-coco", "the shards"):
        assert other.wait(10) == 0
    assert f"the shards: waiting for process {other.pid} of " in capsys.readouterr().out


def test_a_forked_child_does_not_hold_its_parents_lock(root, tmp_path):
    forked, tell = os.pipe()
    with hold(tmp_path, "shards-coco", "the shards"):
        child = os.fork()
        if child == 0:
            os.write(tell, b".")
            time.sleep(30)
            os._exit(0)
    os.read(forked, 1)  # on a busy machine the child may come late to life
    try:
        with holder(root, tmp_path):
            pass
    finally:
        os.kill(child, 9)
        os.waitpid(child, 0)


def test_an_error_inside_lets_go(tmp_path, capsys):
    with pytest.raises(KeyboardInterrupt), hold(tmp_path, "run-a", "the run"):
        raise KeyboardInterrupt
    with hold(tmp_path, "run-a", "the run"):
        pass
    assert capsys.readouterr().out == ""


def test_a_file_system_without_locks_is_told_of(tmp_path, monkeypatch, capsys):
    def flock(descriptor: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", flock)
    with hold(tmp_path, "run-a", "the run"):
        pass
    assert "this file system has no locks" in capsys.readouterr().out
