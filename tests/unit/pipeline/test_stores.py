"""Stores and the shard cache against a real S3 server on this machine, behind a proxy that fails on request."""

from __future__ import annotations

import errno
import hashlib
import http.client
import json
import multiprocessing
import os
import random
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import fsspec
import pytest
from localbucket import S3Handler
from s3fs import S3FileSystem

from contracts.errors import ConfigError, DataError
from pipeline import stores
from pipeline.state_mirror import StateMirror
from pipeline.stores import ShardCache

CONTENT = random.Random(1).randbytes(100_000)
DIGEST = hashlib.sha256(CONTENT).hexdigest()
SIZE = len(CONTENT)
DENIED = b"<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"


@dataclass
class Proxy:
    """Stands between s3fs and the server. `faults` befall the next GET and PUT requests, one each, "" being none; until
    `down_until` every request fails with 503."""

    server: int
    port: int = 0
    faults: list[str] = field(default_factory=list)
    down_until: float = 0.0
    delay_s: float = 0.0
    denied: str = "/nobody"  # beginning of the paths that are answered with 403
    asked: list[str] = field(default_factory=list)

    @property
    def gets(self) -> int:
        return sum(line.startswith("GET") for line in self.asked)

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        body = request.rfile.read(int(request.headers.get("Content-Length", 0)))
        self.asked.append(f"{request.command} {request.path}")
        fault = self.faults.pop(0) if self.faults and request.command in ("GET", "PUT") else ""
        if time.monotonic() < self.down_until:
            fault = "503"
        if request.path.startswith(self.denied):
            fault = "403"
        time.sleep(self.delay_s)
        if fault in ("403", "500", "503"):
            return self.reply(request, int(fault), DENIED if fault == "403" else b"")
        if fault == "hang":
            time.sleep(1.5)
            request.close_connection = True
            return None
        if fault == "reset":
            request.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            request.close_connection = True
            return request.connection.close()
        upstream = http.client.HTTPConnection("127.0.0.1", self.server)
        headers = {name: value for name, value in request.headers.items() if name != "Connection"}
        upstream.request(request.command, request.path, body or None, headers)
        answer = upstream.getresponse()
        data = answer.read()
        upstream.close()
        if fault == "wrong":
            data = data[:10] + bytes([data[10] ^ 1]) + data[11:]
        if fault == "cut" and not data:  # the server did what was asked, and its answer is lost
            request.close_connection = True
            return None
        cut = len(data) // 2 if fault == "cut" else None
        return self.reply(request, answer.status, data, answer.getheaders(), cut)

    @staticmethod
    def reply(
        request: BaseHTTPRequestHandler,
        status: int,
        data: bytes,
        headers: list[tuple[str, str]] | None = None,
        cut: int | None = None,
    ) -> None:
        request.send_response_only(status)
        for name, value in headers or [("Content-Length", str(len(data)))]:
            request.send_header(name, value)
        request.end_headers()
        request.wfile.write(data[:cut])
        if cut is not None:
            request.close_connection = True


class Quiet(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        pass


def serve(handler: type[BaseHTTPRequestHandler]) -> ThreadingHTTPServer:
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    return server


@pytest.fixture
def s3(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    """A bucket `shop` on a server whose objects lie in `tmp_path/s3`; hardly any waiting between attempts."""
    (tmp_path / "s3" / "shop").mkdir(parents=True)
    server = serve(type("Server", (S3Handler,), {"data_root": tmp_path / "s3", "log_message": Quiet.log_message}))
    proxy = Proxy(server=server.server_address[1])

    def answer(self: BaseHTTPRequestHandler) -> None:
        proxy.answer(self)

    front = serve(type("Front", (Quiet,), {f"do_{verb}": answer for verb in ("GET", "PUT", "HEAD", "POST", "DELETE")}))
    proxy.port = front.server_address[1]
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{proxy.port}",
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_CONFIG_FILE": str(tmp_path / "none"),
        "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "none"),
        "AWS_EC2_METADATA_DISABLED": "true",
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(stores, "BACKOFF_S", 0.01)
    S3FileSystem.clear_instance_cache()  # it keeps the endpoint of the test before
    yield proxy
    for running in (front, server):
        running.shutdown()
        running.server_close()


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


@pytest.mark.parametrize("kind", ["memory", "file", "s3"])
def test_every_store_does_the_same(kind, tmp_path, local, s3, monkeypatch):
    monkeypatch.setattr(stores, "BLOCK", 6_000)  # 17 blocks, five rounds
    base = {"memory": "memory://box", "file": f"file://{tmp_path}/box", "s3": "s3://shop/box"}[kind]
    url = f"{base}/deep/b.tar"
    assert not stores.exists(url) and stores.listing(base) == {}
    stores.upload(local, url, DIGEST)
    (tmp_path / "empty").touch()
    stores.upload(tmp_path / "empty", f"{base}/empty")
    assert stores.exists(url) and not stores.exists(f"{base}/deep") and stores.size_of(url) == SIZE
    assert stores.read(url) == CONTENT and stores.read(f"{base}/empty") == b""
    assert stores.read_range(url, 99_000, SIZE) == CONTENT[99_000:]
    assert stores.download(url, tmp_path / "back") == DIGEST
    assert (tmp_path / "back").read_bytes() == CONTENT
    assert stores.listing(base) == {"deep/b.tar": SIZE, "empty": 0}
    assert stores.holds(url, SIZE, DIGEST)
    assert not stores.holds(url, SIZE, "0" * 64) and not stores.holds(url, SIZE - 1, DIGEST)
    stores.delete(url)
    stores.delete(url)
    assert stores.listing(base) == {"empty": 0} and not stores.holds(url, SIZE, DIGEST)
    stores.delete(f"{base}/empty")
    assert not list(tmp_path.rglob("*.part"))


def test_large_files_go_up_in_parts(s3, tmp_path, monkeypatch):
    monkeypatch.setattr(stores, "PART", 5 << 20)  # the least that S3 takes
    data = random.Random(2).randbytes(11 << 20)
    (tmp_path / "large").write_bytes(data)
    s3.faults += ["", "503"]  # the second part of the first try
    stores.upload(tmp_path / "large", "s3://shop/large")
    assert sum("partNumber" in line for line in s3.asked) >= 5
    assert stores.read("s3://shop/large") == data


@pytest.mark.parametrize("fault", ["503", "500", "reset", "cut", "hang"])
def test_reading_outlasts_failures(fault, s3, stored, monkeypatch, capsys):
    monkeypatch.setattr(stores, "BLOCK", 30_000)
    if fault == "hang":
        monkeypatch.setattr(stores, "TIMEOUT_S", (1, 0.3))
    s3.faults += ["", fault, "", "", fault, "", fault]
    assert stores.read(stored) == CONTENT
    assert s3.faults == []
    assert capsys.readouterr().out.count("trying again for up to 120 s") == 1


@pytest.mark.parametrize("fault", ["503", "reset", "cut"])
def test_uploads_outlast_failures(fault, s3, local, tmp_path, capsys):
    s3.faults += [fault, fault]
    stores.upload(local, "s3://shop/up")
    assert (tmp_path / "s3/shop/up").read_bytes() == CONTENT
    assert len(s3.asked) >= 3
    assert "upload s3://shop/up" in capsys.readouterr().out


def test_an_outage_is_sat_out(s3, stored):
    s3.down_until = time.monotonic() + 1.0
    assert stores.read(stored) == CONTENT
    assert len(s3.asked) >= 5


def test_patience_ends_with_a_full_account(s3, stored, monkeypatch):
    monkeypatch.setattr(stores, "PATIENCE_S", 0.5)
    s3.down_until = time.monotonic() + 60
    with pytest.raises(DataError) as caught:
        stores.read(stored)
    text = str(caught.value)
    assert re.search(r"failed to find this object for \d+ s, \d+ attempts: 'ClientError: .*503", text), text
    assert stored in text and len(s3.asked) >= 5


def test_a_server_that_is_not_there_counts_as_an_outage(s3, monkeypatch):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{unused.getsockname()[1]}")
        monkeypatch.setattr(stores, "PATIENCE_S", 0.2)
        with pytest.raises(DataError, match="attempts: 'EndpointConnectionError"):
            stores.read("s3://shop/a")


@pytest.mark.parametrize(
    ("request_to", "message"),
    [
        (lambda url, path: stores.read_range("s3://shop/missing", 0, 5), "no such object"),
        (lambda url, path: stores.upload(path, "s3://nowhere/a"), "no such object or bucket"),
        (lambda url, path: stores.upload(path, "s3://denied/a"), "access denied"),
        (lambda url, path: stores.read_range(url, SIZE, SIZE + 5), "the store refuses"),
    ],
)
def test_what_lasts_stops_at_once(request_to, message, s3, stored, local):
    s3.denied = "/denied/"
    with pytest.raises(DataError, match=message) as caught:
        request_to(stored, local)
    assert len(s3.asked) == 1
    assert "s3://" in caught.value.where and caught.value.fix


def test_missing_credentials_stop_at_once(s3, monkeypatch):
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(DataError, match="no credentials") as caught:
        stores.exists("s3://shop/a")
    assert "AWS_ACCESS_KEY_ID" in caught.value.fix and s3.asked == []


def test_public_buckets_are_read_without_credentials(s3, stored, monkeypatch):
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setitem(fsspec.config.conf, "s3", {"anon": "true"})  # what FSSPEC_S3_ANON=true makes at the start
    assert stores.read(stored) == CONTENT


def test_an_unknown_kind_of_store_is_told(tmp_path):
    with pytest.raises(ConfigError, match="no way to reach"):
        stores.exists("s4://shop/a")


def test_retries_do_not_disturb_what_training_draws(s3, stored):
    s3.faults += ["503", "503"]
    before = random.getstate()
    stores.read(stored)
    assert random.getstate() == before and s3.faults == []


def test_starting_imports_no_store(root):
    code = "import sys, pipeline.shards, pipeline.sharding; print({'fsspec', 's3fs', 'aiohttp'} & set(sys.modules))"
    assert subprocess.check_output([sys.executable, "-c", code], cwd=root, text=True).strip() == "set()"


def test_cache_fetches_once(s3, stored, tmp_path):
    cache = ShardCache(folder=tmp_path / "cache")
    path = cache.fetch(stored, DIGEST, SIZE)
    assert path.read_bytes() == CONTENT and path.name == DIGEST
    asked = len(s3.asked)
    assert cache.fetch(stored, DIGEST, SIZE) == path and cache.read(stored, DIGEST) == CONTENT
    assert len(s3.asked) == asked
    path.write_bytes(CONTENT[:500])  # what a crash of the machine may leave
    assert cache.fetch(stored, DIGEST, SIZE).read_bytes() == CONTENT
    assert [p.name for p in (tmp_path / "cache").iterdir() if p.suffix != ".lock"] == [DIGEST]


def test_bytes_damaged_on_the_way_are_fetched_again(s3, stored, tmp_path):
    s3.faults += ["wrong"]
    assert ShardCache(folder=tmp_path / "cache").fetch(stored, DIGEST, SIZE).read_bytes() == CONTENT
    assert s3.gets == 2


def test_a_wrong_digest_is_an_error(s3, stored, tmp_path):
    other = CONTENT[:-1] + b"?"
    (tmp_path / "s3/shop/a/b.tar").write_bytes(other)
    with pytest.raises(DataError) as caught:
        ShardCache(folder=tmp_path / "cache").fetch(stored, DIGEST, SIZE)
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
        objects[i] = (url, hashlib.sha256(bytes([i]) * 1000).hexdigest(), 1000)

    def held() -> set[int]:
        return {i for i, (_, digest, _) in objects.items() if (tmp_path / "cache" / digest).is_file()}

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


def test_a_full_disk_is_told(tmp_path, local, monkeypatch):
    stores.upload(local, "memory://full/a")

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(stores.os, "fsync", full)
    with pytest.raises(DataError, match="disk of the shard cache is full") as caught:
        ShardCache(folder=tmp_path / "cache").fetch("memory://full/a", DIGEST, SIZE)
    assert "SIGHTLINE_CACHE" in caught.value.fix
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
    with os.fdopen(cache.open("memory://vanish/a", DIGEST, SIZE), "rb") as file:
        assert file.read() == CONTENT
    assert len(calls) == 2


def test_two_processes_that_want_one_shard_fetch_it_once(s3, stored, tmp_path):
    s3.delay_s = 0.2  # long enough that both are at it
    cache = ShardCache(folder=tmp_path / "cache")
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as pool:
        list(pool.map(stores.exists, [stored] * 2))  # both have started
        jobs = [pool.submit(cache.fetch, stored, DIGEST, SIZE) for _ in range(2)]
        assert {job.result() for job in jobs} == {tmp_path / "cache" / DIGEST}
    assert s3.gets == 1
    assert (tmp_path / "cache" / DIGEST).read_bytes() == CONTENT


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_process_makes_its_own_connection(s3, stored):
    assert stores.read(stored) == CONTENT  # the event loop's thread runs here, and does not come along
    with ProcessPoolExecutor(1, multiprocessing.get_context("fork")) as pool:
        assert pool.submit(stores.read, stored).result(timeout=30) == CONTENT


def test_a_killed_process_leaves_the_cache_usable(s3, stored, tmp_path, root):
    folder = tmp_path / "cache"
    s3.delay_s = 0.5
    code = f"from pipeline.stores import *; ShardCache(folder=Path({str(folder)!r})).fetch({stored!r}, {DIGEST!r})"
    child = subprocess.Popen([sys.executable, "-c", code], cwd=root)
    while not list(folder.glob(".*.part")):  # it holds the lock and waits for the first block
        assert child.poll() is None
        time.sleep(0.01)
    child.send_signal(signal.SIGKILL)
    child.wait()
    s3.delay_s = 0.0
    assert ShardCache(folder=folder).fetch(stored, DIGEST, SIZE).read_bytes() == CONTENT


def test_a_training_state_outlives_its_folder(s3, tmp_path):
    folder, files = tmp_path / "state", {"best.ckpt": b"best", "run_id": b"7", "ledger/1-rank0000.jsonl": b"{}\n"}
    mirror = StateMirror("s3://shop/states/run-1", folder)
    for step in (2, 4, 6):
        note = json.dumps({"sha256": DIGEST}).encode()
        files |= {f"state-0000000{step}.ckpt": CONTENT, f"state-0000000{step}.json": note}
        for name, data in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(data)
        for old in ("ckpt", "json"):  # the folder keeps two
            (folder / f"state-0000000{step - 4}.{old}").unlink(missing_ok=True)
            files.pop(f"state-0000000{step - 4}.{old}", None)
        s3.faults = ["503", "", "reset", "503"]
        mirror.push()
    assert mirror.pull() == "", "the folder has all of it"
    shutil.rmtree(folder)
    folder.mkdir()
    s3.faults = ["", "503", "cut", "", "reset"]
    assert mirror.pull() == "state-00000006.json"
    assert {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()} == files
    mirror.clear()
    assert stores.listing(mirror.url) == {} and mirror.pull() == ""
