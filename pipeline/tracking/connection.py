"""The way to MLflow: which store, with what patience, and what a failure means. All that calls MLflow comes by here.

MLflow's own retries last minutes a call. Here one call is given `CALL_S` twice, and what can wait is tried again by who
can wait (`EventTail`, `delivery`, `Run.end`). No message names a password: a server's is taken out of its url first.
"""

from __future__ import annotations

import contextlib
import fcntl
import importlib.util
import logging
import os
import re
import sqlite3
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit

import mlflow
import mlflow.store.db.utils as mlflow_db
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from requests import RequestException
from sqlalchemy.exc import SQLAlchemyError

from contracts.errors import ConfigError
from pipeline.settings.sections import TrackingConfig
from pipeline.tracking.event_tail import first_line
from pipeline.tracking.moved import DATABASE, rebase

CALL_S = 15  # for an answer of the server; asked twice
DOWNLOAD_S = 60  # a server that fetches from a store of its own is silent meanwhile
LOCK_S = 60.0
MAX_KEY, MAX_TAG = 250, 8000  # characters, MLflow's limits
# What MLflow, its HTTP client (whose errors are OSErrors) and its database raise.
FAILURES = (MlflowException, OSError, SQLAlchemyError)
# Answers that will not change by asking again; anything else is an outage.
_FINAL = {"INVALID_PARAMETER_VALUE", "BAD_REQUEST", "RESOURCE_DOES_NOT_EXIST", "INVALID_STATE"}
_NOISY = (
    "alembic",
    "mlflow.store.db.utils",
    "mlflow.store.model_registry",
    "mlflow.system_metrics.metrics.base_metrics_monitor",
    "mlflow.system_metrics.system_metrics_monitor",
    "urllib3",
)
# Drivers that a database's url needs beyond SQLAlchemy: by scheme, the module and the package to install.
_DRIVERS = {
    "postgresql": ("psycopg2", "sightline[postgres]"),
    "postgresql+psycopg2": ("psycopg2", "sightline[postgres]"),
    "mysql": ("MySQLdb", "mysqlclient"),
    "mysql+pymysql": ("pymysql", "pymysql"),
    "mssql": ("pyodbc", "pyodbc"),
    "mssql+pyodbc": ("pyodbc", "pyodbc"),
}
_logged_in: tuple[str, dict[str, str]] = ("", {})  # a server without its password, and the variables that hold it


def tracking_uri(config: TrackingConfig, root: Path) -> str:
    return os.environ.get("MLFLOW_TRACKING_URI") or config.uri or own_store(root)


def own_store(root: Path) -> str:
    """The store of a project that names no other."""
    return f"sqlite:///{root.resolve() / DATABASE}"


def connect(config: TrackingConfig, root: Path) -> MlflowClient:
    """A client of the tracking store, which answers; the database is made if it is not there yet.

    Raises:
        ConfigError: the server or the database cannot be reached or written, or its driver is not installed.
    """
    uri = without_password(tracking_uri(config, root))
    check_driver(uri)
    _check_writable(uri)
    for noisy in _NOISY:
        logging.getLogger(noisy).setLevel(logging.CRITICAL)  # outages are told once, in our words
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", str(CALL_S))
    os.environ.setdefault("PGCONNECT_TIMEOUT", str(CALL_S))
    mlflow_db.MAX_RETRY_COUNT = 1
    try:
        with first_use(uri), warnings.catch_warnings():
            if uri == own_store(root) and config.artifacts is None:
                rebase(root.resolve() / DATABASE, root.resolve())
            warnings.filterwarnings("ignore", "The ``noload`` loader strategy", DeprecationWarning)  # MLflow's own
            client = MlflowClient(tracking_uri=uri)  # this already makes the database
            client.search_experiments(max_results=1)
    except (*FAILURES, sqlite3.Error) as error:
        raise ConfigError(
            "the MLflow tracking store cannot be reached",
            value=uri,
            where=first_line(error),
            fix="start the server, or unset MLFLOW_TRACKING_URI and tracking.uri to use a local database",
        ) from error
    return client


def without_password(uri: str) -> str:
    """`uri`, where it is a server's, without user and password, which MLflow reads from the environment instead.

    MLflow prints and stores the url of its server in places of its own: what is not in it cannot be told.
    """
    global _logged_in
    place, credentials = _logged_in
    if uri == place:
        return uri
    for name, value in credentials.items():  # another server must not see the last one's
        if os.environ.get(name) == value:
            del os.environ[name]
    _logged_in = ("", {})
    parts = urlsplit(uri) if uri.startswith(("http://", "https://")) else None
    if parts is None or parts.password is None:
        return uri
    place = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
    user, password = unquote(parts.username or ""), unquote(parts.password)
    _logged_in = (place, {"MLFLOW_TRACKING_USERNAME": user, "MLFLOW_TRACKING_PASSWORD": password})
    os.environ.update(_logged_in[1])
    return place


def check_driver(uri: str) -> None:
    """Raises:
    ConfigError: the database of this url needs a package that is not installed.
    """
    scheme = uri.partition("://")[0]
    module, package = _DRIVERS.get(scheme, ("", ""))
    if module and importlib.util.find_spec(module) is None:
        raise ConfigError(
            "the driver of this database is not installed",
            value=uri,
            where=f"Python module {module}",
            fix=f"pip install '{package}'",
        )


def _check_writable(uri: str) -> None:
    database = sqlite_file(uri)
    if database is None or not database.exists():
        return
    for path in (database, database.parent):  # the journal lies beside it
        if not os.access(path, os.W_OK):
            raise ConfigError(
                "MLflow's database cannot be written",
                value=str(path),
                where=f"owned by user {path.stat().st_uid}, mode {path.stat().st_mode & 0o777:03o}",
                fix="give this user the right to write, or name another store (MLFLOW_TRACKING_URI, tracking.uri)",
            )


def sqlite_file(uri: str) -> Path | None:
    return Path(uri.removeprefix("sqlite:///")) if uri.startswith("sqlite:///") else None


@contextlib.contextmanager
def first_use(uri: str) -> Iterator[None]:
    """One process at a time for a SQLite store: two that create the same database or model at once both fail.

    Raises:
        ConfigError: another process keeps the others waiting for longer than `LOCK_S`.
    """
    database = sqlite_file(uri)
    if database is None:
        yield
        return
    database.parent.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + LOCK_S
    with open(f"{database}.lock", "w") as lock:
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise ConfigError(
                        f"another process has held MLflow's database for {LOCK_S:.0f} s",
                        value=f"{database}.lock",
                        fix="end the process that hangs (`fuser` on this file names it), and run the same again",
                    ) from None
                time.sleep(0.05)
        yield


@contextlib.contextmanager
def answering(uri: str) -> Iterator[None]:
    """For calls after `connect` that cannot wait.

    Raises:
        ConfigError: MLflow does not answer any more, or refuses for a reason that may pass.
    """
    try:
        yield
    except FAILURES as error:
        ours = isinstance(error, OSError) and not isinstance(error, (RequestException, ConnectionError, TimeoutError))
        if ours or is_final(error):
            raise
        raise ConfigError(
            "MLflow does not answer",
            value=uri,
            where=first_line(error),
            fix="run the same command again when it does: what was done is kept",
        ) from error


@contextlib.contextmanager
def longer_calls(seconds: float) -> Iterator[None]:
    """Give calls more time, for an artifact's way through the server. The environment is where MLflow looks."""
    name = "MLFLOW_HTTP_REQUEST_TIMEOUT"
    before = os.environ[name]  # set by `connect`
    os.environ[name] = str(max(int(before), int(seconds)))
    try:
        yield
    finally:
        os.environ[name] = before


def upload_s(num_bytes: int) -> float:
    """Time for an answer to an upload: a server may pass it on at no more than 1 MiB a second."""
    return CALL_S + num_bytes / 2**20


@contextlib.contextmanager
def process_wide(uri: str) -> Iterator[None]:
    """For calls of MLflow that take no client: the registry looks models up in the process's store, whatever the
    client's. Nothing else here sets it, since it is also an environment variable that child processes inherit."""
    before = os.environ.get("MLFLOW_TRACKING_URI")
    mlflow.set_tracking_uri(uri)
    try:
        yield
    finally:
        mlflow.set_tracking_uri(None)  # type: ignore[arg-type]
        # MLflow leaves the variable where an inner block has unset it already.
        os.environ.pop("MLFLOW_TRACKING_URI", None)
        if before is not None:
            os.environ["MLFLOW_TRACKING_URI"] = before


def mlflow_name(name: str) -> str:
    """A name of a metric, param or tag as MLflow takes it: letters and digits of any script, `_-. :` and `/`, which
    makes a path without empty parts, `.` and `..`."""
    whole = _with_usable_parts(re.sub(r"[^\w\-. :/]", "_", name))
    return _with_usable_parts(whole[:MAX_KEY].rstrip("/"))  # again: the cut may leave `.` at the end


def metric_name(name: str) -> str:
    """The same of a metric `<split>/<metric>` or `<split>/<group>/<metric>`, whose own name makes no further path:
    MLflow's pages show a section for each part before the last, and `yes/no` is one answer."""
    split, *rest = name.split("/")
    return mlflow_name("/".join([split, *rest[:1], *([" or ".join(rest[1:])] if rest[1:] else [])]))


def _with_usable_parts(path: str) -> str:
    parts = path.split("/")
    usable = (part.replace(".", "_") or "_" if not part.strip(".") or part[:2] == ".." else part for part in parts)
    return "/".join(usable)


def is_final(error: BaseException) -> bool:
    return isinstance(error, MlflowException) and error.error_code in _FINAL


def find_run(client: MlflowClient, run_id: str) -> mlflow.entities.Run | None:
    """The run, or None if this store has none of that id or it was deleted."""
    try:
        found = client.get_run(run_id)
    except MlflowException as error:
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            return None
        raise
    return found if found.info.lifecycle_stage == "active" else None
