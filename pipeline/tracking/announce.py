"""A decision of the registry where people look: at the run, at the version, and at the run that reigned before."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mlflow.entities.model_registry import ModelVersion
from mlflow.tracking import MlflowClient

from pipeline.tracking.connection import MAX_TAG, find_run
from pipeline.tracking.naming import ALIAS
from pipeline.tracking.notes import decided_note, result
from pipeline.tracking.views import CHAMPION, refresh_view
from pipeline.training.run_files import NOTE_TAG

MAX_DESCRIPTION = 5000  # characters of a version's, MLflow's limit


def announce(
    client: MlflowClient, version: ModelVersion, document: Mapping[str, Any], accepted: bool, reason: str
) -> None:
    """Describe a version that was decided on, and its run, and tell every run of the model whether it reigns.

    Args:
        document: `evaluations/<run>/measured.json`.
    """
    name, number = version.name, version.version
    run = find_run(client, version.run_id) if version.run_id else None
    decision = f"{'champion' if accepted else 'not champion'}: {reason}"
    origin = f"commit {version.tags.get('git_commit') or 'none'}"
    if run is not None:
        place = f"#/experiments/{run.info.experiment_id}/runs/{run.info.run_id}"
        origin = f"[run {_quoted(run.info.run_name)}]({place}), {origin}"
        told = f"{decision} ([{name}, version {number}](#/models/{name}/versions/{number}))"
        client.set_tag(run.info.run_id, NOTE_TAG, decided_note(document, told)[:MAX_TAG])
    described = f"{result(document)}\n\n**{decision}**\n\nFrom {origin}"
    client.update_model_version(name, number, described[:MAX_DESCRIPTION])
    _crown(client, name)
    if run is not None:
        refresh_view(client, run.info.experiment_id)


def _crown(client: MlflowClient, model: str) -> None:
    """The tag `champion` of every run that has a version: of one alone it is "yes"."""
    reigning = client.get_registered_model(model).aliases.get(ALIAS)
    versions = client.search_model_versions(f"name = '{model}'")
    champion = {v.run_id for v in versions if str(v.version) == str(reigning)}
    for run_id in {v.run_id for v in versions if v.run_id}:
        run, told = find_run(client, run_id), "yes" if run_id in champion else "no"
        if run is not None and run.data.tags.get(CHAMPION) != told:
            client.set_tag(run_id, CHAMPION, told)


def _quoted(text: str) -> str:
    return text.replace("[", "(").replace("]", ")")
