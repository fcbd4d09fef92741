"""Stores and the shard cache against a real S3 server on this machine, behind a proxy that fails on request."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import random
import re
import shutil
import socket
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import fsspec
import pytest

from contracts.errors import ConfigError, DataError
from pipeline.shards import stores
from pipeline.training.state_mirror import StateMirror
from tests.s3_server import Proxy

CONTENT = random.Random(1).randbytes(100_000)
DIGEST = hashlib.sha256(CONTENT).hexdigest()
SIZE = len(CONTENT)


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


def test_what_we_noted_of_an_object_is_not_believed(s3, stored, tmp_path, monkeypatch, capsys):
    assert stores.holds(stored, SIZE, DIGEST)
    fsspec.filesystem("s3").pipe_file("shop/a/b.tar", bytes(SIZE), Metadata={"sha256": DIGEST})
    assert not stores.holds(stored, SIZE, DIGEST)
    monkeypatch.setattr(stores, "PATIENCE_S", 0.1)
    s3.faults += ["500"] * 100  # a store that finds its own bytes damaged gives none
    assert not stores.holds(stored, SIZE, DIGEST)
    assert "cannot be read and is sent again" in capsys.readouterr().out


def test_no_secret_of_a_url_is_printed(s3, stored, capsys, monkeypatch):
    monkeypatch.setattr(stores, "PATIENCE_S", 0.05)
    with pytest.raises(DataError) as caught:
        stores._retried("read", "s3://key:hidden@shop/a?token=hidden", lambda: (_ for _ in ()).throw(EOFError()))
    out = capsys.readouterr().out
    assert "s3://***@shop/a" in out and "hidden" not in out + str(caught.value)


def test_a_listing_is_of_one_folder_and_tells_when_objects_were_written(s3, local, tmp_path):
    for base in ("s3://shop/box", f"file://{tmp_path}/box", "memory://age"):
        before = time.time() - 2  # S3's clock ticks in seconds
        stores.upload(local, f"{base}/b")
        stores.upload(local, f"{base}2/c")
        (name, found), *others = stores.contents(base).items()
        assert (name, found.size, others) == ("b", SIZE, []) and before < found.written < time.time() + 2


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
    told = capsys.readouterr().out.count("trying again for up to 120 s")
    if fault == "reset" and not told:
        return  # of a connection that was kept: aiohttp repeats the request by itself
    assert s3.faults == [] and told == 1


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
    code = "import sys, pipeline.shards.writing; print({'fsspec', 's3fs'} & set(sys.modules))"
    assert subprocess.check_output([sys.executable, "-c", code], cwd=root, text=True).strip() == "set()"


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_process_makes_its_own_connection(s3, stored):
    assert stores.read(stored) == CONTENT  # the event loop's thread runs here, and does not come along
    with ProcessPoolExecutor(1, multiprocessing.get_context("fork")) as pool:
        assert pool.submit(stores.read, stored).result(timeout=30) == CONTENT


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
