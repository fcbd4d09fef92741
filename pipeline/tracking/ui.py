"""Open the MLflow UI on this project's runs: `sightline ui`.

However this process ends, killed outright included, the server ends within seconds: a keeper stands between the two,
sees the pipe from this process close, and ends all of its own session.
"""

from __future__ import annotations

import errno
import os
import signal
import socket
import subprocess
import sys
import time
from typing import NoReturn

import psutil
from mlflow.tracking import MlflowClient

from contracts.errors import ConfigError
from contracts.redact import redact
from pipeline.settings.params import load_params
from pipeline.settings.sections import TrackingConfig
from pipeline.system.project import Project
from pipeline.tracking.connection import connect, tracking_uri, without_password
from pipeline.tracking.views import address, refresh_view

LOOPBACK = ("127.0.0.1", "localhost", "::1")
_SERVER = "import sys; from pipeline.tracking.ui_server import main; main(sys.argv[1], int(sys.argv[2]))"
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
    """The command: serve until told to end, or say which server has the runs.

    Raises:
        ConfigError: the port is in use, or the store cannot be reached.
    """
    project = Project.here()
    config = load_params(project.root).section(TrackingConfig, "tracking")
    uri = tracking_uri(config, project.tracking_root)
    remote = uri.startswith(("http://", "https://"))
    if not remote:
        check_port(host, port)
    client = connect(config, project.tracking_root)
    if remote:
        print(f"runs are recorded by the server at {redact(uri)}")
        print(links(client, config.experiment_prefix, without_password(uri).rstrip("/")))
        return
    if host not in LOOPBACK:
        print(
            f"warning: {host} is open to others, and MLflow asks nobody for a password: whoever reaches "
            f"port {port} can read and delete every run and model",
            file=sys.stderr,
        )
    base = f"http://{f'[{host}]' if ':' in host else host}:{port}"
    serve(uri, host, port, f"MLflow UI on {base} (Ctrl-C ends it)\n{links(client, config.experiment_prefix, base)}")


def links(client: MlflowClient, prefix: str, base: str) -> str:
    """A line for each experiment of ours that has runs: its charts and its list, the task's metric first."""
    lines = []
    for experiment in sorted(client.search_experiments(), key=lambda found: found.name):
        if not experiment.name.startswith(prefix):
            continue
        number = len(client.search_runs([experiment.experiment_id], max_results=1000))
        if not number:
            continue
        task = experiment.name.removeprefix(prefix)
        if refresh_view(client, experiment.experiment_id):
            charts, table = (address(base, experiment.experiment_id, charts=charts) for charts in (True, False))
        else:  # nothing is measured yet: there is no view to open
            plain = f"{base}/#/experiments/{experiment.experiment_id}/runs?workflowType=machine_learning"
            charts, table = f"{plain}&compareRunsMode=CHART", plain
        lines += [f"{task}, {number} run{'s' * (number > 1)}", f"  charts  {charts}", f"  list    {table}"]
    return "\n".join(lines or ["no run is recorded here yet: `sightline repro` trains"])


def check_port(host: str, port: int) -> None:
    """Raises:
    ConfigError: it is in use, by whom, or may not be listened on.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the server does
        try:
            probe.bind((host, port))
        except (OSError, OverflowError) as error:
            in_use = getattr(error, "errno", None) == errno.EADDRINUSE
            raise ConfigError(
                "the port is in use" if in_use else "this address cannot be listened on",
                value=f"{host}:{port}",
                where=_listener(port) if in_use else str(error),
                fix=f"open http://{host}:{port} if that is a UI of yours; else end it, or take another: "
                f"`sightline ui --port {_free_port(host, family)}`"
                if in_use
                else "choose another --host or --port",
            ) from None


def _listener(port: int) -> str:
    """Who listens on a port, without its command line, which may hold secrets."""
    try:
        listening = [
            c for c in psutil.net_connections("tcp") if c.status == psutil.CONN_LISTEN and c.laddr.port == port
        ]
        process = psutil.Process(next(c.pid for c in listening if c.pid is not None))
        return f"process {process.pid} ({process.name()} of {process.username()}), in {process.cwd()}"
    except (StopIteration, psutil.Error, OSError):
        return "a process that this user may not see"


def _free_port(host: str, family: int) -> int:
    with socket.socket(family) as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


def serve(uri: str, host: str, port: int, told: str) -> NoReturn:
    """Run the server until it ends, or until this process is told to; exits with its code.

    Args:
        told: printed as soon as the server answers.
    """
    environment = {
        **os.environ,
        "MLFLOW_BACKEND_STORE_URI": uri,  # not on the command line, which every user of the machine can read
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # runners of evaluation jobs, which nothing here starts
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "DO_NOT_TRACK": "true",
        "PYTHONWARNINGS": "ignore",  # of other libraries
    }
    server = [sys.executable, "-c", _SERVER, host, str(port)]
    keeper = subprocess.Popen(
        [sys.executable, "-c", _KEEPER, *server], env=environment, stdin=subprocess.PIPE, start_new_session=True
    )
    assert keeper.stdin is not None
    try:
        for number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.default_int_handler)
        while keeper.poll() is None and not _answers(host, port):
            time.sleep(0.1)
        if keeper.returncode is None:
            print(told, flush=True)
        sys.exit(keeper.wait())
    except KeyboardInterrupt:
        keeper.stdin.close()
        keeper.wait()
        sys.exit(130)


def _answers(host: str, port: int) -> bool:
    try:
        with socket.create_connection((host, port), timeout=1):
            return True
    except OSError:
        return False
