"""`sightline serve`'s application on a port of the loopback, in a thread, and a client that asks it over HTTP."""

from __future__ import annotations

import http.client
import json
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import uvicorn

from pipeline.predicting.service import Service, application


class Client:
    """Asks one server; each request on a connection of its own."""

    def __init__(self, port: int):
        self.port = port

    def ask(
        self, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None
    ) -> tuple[int, Any, Mapping[str, str]]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request(method, path, body, {**(headers or {})})
            response = connection.getresponse()
            text = response.read()
            kind = response.headers.get_content_type()
            return response.status, json.loads(text) if kind == "application/json" else text.decode(), response.headers
        finally:
            connection.close()

    def predict(self, body: Any, query: str = "", kind: str = "application/octet-stream") -> tuple[int, Any]:
        return self.ask("POST", f"/predict{query}", body, {"Content-Type": kind} if kind else {})[:2]

    def form(self, parts: Sequence[tuple[str, str | None, bytes]]) -> tuple[int, Any]:
        """`parts`: name, file name (None: a field), value."""
        boundary, body = uuid.uuid4().hex, b""
        for name, file, value in parts:
            of_file = "" if file is None else f'; filename="{file}"'
            body += f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"{of_file}\r\n\r\n'.encode()
            body += value + b"\r\n"
        return self.predict(body + f"--{boundary}--\r\n".encode(), kind=f"multipart/form-data; boundary={boundary}")


@contextmanager
def running(service: Service, wait: bool = True) -> Iterator[Client]:
    """A server in a thread; `wait` until the model is loaded."""
    loaded = threading.Event()
    listener = socket.socket(proto=socket.IPPROTO_TCP)
    listener.bind(("127.0.0.1", 0))
    app = application(service, "http://here:1", loaded.set)
    server = uvicorn.Server(uvicorn.Config(app, log_level="critical", access_log=False))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        if wait:
            assert loaded.wait(30)
            assert service.failure is None
        while not server.started:
            time.sleep(0.01)
        yield Client(listener.getsockname()[1])
    finally:
        server.should_exit = True
        thread.join(30)
        assert not thread.is_alive()


def until(holds: Callable[[], bool], patience_s: float = 30.0) -> None:
    deadline = time.monotonic() + patience_s
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)
