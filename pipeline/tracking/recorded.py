"""What an MLflow run knows of the training that it recorded, for those who have nothing else of it."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from mlflow.exceptions import MlflowException

from contracts.errors import ConfigError, DataError
from pipeline.system.project import Project
from pipeline.tracking.connection import answering, connect, find_run
from pipeline.tracking.names import tracking_config
from pipeline.training.scores import MEASURED


def recorded_in_mlflow(project: Project, run_id: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Of a run by its id: what artifacts/<run>/run.json has as far as its tags tell it, and what was measured.

    Raises:
        ConfigError: there is no such run, or MLflow does not answer.
        DataError: it was not measured.
    """
    client = connect(tracking_config(project), project.tracking_root)
    with answering(client.tracking_uri):
        run = find_run(client, run_id)
        if run is None:
            allowed = "a run's name, or its id in MLflow"
            raise ConfigError("no such run", value=run_id, where=client.tracking_uri, allowed=allowed)
        with tempfile.TemporaryDirectory() as temporary:
            try:
                measured = json.loads(Path(client.download_artifacts(run_id, MEASURED, temporary)).read_bytes())
            except (MlflowException, OSError, ValueError) as error:
                fix = "evaluate it, or name one that was"
                raise DataError("this run was not measured", value=run_id, where=MEASURED, fix=fix) from error
    tags = run.data.tags
    changed = tags.get("git_changed", "")
    return {
        "git_commit": tags.get("git_commit", ""),
        "git_changed": changed.split(", ") if changed else [],
        "manifest_digest": measured["manifest_digest"],
        "fingerprint": tags.get("fingerprint"),
        "cpu": tags.get("cpu"),
        "packages_sha256": tags.get("packages_sha256"),
    }, measured
