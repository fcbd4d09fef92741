"""MLflow runs: opened, fed and closed by the driver. Training workers never import this file.

Rank 0 appends lines to `events.jsonl`; `EventTail` sends them to a `Run` from a thread of the driver. A tracking
server that is away costs training nothing: lines wait in the file. Sending may be repeated without doubling anything:
MLflow keys a metric by name, step, time and value, and a picture's file name here depends on its name and step alone.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import sys
import tempfile
import threading
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import mlflow
import yaml
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunTag
from mlflow.exceptions import MlflowException
from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor
from mlflow.tracking import MlflowClient
from PIL import Image

from contracts.errors import ConfigError, DataError
from contracts.redact import redact
from pipeline.settings.sections import TrackingConfig
from pipeline.system.backoff import Backoff, GaveUp
from pipeline.system.disk import write_text
from pipeline.tracking.connection import (
    DOWNLOAD_S,
    FAILURES,
    MAX_TAG,
    answering,
    connect,
    find_run,
    first_use,
    is_final,
    longer_calls,
    metric_name,
    mlflow_name,
    process_wide,
)
from pipeline.tracking.delivery import deliver_pending
from pipeline.tracking.delivery import log_results as log_results  # part of this file's interface, as is the next
from pipeline.tracking.event_tail import LONGEST_PAUSE_S, MAX_METRICS, Event, Refused, first_line, say
from pipeline.tracking.event_tail import EventTail as EventTail
from pipeline.tracking.moved import ARTIFACTS
from pipeline.tracking.naming import SETTINGS, new_name
from pipeline.tracking.signing import LISTING, Untrusted, verify

MAX_PARAMS = 100  # params or tags in one call, MLflow's limit
MAX_PARAM, MAX_DIGEST = 6000, 36  # characters, MLflow's limits
MAX_PICTURE_KEY = 120  # of a file's name of 255 bytes: MLflow adds step, time and a random name
THUMBNAIL_PX = 512


def experiment_id(client: MlflowClient, config: TrackingConfig, root: Path, task: str) -> str:
    """The experiment of a task, made on first use with an explicit place for its artifacts.

    Raises:
        ConfigError: someone deleted the experiment; MLflow keeps its name reserved.
    """
    name, uri = f"{config.experiment_prefix}{task}", client.tracking_uri
    with first_use(uri):
        found = client.get_experiment_by_name(name)
        if found is None:
            # A server decides itself; a bare database would put artifacts below whatever the current folder is.
            place = None if uri.startswith("http") else f"{config.artifacts or root.resolve() / ARTIFACTS}/{name}"
            try:
                return client.create_experiment(name, artifact_location=place)
            except MlflowException as error:
                found = client.get_experiment_by_name(name)  # another host made it in this moment
                if found is None:
                    raise error
    if found.lifecycle_stage == "deleted":
        raise ConfigError(
            "the MLflow experiment was deleted",
            value=name,
            where=uri,
            fix=f"mlflow experiments restore -x {found.experiment_id}; or change tracking.experiment_prefix",
        )
    return found.experiment_id


class Run:
    """An open MLflow run; the `Receiver` of an `EventTail`."""

    def __init__(self, client: MlflowClient, config: TrackingConfig, info: mlflow.entities.RunInfo):
        self.client = client
        self.run_id: str = info.run_id
        self.place: str = client.tracking_uri
        self.flush_s, self.patience_s = config.flush_s, config.patience_s
        self._start_ms = int(info.start_time)
        self._system_every_s = config.system_metrics_every_s if config.system_metrics else None
        self._monitor: SystemMetricsMonitor | None = None

    def send(self, events: Sequence[Event], folder: Path) -> None:
        """Deliver events; picture files are relative to `folder`. Sending the same ones again changes nothing.

        Raises:
            Refused: MLflow will never take one of them.
        """
        metrics = [metric for event in events if event["kind"] == "metrics" for metric in _metrics(event)]
        tags = {key: value for event in events if event["kind"] == "tags" for key, value in event["values"].items()}
        pictures = [event for event in events if event["kind"] == "image"]
        try:
            for i in range(0, len(metrics), MAX_METRICS):
                self.client.log_batch(self.run_id, metrics=metrics[i : i + MAX_METRICS])
            self.tag(tags)
            if pictures:
                self._send_pictures(pictures, folder)
        except MlflowException as error:
            if is_final(error):
                raise Refused(first_line(error)) from error
            raise

    def tag(self, tags: Mapping[str, Any]) -> None:
        items = [RunTag(mlflow_name(key), redact(str(value))[:MAX_TAG]) for key, value in tags.items() if str(value)]
        for i in range(0, len(items), MAX_PARAMS):
            self.client.log_batch(self.run_id, tags=items[i : i + MAX_PARAMS])

    def _send_pictures(self, events: Sequence[Event], folder: Path) -> None:
        """Store pictures as `MlflowClient.log_image(key=, step=)` does, which MLflow's image grid reads: rows are
        pictures, columns are runs, a slider moves through the steps. Its random file names are not taken over: a
        delivery that is repeated, or a step trained again after a crash, must replace its picture."""
        with tempfile.TemporaryDirectory() as temporary:
            for event in events:
                source = folder / event["file"]
                if not source.is_file():
                    say(f"the picture {source} is gone: not sent")
                    continue
                step = int(event["step"] or 0)
                stem = picture_stem(self.run_id, event["name"], step, self._start_ms + step)
                with Image.open(source) as opened:
                    small = opened.convert("RGB")
                small.thumbnail((THUMBNAIL_PX, THUMBNAIL_PX))
                small.save(Path(temporary) / f"{stem}+compressed.webp", quality=90)
                (Path(temporary) / f"{stem}.png").write_bytes(source.read_bytes())
            self.client.log_artifacts(self.run_id, temporary, "images")
        self.tag({"mlflow.loggedImages": "True"})

    def watch_system(self) -> None:
        """Start logging the load of this machine, if asked for. Training does not fail where that cannot be had."""
        if self._system_every_s is None:
            return
        try:
            self._monitor = SystemMetricsMonitor(
                self.run_id, self._system_every_s, resume_logging=True, tracking_uri=self.client.tracking_uri
            )
            self._monitor.start()
        except Exception as error:  # psutil, NVML and the server, each with its own errors
            say(f"no system metrics: {first_line(error)}")

    def is_back(self) -> None:
        """The server answers again. MLflow's monitor gave up when it went away: start another."""
        if self._monitor is not None:
            self._monitor.finish()
            self.watch_system()

    def end(self, status: str, patience_s: float) -> None:
        """Set the final status; a server that stays away is told of, never raised."""
        backoff = Backoff(first_s=0.5, longest_s=LONGEST_PAUSE_S, patience_s=patience_s)
        try:
            backoff.run(
                lambda: self.client.set_terminated(self.run_id, status), passes=lambda error: not is_final(error)
            )
        except Exception as error:
            why = error.error if isinstance(error, GaveUp) else error
            say(f"run {self.run_id} could not be set to {status}: {first_line(why)}")
        if self._monitor is not None:
            self._monitor.finish()


def picture_stem(run_id: str, name: str, step: int, time_ms: int) -> str:
    """File name, without its ending, by which MLflow's pages know name and step of a picture."""
    key = re.sub(r"[^a-zA-Z0-9_\-./ ]", "_", name).replace("/", "~")
    if len(key) > MAX_PICTURE_KEY:
        key = f"{key[: MAX_PICTURE_KEY - 9]}-{uuid.uuid5(uuid.NAMESPACE_OID, name).hex[:8]}"
    return f"{key}+step+{step}+timestamp+{time_ms}+{uuid.uuid5(uuid.NAMESPACE_OID, f'{run_id} {name} {step}')}"


def _metrics(event: Event) -> Iterator[Metric]:
    time_ms, step = int(event["time"] * 1000), int(event["step"] or 0)
    values = dict(event["values"])
    if event.get("epoch", -1) >= 0:
        values["epoch"] = event["epoch"]
    for name, value in values.items():
        yield Metric(metric_name(name), float(value), time_ms, step)


@contextlib.contextmanager
def open_run(
    config: TrackingConfig,
    *,
    root: Path,
    run_name: str,
    experiment: str,
    params: Mapping[str, Any],
    tags: Mapping[str, Any],
    dataset: tuple[str, str, str],
    settings: Mapping[str, Any] | None = None,
    run_id_file: Path | None = None,
) -> Iterator[Run]:
    """Make the run, or open again the one that `run_id_file` names, and set its final status when the block is left:
    FINISHED, FAILED (an exception) or KILLED (interrupt, SIGTERM).

    Args:
        root: the project's folder.
        run_name: the run's in params.yaml; what tells it apart from others is added (`naming.new_name`).
        experiment: the task's name.
        params: the settings that tell runs apart, by dotted name. A resumed run keeps the values it has; those that
            changed become tags `param.<name>`.
        settings: all of them; kept as the artifact `run.yaml`.
        tags: mutable facts; empty ones are left out. `git_commit` is also shown as the run's source version.
        dataset: name, manifest digest and place of the data, logged as the run's dataset input.
        run_id_file: read and written; lets a killed training go on in the same run.

    Raises:
        ConfigError: the tracking store cannot be reached, or the experiment was deleted.
    """
    client = connect(config, root)
    deliver_pending(client, root)
    with answering(client.tracking_uri):
        run, known_params = _resumed(client, config, run_id_file)
        if run is None:
            place = experiment_id(client, config, root, experiment)
            lineage = {"data": dataset[1], "code": str(tags.get("git_commit", ""))}
            run_name = new_name(client, place, run_name, settings or {}, params, lineage)
            run = Run(client, config, client.create_run(place, run_name=run_name).info)
    if run_id_file is not None:
        write_text(run_id_file, run.run_id)
    status = "FAILED"
    try:
        with _terminable():
            with answering(client.tracking_uri):
                _describe(run, params, known_params, tags, dataset)
                if settings is not None:
                    client.log_text(run.run_id, yaml.safe_dump(settings, sort_keys=False), SETTINGS)
            run.watch_system()
            yield run
        status = "FINISHED"
    except KeyboardInterrupt:
        status = "KILLED"
        raise
    except SystemExit as error:  # Ray's own SIGTERM handler leaves by it
        status = "KILLED" if error.code in (signal.SIGTERM, 128 + signal.SIGTERM) else "FAILED"
        raise
    finally:
        run.end(status, config.patience_s if status == "FINISHED" else min(10.0, config.patience_s))


@contextlib.contextmanager
def _terminable() -> Iterator[None]:
    """Let SIGTERM unwind the stack as Ctrl-C does, unless the program already handles it."""
    in_main = threading.current_thread() is threading.main_thread()  # others may not set handlers
    replace = in_main and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    if replace:
        signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        if replace and signal.getsignal(signal.SIGTERM) is signal.default_int_handler:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _resumed(
    client: MlflowClient, config: TrackingConfig, run_id_file: Path | None
) -> tuple[Run | None, dict[str, str]]:
    if run_id_file is None or not run_id_file.is_file():
        return None, {}
    found = find_run(client, run_id_file.read_text().strip())
    if found is None:
        return None, {}
    client.update_run(found.info.run_id, status="RUNNING")
    return Run(client, config, found.info), found.data.params


def _describe(
    run: Run,
    params: Mapping[str, Any],
    known: Mapping[str, str],
    tags: Mapping[str, Any],
    dataset: tuple[str, str, str],
) -> None:
    """Params, tags and the dataset input. MLflow refuses to change a param, so a changed one is a tag."""
    wanted = {mlflow_name(name): redact(str(value))[:MAX_PARAM] for name, value in params.items()}
    new = [Param(name, value) for name, value in wanted.items() if name not in known]
    for i in range(0, len(new), MAX_PARAMS):
        run.client.log_batch(run.run_id, params=new[i : i + MAX_PARAMS])
    changed = {f"param.{name}": value for name, value in wanted.items() if known.get(name, value) != value}
    name, digest, place = dataset
    source = {
        "mlflow.user": os.environ.get("USER", ""),
        "mlflow.source.name": Path(sys.argv[0]).name,
        "mlflow.source.type": "LOCAL",
        "mlflow.source.git.commit": tags.get("git_commit", ""),
        "manifest_digest": digest,
    }
    run.tag({**source, **changed, **tags})
    entity = Dataset(
        name=name, digest=digest[:MAX_DIGEST], source_type="local", source=json.dumps({"uri": redact(place)})
    )
    context = InputTag("mlflow.data.context", "training")
    run.client.log_inputs(run.run_id, datasets=[DatasetInput(dataset=entity, tags=[context])])


def fetch_model(uri: str, client: MlflowClient, folder: Path) -> Path:
    """Download a model's folder (`models:/name@alias`, `models:/name/version`, `runs:/id/model`), or a file or folder
    in it, below `folder`.

    Nothing in it may be imported before `signing.verify` has passed it, as `fetch_signed` does.

    Raises:
        ConfigError: there is no such model (names those that there are), or MLflow does not answer.
    """
    with process_wide(client.tracking_uri), longer_calls(DOWNLOAD_S):
        try:
            return Path(mlflow.artifacts.download_artifacts(uri, dst_path=str(folder)))
        except FAILURES as error:  # OSError: the run is there, the folder is not
            with answering(client.tracking_uri):
                known = ", ".join(_registered_models(client)) or "none is registered yet"
            raise ConfigError("no such model", value=uri, where=first_line(error), allowed=known) from error


def fetch_artifacts(uri: str, client: MlflowClient, folder: Path) -> Path:
    """What a model that this project registered carries beside its code, which is some 500 files: weights and scores.

    Raises: as `fetch_signed`.
    """
    listing = fetch_model(f"{uri}/{LISTING}", client, folder)
    artifacts = fetch_model(f"{uri}/artifacts", client, folder)
    if verify(listing.parent, "artifacts/") != _noted_signature(uri, client, ""):
        raise Untrusted("the tag `signature` of this version is another model's", value=uri)
    return artifacts


def fetch_signed(uri: str, client: MlflowClient, folder: Path, *, trust: bool = False) -> Path:
    """`fetch_model`, for running what it brings: only what this project registered is taken, whole and unchanged.

    Args:
        trust: take whatever it is, and say so.

    Raises:
        Untrusted: it was not registered by this project.
        DataError: it was, and was changed since.
        ConfigError: as `fetch_model`.
    """
    model = fetch_model(uri, client, folder)
    try:
        signature = verify(model)
        if signature != _noted_signature(uri, client, signature):
            raise Untrusted("the tag `signature` of this version is another model's")
    except (Untrusted, DataError) as error:
        if trust:
            say(f"{uri} was not registered by this project ({first_line(error)}): its code runs as you")
            return model
        if isinstance(error, DataError):
            raise
        raise Untrusted(
            "this version was not registered by this project: its code runs as you",
            value=uri,
            where=" ".join(str(error).split()),
            fix="--trust to run it all the same; SIGHTLINE_SIGNING_KEY names the key of the team that registered it",
        ) from None
    return model


def _noted_signature(uri: str, client: MlflowClient, otherwise: str) -> str:
    """The tag `signature` of the version that a `models:/name/version` or `models:/name@alias` stands for."""
    match = re.fullmatch(r"models:/([^/@]+)(?:/(\d+)|@([^/]+))", uri)
    if match is None:
        return otherwise
    name, version, alias = match.groups()
    with answering(client.tracking_uri):
        found = client.get_model_version(name, version) if version else client.get_model_version_by_alias(name, alias)
    return str(found.tags.get("signature", ""))


def _registered_models(client: MlflowClient) -> list[str]:
    """URIs that can be asked for: every alias of every registered model, its first version where it has none."""
    found: list[str] = []
    for model in client.search_registered_models():
        found += [f"models:/{model.name}@{alias}" for alias in sorted(model.aliases)] or [f"models:/{model.name}/1"]
    return found
