"""A real MLflow server on the loopback, and a gate before it that asks for a password."""

from __future__ import annotations

import base64
import http.client
import http.server
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def server(root: Path, port: int, *options: str, **variables: str) -> Iterator[subprocess.Popen]:
    """`mlflow server` on the loopback, with more `options` and environment `variables`, killed with its workers when
    the block is left."""
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{root}/mlflow.db", "--artifacts-destination", str(root / "served")]
    command += options
    with open(root / "server.log", "ab") as log:
        environment = {**os.environ, **variables, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}  # jobs: not needed
        process = subprocess.Popen(command, cwd=root, env=environment, stdout=log, stderr=log, start_new_session=True)
    try:
        deadline = time.monotonic() + 300
        while True:
            with suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5):
                break
            assert process.poll() is None, (root / "server.log").read_text()
            assert time.monotonic() < deadline, (root / "server.log").read_text()
            time.sleep(0.2)
        yield process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def gate(server_port: int, user: str, password: str) -> Iterator[int]:
    """A reverse proxy that passes on what comes with this user and password, and answers 401 to all else."""
    expected = "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()

    class Gate(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_any(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if self.headers.get("Transfer-Encoding") == "chunked":
                while size := int(self.rfile.readline(), 16):
                    body += self.rfile.read(size)
                    self.rfile.readline()
                self.rfile.readline()
            if self.headers.get("Authorization") != expected:
                self.answer(401, b"who are you?", {})
                return
            kept = {k: v for k, v in self.headers.items() if k.lower() in ("content-type", "accept")}
            onward = http.client.HTTPConnection("127.0.0.1", server_port, timeout=60)
            onward.request(self.command, self.path, body, {**kept, "Content-Length": str(len(body))})
            response = onward.getresponse()
            headers = {k: v for k, v in response.getheaders() if k.lower() == "content-type"}
            self.answer(response.status, response.read(), headers)
            onward.close()

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = handle_any

        def answer(self, status: int, body: bytes, headers: dict[str, str]) -> None:
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    proxy = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Gate)
    proxy.daemon_threads = True
    thread = threading.Thread(target=proxy.serve_forever, daemon=True)
    thread.start()
    try:
        yield proxy.server_address[1]
    finally:
        proxy.shutdown()
        proxy.server_close()
        thread.join()
