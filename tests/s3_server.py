"""A real S3 server on this machine, behind a proxy that fails on request and counts what it is asked."""

from __future__ import annotations

import http.client
import os
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from localbucket import S3Handler
from s3fs import S3FileSystem

from pipeline.shards import stores

DENIED = b"<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"


class Line:
    """Carries so many bytes a second of all answers together, and counts them."""

    def __init__(self, bytes_per_s: float):
        self.carried = 0
        self._bytes_per_s, self._lock, self._free = bytes_per_s, threading.Lock(), 0.0

    def carry(self, size: int) -> None:
        """Returns when so many bytes are through, after all that came before."""
        with self._lock:
            self.carried += size
            self._free = max(self._free, time.monotonic()) + size / self._bytes_per_s
            wait_s = self._free - time.monotonic()
        time.sleep(max(0.0, wait_s))


@dataclass
class Proxy:
    """Stands between s3fs and the server. `faults` befall the next GET and PUT requests, one each, "" being none; until
    `down_until` every request fails with 503."""

    server: int
    port: int = 0
    faults: list[str] = field(default_factory=list)
    down_until: float = 0.0
    delay_s: float = 0.0
    line: Line | None = None  # what answers come through
    denied: str = "/nobody"  # beginning of the paths that are answered with 403
    asked: list[str] = field(default_factory=list)

    @property
    def gets(self) -> int:
        return sum(line.startswith("GET") for line in self.asked)

    @property
    def puts(self) -> list[str]:
        """What was sent, in its order: paths with the bucket, each time it was asked for."""
        return [line.removeprefix("PUT /") for line in self.asked if line.startswith("PUT")]

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
        if self.line is not None and request.command == "GET":
            self.line.carry(len(data))
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


@contextmanager
def running(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    """A server with the bucket `shop`, whose objects lie in `tmp_path/s3`, and the environment that leads there."""
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
    try:
        yield proxy
    finally:
        for each in (front, server):
            each.shutdown()
            each.server_close()
