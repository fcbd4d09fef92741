"""Fetching and extracting on a full disk."""

from __future__ import annotations

import errno
import http.server
import os
import shutil
import subprocess
import sys
import threading
import zipfile
from functools import partial
from pathlib import Path

import numpy as np

from tests.waiting import PATIENCE_S

# Files may grow to a megabyte here: the kernel refuses the rest of a write, as it does on a full disk.
FULL = """
import contextlib, pathlib, resource, sys
from contracts.errors import DataError
from pipeline.ingest.extract import extract
from pipeline.settings.archives import Archive
from pipeline.ingest.download import fetch
url, cache, limit = sys.argv[1], pathlib.Path(sys.argv[2]), int(sys.argv[3])
bar = lambda *_: contextlib.nullcontext(lambda _: None)
if limit:
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
try:
    file = fetch("it", Archive(url=url, size=None, checksum=None), cache, (), bar) if url else cache / "it.zip"
    print(len(extract(file, cache / "out", lambda _: None)))
except DataError as error:
    print(error)
"""


def test_a_full_disk_is_named(root: Path, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).bytes(3 << 20)
    served, cache = tmp_path / "served", tmp_path / "cache"
    served.mkdir()
    cache.mkdir()
    with zipfile.ZipFile(served / "it.zip", "w") as file:
        file.writestr("noise", noise)
    handler = partial(QuietHandler, directory=str(served))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_address[1]}/it.zip"

        def run(url: str, limit: int) -> str:
            command = [sys.executable, "-c", FULL, url, str(cache), str(limit)]
            done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False, timeout=PATIENCE_S)
            assert done.returncode == 0, done.stderr
            return done.stdout

        told = run(url, 1 << 20)
        assert "cannot write what was fetched" in told
        assert str(cache / "it.zip.part") in told
        assert os.strerror(errno.EFBIG) in told
        assert not (cache / "it.zip").exists()
        shutil.copy(served / "it.zip", cache / "it.zip")
        told = run("", 1 << 20)
        assert "cannot extract an archive" in told
        assert str(cache / "out/noise") in told
        (cache / "it.zip").unlink()
        assert run(url, 0).strip() == "1"  # with room
        server.shutdown()
    assert (cache / "out/noise").read_bytes() == noise


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass
