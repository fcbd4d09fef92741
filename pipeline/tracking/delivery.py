"""Results that MLflow gets after training: kept in state/pending until they have arrived.

What was measured may have cost hours, and DVC deletes the outputs of a stage that fails. So a server that is away makes
no stage fail: the results wait, with copies of their files, and the next stage that reaches MLflow sends them. Sending
them twice changes nothing: MLflow keys a metric by name, step, time and value, an artifact by its path.
"""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mlflow.entities import Metric, Run, RunTag
from mlflow.tracking import MlflowClient

from contracts.errors import ConfigError
from contracts.redact import redact
from pipeline.settings.sections import TrackingConfig
from pipeline.system.backoff import Backoff, GaveUp
from pipeline.system.disk import publish
from pipeline.system.project import write_json
from pipeline.system.removal import remove_tree
from pipeline.tracking.connection import (
    FAILURES,
    MAX_TAG,
    connect,
    find_run,
    is_final,
    longer_calls,
    metric_name,
    own_store,
    tracking_uri,
    upload_s,
)
from pipeline.tracking.event_tail import LONGEST_PAUSE_S, MAX_METRICS, first_line, say
from pipeline.tracking.notes import interval, run_note
from pipeline.tracking.views import INTERVAL, METRIC, MODE, refresh_view
from pipeline.training.run_files import NOTE_TAG

PATIENCE_S = 60.0  # at most, of a stage that has done its work
NOTE, FILES = "results.json", "files"


def log_results(
    config: TrackingConfig,
    *,
    root: Path,
    run_id: str,
    metrics: Mapping[str, float | None],
    step: int = 0,
    document: Mapping[str, Any] | None = None,
    folders: Mapping[str, Path] | None = None,
    files: Mapping[str, Sequence[Path]] | None = None,
) -> bool:
    """Add metrics and artifacts to a run that has ended; its status and duration stay.

    Args:
        step: at which the metrics stand; that of the end of the training, so that they are the run's latest.
        document: `evaluations/<run>/measured.json`, for the run's description and tags, and the view of its experiment.
        folders, files: by artifact path; "" is the run's top folder.

    Returns:
        False, with a message, if MLflow stays away (the results then wait in state/pending), or if this tracking store
        does not have the run (trained elsewhere, or deleted).
    """
    note = {
        "run_id": run_id,
        "store": _name_of(tracking_uri(config, root), root),
        "time_ms": int(time.time() * 1000),
        "step": step,
        "metrics": {name: repr(float("nan") if value is None else float(value)) for name, value in metrics.items()},
        "document": document,
    }
    folder = _keep(root, note, folders or {}, files or {})
    backoff = Backoff(first_s=1.0, longest_s=LONGEST_PAUSE_S, patience_s=min(PATIENCE_S, config.patience_s))

    def attempt() -> tuple[MlflowClient, bool]:
        client = connect(config, root)
        return client, _deliver(client, root, folder)

    try:
        client, delivered = backoff.run(attempt, passes=lambda error: isinstance(error, (ConfigError, *FAILURES)))
    except GaveUp as end:
        say(
            f"MLflow is away ({first_line(end.error)}): the results of run {run_id} wait in {folder}; "
            "the next stage that reaches it sends them"
        )
        return False
    deliver_pending(client, root)
    return delivered


def deliver_pending(client: MlflowClient, root: Path) -> None:
    """Send what waits for this store, as far as it goes; it is told, not raised, where MLflow is away again."""
    deadline = time.monotonic() + PATIENCE_S
    for note in sorted(_pending(root).glob(f"*/{NOTE}")):
        if time.monotonic() > deadline:
            break
        try:
            if _deliver(client, root, note.parent):
                say(f"the results that waited in {note.parent} are delivered")
        except FAILURES as error:
            say(f"the results in {note.parent} go on waiting: {first_line(error)}")


def _deliver(client: MlflowClient, root: Path, folder: Path) -> bool:
    """Whether the run has the results in `folder` now; they are removed unless they are for another store.

    Raises:
        One of `FAILURES`: MLflow is away.
    """
    try:
        document = json.loads((folder / NOTE).read_text())
    except FileNotFoundError:
        return True  # another stage sent the same in this moment
    run_id = document["run_id"]
    if document["store"] != _name_of(client.tracking_uri, root):
        say(f"the results in {folder} wait for {document['store']}")
        return False
    run = find_run(client, run_id)
    if run is None:
        say(f"{client.tracking_uri} has no run {run_id}: results are not logged there")
    delivered = run is not None and _send(client, run, document, folder / FILES)
    with contextlib.suppress(FileNotFoundError):  # the other stage removes it, too
        remove_tree(folder, inside=root)
    return delivered


def _keep(
    root: Path, note: Mapping[str, Any], folders: Mapping[str, Path], files: Mapping[str, Sequence[Path]]
) -> Path:
    """Write state/pending/<run id>: the outputs themselves are gone when the stage is run again."""
    run_id = note["run_id"]
    if not re.fullmatch(r"\w+", run_id, re.ASCII):
        raise ConfigError("not a run id", value=run_id, where="run.json: run_id", fix="train the run again")
    target = _pending(root) / run_id
    part = target.with_name(f".{run_id}.part")
    remove_tree(part, inside=root)
    for place, folder in folders.items():
        shutil.copytree(folder, part / FILES / place, dirs_exist_ok=True)
    for place, paths in files.items():
        (part / FILES / place).mkdir(parents=True, exist_ok=True)
        for path in paths:
            shutil.copyfile(path, part / FILES / place / path.name)
    write_json(part / NOTE, note)
    remove_tree(target, inside=root)
    publish(part, target)
    return target


def _send(client: MlflowClient, run: Run, note: Mapping[str, Any], files: Path) -> bool:
    run_id, document = run.info.run_id, note["document"]
    measured = note["metrics"].items()
    items = [Metric(metric_name(name), float(value), note["time_ms"], note["step"]) for name, value in measured]
    try:
        for i in range(0, len(items), MAX_METRICS):
            client.log_batch(run_id, metrics=items[i : i + MAX_METRICS])
        if files.is_dir():
            with longer_calls(upload_s(max((path.stat().st_size for path in files.rglob("*")), default=0))):
                client.log_artifacts(run_id, str(files))
        if document is not None:
            tags = {
                METRIC: metric_name(f"{document['split']}/{document['metric']}"),
                MODE: document["metric_mode"],
                INTERVAL: interval(document),
                NOTE_TAG: run_note(document, run.data.tags.get(NOTE_TAG, "")),
            }
            client.log_batch(run_id, tags=[RunTag(key, value[:MAX_TAG]) for key, value in tags.items() if value])
            refresh_view(client, run.info.experiment_id)
    except FAILURES as error:
        if not is_final(error):
            raise
        say(f"MLflow refuses the results of run {run_id}: {first_line(error)}")
        return False
    return True


def _pending(root: Path) -> Path:
    return root / "state" / "pending"


def _name_of(uri: str, root: Path) -> str:
    """The store's url without its secrets, for comparing; the project's own store stays its own where it is moved."""
    return "this project" if uri == own_store(root) else redact(uri).replace("***@", "")
