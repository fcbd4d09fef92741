"""Open the MLflow UI on this project's runs: `sightline ui`.

However this process ends, killed outright included, the server ends within seconds: a keeper stands between the two,
sees the pipe from this process close, and ends all of its own session.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import NoReturn

from contracts.redact import redact
from pipeline.settings.params import load_params
from pipeline.settings.sections import TrackingConfig
from pipeline.system.project import Project
from pipeline.tracking.connection import check_driver, tracking_uri

LOOPBACK = ("127.0.0.1", "localhost", "::1")
# Handlers, and not SIG_IGN, which the server would inherit. The keeper's own session holds all that the server starts.
_KEEPER = """
import os, signal, subprocess, sys, threading, time
for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
    signal.signal(number, lambda *_: None)
server = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL)
threading.Thread(target=lambda: os._exit(server.wait() % 256), daemon=True).start()
while os.read(0, 1):
    pass
os.killpg(0, signal.SIGTERM)
time.sleep(3)
os.killpg(0, signal.SIGKILL)
"""


def open_ui(host: str, port: int) -> None:
    """The command: serve until told to end, or say which server has the runs."""
    project = Project.here()
    uri = tracking_uri(load_params(project.root).section(TrackingConfig, "tracking"), project.tracking_root)
    check_driver(uri)
    if uri.startswith(("http://", "https://")):
        print(f"runs are recorded by the server at {redact(uri)}: open that address")
        return
    if host not in LOOPBACK:
        print(
            f"warning: {host} is open to others, and MLflow asks nobody for a password: whoever reaches "
            f"port {port} can read and delete every run and model",
            file=sys.stderr,
        )
    print(f"MLflow UI on http://{host}:{port}", flush=True)
    serve(uri, host, port)


def serve(uri: str, host: str, port: int) -> NoReturn:
    """Run the server until it ends, or until this process is told to; exits with its code."""
    environment = {
        **os.environ,
        "MLFLOW_BACKEND_STORE_URI": uri,  # not on the command line, which every user of the machine can read
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # runners of evaluation jobs, which nothing here starts
    }
    server = [sys.executable, "-m", "mlflow", "server", "--host", host, "--port", str(port), "--workers", "1"]
    keeper = subprocess.Popen(
        [sys.executable, "-c", _KEEPER, *server], env=environment, stdin=subprocess.PIPE, start_new_session=True
    )
    assert keeper.stdin is not None
    try:
        for number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.default_int_handler)
        sys.exit(keeper.wait())
    except KeyboardInterrupt:
        keeper.stdin.close()
        keeper.wait()
        sys.exit(130)
