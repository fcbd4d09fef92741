"""Serve a trained run or a registered model over HTTP: `sightline serve MODEL`.

    sightline serve vqa_lstm
    curl --data-binary @photo.jpg 'http://127.0.0.1:8000/predict?question=what+color+is+the+circle%3F'

A run is read with the code of this folder. A registered model is served by the code that it ships, in a process of its
own, and only if this project registered it, or with --trust: as `sightline predict` does.
"""

from __future__ import annotations

import errno
import signal
import socket
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from contracts.errors import ConfigError
from pipeline.system.guard import end_with_parent
from pipeline.system.project import Project
from pipeline.tracking.names import Named, exact, named, shipped

_LOOPBACK = ("127.0.0.1", "localhost", "::1")
_BACKLOG = 512
_FINISH_S = 30  # for what is being answered when the server is told to end


@dataclass(frozen=True, kw_only=True)
class Request:
    """What the command line says. `label` is the model's name, where `model` is a temporary file."""

    model: str
    host: str
    port: int
    max_mb: float
    batch: int
    wait_ms: float
    trust: bool
    label: str | None = None


def run(request: Request) -> int:
    """The command: serve until told to end.

    Raises:
        ConfigError: there is no such model, or the address cannot be listened on.
        DataError: the checkpoint cannot be read.
    """
    project = Project.here()
    if request.label is not None:
        end_with_parent()
    chosen = named(project, request.model)
    listener = _listen(request.host, request.port)
    if chosen.uri is not None:
        listener.close()  # the process that serves takes it
        return _serve_with_shipped_code(request, project, exact(project, chosen))
    assert chosen.checkpoint is not None
    with listener:
        _serve(request, chosen.checkpoint, listener)
    return 0


def _listen(host: str, port: int) -> socket.socket:
    """Raises:
    ConfigError: the port is in use, or the address is none of this machine's.
    """
    listener = None
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, proto=socket.IPPROTO_TCP)[0]
        # With its protocol named: asyncio switches Nagle's algorithm off only then, which costs 40 ms an answer.
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(_BACKLOG)
        return listener
    except OSError as error:
        if listener is not None:
            listener.close()
        in_use = error.errno == errno.EADDRINUSE
        raise ConfigError(
            "the port is in use" if in_use else "this address cannot be listened on",
            value=f"{host}:{port}",
            where="" if in_use else str(error),
            fix="end what listens there, or choose another --port (0: one that is free)"
            if in_use
            else "choose another --host or --port",
        ) from None


def _serve(request: Request, checkpoint: Path, listener: socket.socket) -> None:
    import uvicorn

    from pipeline.predicting.service import Limits, Service, application, example

    limits = Limits(max_bytes=int(request.max_mb * 1e6), batch=request.batch, wait_s=request.wait_ms / 1000)
    service = Service(request.label or request.model, checkpoint, limits)
    host, port = request.host, listener.getsockname()[1]
    address = f"http://{f'[{host}]' if ':' in host else host}:{port}"

    def loaded() -> None:
        if service.predictor is None:
            server.should_exit = True
            return
        print(f"serving {service.label} on {address} (Ctrl-C ends it)", flush=True)
        print(f"  {example(service.predictor.inputs, address)}", flush=True)

    if host not in _LOOPBACK:
        print(
            f"warning: {host} is open to others, and nobody is asked for a password: whoever reaches port {port} can "
            "ask this model, and keep this machine busy",
            file=sys.stderr,
        )
    config = uvicorn.Config(
        application(service, address, loaded),
        log_level="warning",
        access_log=False,  # it has the questions that people ask
        server_header=False,
        timeout_graceful_shutdown=_FINISH_S,
    )
    server = uvicorn.Server(config)
    # uvicorn finishes what it has, then lets the signal through: as Ctrl-C does.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    signal.signal(signal.SIGHUP, lambda *_: signal.raise_signal(signal.SIGTERM))
    try:
        server.run(sockets=[listener])
    finally:
        if service.batcher is not None:
            done = service.batcher
            print(f"answered {done.num_records} inputs in {done.num_batches} batches", flush=True)
    if service.failure is not None:
        raise service.failure


def _serve_with_shipped_code(request: Request, project: Project, chosen: Named) -> int:
    """Fetch the model and let the code that it ships serve, in a process that cannot see this folder's code.

    Raises:
        ConfigError: it is no model of ours, or its code is older than this command.
    """
    with tempfile.TemporaryDirectory() as temporary:
        model = shipped(project, chosen, Path(temporary), trust=request.trust)
        if not (model.code / "pipeline" / "predicting" / "serve.py").is_file():
            raise ConfigError(
                "the code that this model ships has no server yet",
                value=str(chosen.uri),
                fix=f"`sightline serve RUN` with a run of this folder, `mlflow models serve -m {chosen.uri} "
                "--env-manager local`, or register it again with today's code",
            )
        command = [*model.command("serve"), "--host", request.host]
        command += ["--port", str(request.port), "--max-mb", str(request.max_mb), "--batch", str(request.batch)]
        command += ["--wait-ms", str(request.wait_ms), "--label", str(chosen.uri)]
        # In a session of its own: a terminal's Ctrl-C would reach it twice, and the second ends it at once.
        process = subprocess.Popen(command, env=model.environment(), start_new_session=True)

        def pass_on(number: int, frame: FrameType | None) -> None:
            process.send_signal(number)

        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, pass_on)
        return process.wait()
