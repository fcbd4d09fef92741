"""The shard cache over a real S3 server on this machine."""

from __future__ import annotations

import errno
import hashlib
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from contracts.errors import DataError
from pipeline.shards import cache as shard_cache
from pipeline.shards import stores
from pipeline.shards.cache import ShardCache
from tests.s3_server import Proxy

CONTENT = random.Random(1).randbytes(100_000)
DIGEST = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def local(tmp_path: Path) -> Path:
    path = tmp_path / "local"
    path.write_bytes(CONTENT)
    return path


@pytest.fixture
def stored(s3: Proxy, local: Path) -> str:
    """The url of `CONTENT` in the bucket; nothing asked and no fault yet."""
    stores.upload(local, "s3://shop/a/b.tar", DIGEST)
    s3.asked.clear()
    return "s3://shop/a/b.tar"


def test_cache_fetches_once(s3, stored, tmp_path):
    cache = ShardCache(folder=tmp_path / "cache")
    path = cache.fetch(stored, DIGEST)
    assert path.read_bytes() == CONTENT and path.name == DIGEST
    asked = len(s3.asked)
    assert cache.fetch(stored, DIGEST) == path and cache.read(stored, DIGEST) == CONTENT
    assert len(s3.asked) == asked
    path.write_bytes(CONTENT[:500])  # what a crash of the machine may leave
    assert cache.fetch(stored, DIGEST).read_bytes() == CONTENT
    assert {p.name for p in (tmp_path / "cache").iterdir() if p.suffix != ".lock"} == {DIGEST, f".{DIGEST}.ok"}


def test_a_damaged_file_is_fetched_again_and_told_in_one_line(s3, stored, tmp_path, capsys):
    cache = ShardCache(folder=tmp_path / "cache")
    path = cache.fetch(stored, DIGEST)
    other = CONTENT[:500] + bytes([CONTENT[500] ^ 1]) + CONTENT[501:]
    path.write_bytes(other)
    assert cache.read(stored, DIGEST) == CONTENT and s3.gets == 2
    found = hashlib.sha256(other).hexdigest()
    assert capsys.readouterr().out == f"shard cache: {path} is damaged (its sha256 is {found}); it is fetched again\n"
    assert cache.read(stored, DIGEST) == CONTENT and s3.gets == 2


def test_what_rots_unseen_is_found_after_a_day(s3, stored, tmp_path, monkeypatch):
    cache = ShardCache(folder=tmp_path / "cache")
    path = cache.fetch(stored, DIGEST)
    status = path.stat()
    path.write_bytes(bytes(len(CONTENT)))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))  # no clock tells of it
    monkeypatch.setattr(shard_cache, "VERIFIED_S", 0.0)
    assert cache.read(stored, DIGEST) == CONTENT and s3.gets == 2


def test_a_file_is_digested_once_for_all_processes(s3, stored, tmp_path, monkeypatch):
    path = ShardCache(folder=tmp_path / "cache").fetch(stored, DIGEST)
    digested, digest = [], hashlib.file_digest
    monkeypatch.setattr(hashlib, "file_digest", lambda file, name: (digested.append(file.name), digest(file, name))[1])
    for _ in range(3):
        assert ShardCache(folder=tmp_path / "cache").read(stored, DIGEST) == CONTENT
    assert digested == [], "it was when it came"
    os.utime(path, (0, 0))  # somebody touched it
    for _ in range(3):
        assert ShardCache(folder=tmp_path / "cache").read(stored, DIGEST) == CONTENT
    assert digested == [str(path)] and s3.gets == 1


def test_bytes_damaged_on_the_way_are_fetched_again(s3, stored, tmp_path):
    s3.faults += ["wrong"]
    assert ShardCache(folder=tmp_path / "cache").fetch(stored, DIGEST).read_bytes() == CONTENT
    assert s3.gets == 2


def test_a_wrong_digest_is_an_error(s3, stored, tmp_path):
    other = CONTENT[:-1] + b"?"
    (tmp_path / "s3/shop/a/b.tar").write_bytes(other)
    with pytest.raises(DataError) as caught:
        ShardCache(folder=tmp_path / "cache").fetch(stored, DIGEST)
    assert s3.gets == 2
    for part in (stored, DIGEST, hashlib.sha256(other).hexdigest()):
        assert part in str(caught.value)
    assert [p for p in (tmp_path / "cache").iterdir() if p.suffix != ".lock"] == []


def test_cache_removes_what_was_used_longest_ago(tmp_path):
    cache = ShardCache(2_500, tmp_path / "cache")
    objects = {}
    for i in range(5):
        (tmp_path / "new").write_bytes(bytes([i]) * 1000)
        url = f"memory://evict/{i}"
        stores.upload(tmp_path / "new", url)
        objects[i] = (url, hashlib.sha256(bytes([i]) * 1000).hexdigest())

    def held() -> set[int]:
        return {i for i, (_, digest) in objects.items() if (tmp_path / "cache" / digest).is_file()}

    descriptor = cache.open(*objects[0])
    cache.fetch(*objects[1])
    cache.fetch(*objects[0])
    cache.fetch(*objects[2])
    assert held() == {0, 2}
    cache.fetch(*objects[3])
    assert held() == {2, 3}
    assert os.pread(descriptor, 2, 998) == b"\0\0"  # removed, and still readable by whom it is open
    os.close(descriptor)
    dead = tmp_path / "cache" / f".{'d' * 64}-{'0' * 32}.part"
    others = [tmp_path / "cache" / name for name in ("notes.txt", ".hidden", "download.part")]
    for path in (dead, *others):
        path.write_bytes(bytes(5000))
        os.utime(path, (0, 0))
    ShardCache(10, tmp_path / "cache").fetch(*objects[4])
    assert held() == {4}  # larger than the limit, but asked for
    assert not dead.exists() and all(path.exists() for path in others)
    assert [p.name for p in (tmp_path / "cache").glob(".*.ok")] == [f".{objects[4][1]}.ok"]


def test_a_full_disk_is_told(tmp_path, local, monkeypatch):
    stores.upload(local, "memory://full/a")

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(stores.os, "fsync", full)
    with pytest.raises(DataError, match="cannot write here: 'No space left on device'") as caught:
        ShardCache(folder=tmp_path / "cache").fetch("memory://full/a", DIGEST)
    assert "SIGHTLINE_CACHE" in caught.value.fix and "free)" in caught.value.where
    assert [p for p in (tmp_path / "cache").iterdir() if p.suffix != ".lock"] == []


def test_a_file_that_vanishes_before_it_is_opened_is_fetched_again(tmp_path, local, monkeypatch):
    stores.upload(local, "memory://vanish/a")
    cache = ShardCache(folder=tmp_path / "cache")
    fetch, calls = cache.fetch, []

    def fetch_then_lose(*job: Any) -> Path:
        path = fetch(*job)
        calls.append(path)
        if len(calls) == 1:
            path.unlink()
        return path

    monkeypatch.setattr(cache, "fetch", fetch_then_lose)
    with os.fdopen(cache.open("memory://vanish/a", DIGEST), "rb") as file:
        assert file.read() == CONTENT
    assert len(calls) == 2


def test_two_processes_that_want_one_shard_fetch_it_once(s3, stored, tmp_path):
    s3.delay_s = 0.2  # long enough that both are at it
    cache = ShardCache(folder=tmp_path / "cache")
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as pool:
        list(pool.map(stores.exists, [stored] * 2))  # both have started
        jobs = [pool.submit(cache.fetch, stored, DIGEST) for _ in range(2)]
        assert {job.result() for job in jobs} == {tmp_path / "cache" / DIGEST}
    assert s3.gets == 1
    assert (tmp_path / "cache" / DIGEST).read_bytes() == CONTENT


def test_a_killed_process_leaves_the_cache_usable(s3, stored, tmp_path, root):
    folder = tmp_path / "cache"
    s3.delay_s = 0.5
    code = (
        f"from pipeline.shards.cache import *; ShardCache(folder=Path({str(folder)!r})).fetch({stored!r}, {DIGEST!r})"
    )
    child = subprocess.Popen([sys.executable, "-c", code], cwd=root)
    while not list(folder.glob(".*.part")):  # it holds the lock and waits for the first block
        assert child.poll() is None
        time.sleep(0.01)
    child.send_signal(signal.SIGKILL)
    child.wait()
    s3.delay_s = 0.0
    assert ShardCache(folder=folder).fetch(stored, DIGEST).read_bytes() == CONTENT
