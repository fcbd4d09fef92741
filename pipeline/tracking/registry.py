"""The model registry: how a checkpoint becomes a registered model, and its version `champion` or not (`champion.py`).

A version that is refused is registered all the same, with the reason in its tags: a refusal leaves a trace. With its
weights a version ships how it did on the resamples of its split. Once the evaluated split has changed, the champion's
weights are fetched and measured on it; only where they cannot be, the new version takes over, and says why.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import json
import logging
import math
import tempfile
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from unittest.mock import patch

import mlflow
from mlflow.entities import LoggedModelOutput
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.models import Model, ModelSignature
from mlflow.tracking import MlflowClient
from mlflow.types import ColSpec, DataType, Schema
from mlflow.types.schema import Array

import contracts
import lightning_modules
import pipeline
from contracts.errors import ConfigError, DataError
from contracts.inputs import Given, InputName
from pipeline.settings import discover
from pipeline.settings.sections import TrackingConfig
from pipeline.tracking.announce import announce
from pipeline.tracking.champion import Candidate, Standing, Verdict, judge, objection
from pipeline.tracking.connection import (
    answering,
    connect,
    find_run,
    first_use,
    longer_calls,
    metric_name,
    process_wide,
    upload_s,
)
from pipeline.tracking.delivery import deliver_pending
from pipeline.tracking.mlflow_run import experiment_id, fetch_artifacts, fetch_signed
from pipeline.tracking.naming import ALIAS, FORCED
from pipeline.tracking.probe import probe
from pipeline.tracking.signing import Untrusted, sign
from pipeline.training.checkpoints import file_sha256, load_best
from pipeline.training.predictor import load_predictor
from pipeline.training.scores import MEASURED, RESAMPLES, Scores, read_scores

MAX_VERSION_TAG = 100_000  # characters, MLflow's limit
SERVED = Path(__file__).with_name("served_model.py")
# What a machine that serves the model must have; all of it is pinned to the versions the model was measured with.
SERVED_WITH = (
    "mlflow",
    "torch",
    "torchvision",
    "pytorch-lightning",
    "torchmetrics",
    "numpy",
    "opencv-python-headless",
    "albumentations",
    "simplejpeg",
    "pillow",
    "pycocotools",
    "hotcoco",
    "pydantic",
    "pyyaml",
)
Measure = Callable[[Path], Scores]


def register(
    config: TrackingConfig,
    candidate: Candidate,
    *,
    root: Path,
    inputs: Mapping[str, Given],
    measure: Measure,
    further: Callable[[], str] = str,
    evaluation: Path | None = None,
) -> dict[str, Any]:
    """Register the checkpoint as a version of `candidate.model`, check that it answers as before, decide on the alias.

    The same checkpoint of the same run is registered once: called again with the same facts it returns the earlier
    decision; with another score or gate it decides anew on the same version. Only a version that failed the check is
    not counted, since what it ships is fixed: the next call registers another.

    Args:
        inputs: what the registered model is asked with to check it, by name (`BaseTask.inputs`).
        measure: how another checkpoint does on the candidate's data; a DataError where that cannot be known.
        further: why it cannot be champion, or ""; asked only where all else speaks for it, since it may take long.
        evaluation: `evaluations/<run>`, shipped with the version and described; None: what the candidate knows.

    Returns:
        JSON values: model, version, uri, decision ("champion" or "refused"), reason, champion_version,
        previous_champion, the gain over it with its interval, and the facts the decision rests on.

    Raises:
        ConfigError: MLflow cannot be reached, or ceases to answer; called again, it goes on from what was done.
    """
    client = connect(config, root)
    deliver_pending(client, root)
    with process_wide(client.tracking_uri), answering(client.tracking_uri):
        version, decided = _register(client, config, candidate, root, inputs, measure, further, evaluation)
        if decided or not version.description:
            document = _measured(candidate) if evaluation is None else json.loads((evaluation / MEASURED).read_bytes())
            announce(client, version, document, version.tags["decision"] == "champion", version.tags["reason"])
        return _document(client, version)


def _register(
    client: MlflowClient,
    config: TrackingConfig,
    candidate: Candidate,
    root: Path,
    inputs: Mapping[str, Given],
    measure: Measure,
    further: Callable[[], str],
    evaluation: Path | None,
) -> tuple[ModelVersion, bool]:
    """The version, and whether it was decided on now."""
    if candidate.run_id and find_run(client, candidate.run_id) is None:
        candidate = dataclasses.replace(candidate, run_id="")  # trained elsewhere: this store cannot trace it
    facts = _facts(candidate)
    version = _find_version(client, candidate, facts["checkpoint_sha256"])
    if version is None:
        experiment = experiment_id(client, config, root, candidate.task)
        version = _add_version(client, candidate, facts, experiment, evaluation)
    elif "decision" in version.tags and facts.items() <= version.tags.items():
        return version, False
    checked = version.tags.get("checked") == "yes"
    defect = "" if checked else _check(client, candidate, version, inputs)
    reigning = _champion(client, candidate.model)
    standing = None
    if reigning is not None and str(reigning.version) != str(version.version):
        standing = Standing(version=str(reigning.version), scores=None, unknown="the candidate is not fit")
        if not (defect or objection(candidate)):  # else nothing depends on it
            standing = _standing(client, candidate, reigning, measure)
    verdict = judge(candidate, standing, defect)
    if verdict.accepted and (refusal := further()):
        verdict = Verdict(False, refusal, verdict.gain)
    with first_use(client.tracking_uri):
        _decide(client, candidate, version, {**facts, "checked": "no" if defect else "yes"}, verdict, standing)
    return client.get_model_version(candidate.model, version.version), True


def _facts(candidate: Candidate) -> dict[str, str]:
    """What a decision rests on, as tags of the version."""
    return {
        "checkpoint_sha256": file_sha256(candidate.checkpoint),
        "dataset": candidate.dataset,
        "manifest_digest": candidate.manifest_digest,
        "split_digest": candidate.split_digest,
        "git_commit": candidate.git_commit,
        "git_changed": ", ".join(candidate.changed)[:MAX_VERSION_TAG] or "none",
        "allow_dirty": str(candidate.allow_dirty),
        "constant": "none" if candidate.constant is None else repr(candidate.constant),
        "metric": candidate.metric,
        "metric_mode": candidate.mode,
        "metric_value": repr(math.nan if candidate.value is None else candidate.value),
        "gate": "none" if candidate.gate is None else repr(candidate.gate),
        "min_gain": repr(candidate.min_gain),
        "slices": json.dumps(dict(candidate.slices), sort_keys=True),
        "conditions": json.dumps(dict(candidate.conditions), sort_keys=True),
    }


def _find_version(client: MlflowClient, candidate: Candidate, sha256: str) -> ModelVersion | None:
    found = client.search_model_versions(f"name = '{candidate.model}'")
    same = [
        v
        for v in found
        if v.tags.get("checkpoint_sha256") == sha256
        and (v.run_id or "") == candidate.run_id
        and v.tags.get("checked") != "no"
    ]
    return same[0] if same else None


def _add_version(
    client: MlflowClient,
    candidate: Candidate,
    facts: Mapping[str, str],
    experiment: str,
    evaluation: Path | None = None,
) -> ModelVersion:
    """Log the model with its code, weights, scores, schema and requirements, sign it, and register it."""
    logged = client.create_logged_model(
        experiment, "model", candidate.run_id or None, tags=dict(facts), model_type="pyfunc"
    )
    if candidate.run_id:
        client.log_outputs(candidate.run_id, [LoggedModelOutput(logged.model_id, step=0)])
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "model"
        of = {"run_id": candidate.run_id or None, "model_id": logged.model_id}
        save_model(candidate.checkpoint, folder, evaluation=evaluation, **of)
        signature = sign(folder)
        with longer_calls(upload_s(candidate.checkpoint.stat().st_size)):
            client.log_model_artifacts(logged.model_id, str(folder))
    client.finalize_logged_model(logged.model_id, "READY")
    if candidate.run_id and candidate.value is not None and math.isfinite(candidate.value):
        name = metric_name(f"{candidate.split}/{candidate.metric}")
        client.log_metric(candidate.run_id, name, candidate.value, step=candidate.step, model_id=logged.model_id)
    with first_use(client.tracking_uri):
        try:
            client.create_registered_model(candidate.model, description=f"{candidate.task} on {candidate.dataset}")
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
    source, run_id = f"models:/{logged.model_id}", candidate.run_id or None
    tags = {**facts, "signature": signature}
    version = client.create_model_version(candidate.model, source, run_id, tags, model_id=logged.model_id)
    note = json.dumps([{"name": candidate.model, "version": version.version}])
    client.set_logged_model_tags(logged.model_id, {"mlflow.modelVersions": note})  # MLflow's pages link by this
    return version


def save_model(
    checkpoint: Path,
    folder: Path,
    *,
    evaluation: Path | None = None,
    run_id: str | None = None,
    model_id: str | None = None,
) -> None:
    """Write the pyfunc model folder: this project's code as it is now, the checkpoint, signature and requirements; of
    `evaluation` what a later version is compared with."""
    logging.getLogger("mlflow.models.signature").setLevel(logging.WARNING)
    task = discover.load("task", load_best(checkpoint)["run"]["task_name"], where="task_name").Task
    inputs = Schema([column for name in task.inputs for column in columns_of(name)])
    outputs = Schema([ColSpec(DataType.string)])
    # What is pinned is what is installed: to compare them, MLflow would look at every file of every package.
    with warnings.catch_warnings(), patch("mlflow.utils.environment.warn_dependency_requirement_mismatches"):
        warnings.filterwarnings("ignore", ".*An input example was not provided", UserWarning)  # the signature is given
        warnings.filterwarnings("ignore", ".*Any type hint is inferred", UserWarning)  # MLflow's own, when imported
        mlflow.pyfunc.save_model(
            str(folder),
            python_model=str(SERVED),
            artifacts={"checkpoint": str(checkpoint), **_scores_of(evaluation)},
            code_paths=[str(Path(package.__path__[0])) for package in (contracts, lightning_modules, pipeline)],
            signature=ModelSignature(inputs=inputs, outputs=outputs),
            pip_requirements=requirements(),
            mlflow_model=Model(run_id=run_id, model_id=model_id),
        )


def _scores_of(evaluation: Path | None) -> dict[str, str]:
    files = [] if evaluation is None else [evaluation / MEASURED, evaluation / RESAMPLES]
    return {file.stem: str(file) for file in files}


def columns_of(name: InputName) -> list[ColSpec]:
    """The columns of the served model's rows for an input of its task."""
    if name == "clip":
        times = ColSpec(Array(DataType.double), "times_s", required=False)
        return [ColSpec(Array(DataType.binary), "clip"), times]
    return [ColSpec(DataType.binary if name == "image" else DataType.string, name)]


def requirements() -> list[str]:
    """Exact pins; a local part such as `+cpu` is cut off, for no index serves it."""
    return [f"{name}=={importlib.metadata.version(name).partition('+')[0]}" for name in SERVED_WITH]


def _check(client: MlflowClient, candidate: Candidate, version: ModelVersion, inputs: Mapping[str, Given]) -> str:
    """Compare one answer of the registered model with the checkpoint's own.

    Returns:
        What is wrong, or "".
    """
    predictor = load_predictor(candidate.checkpoint)
    expected = json.loads(json.dumps(predictor.answers(predictor.predict(predictor.record(inputs)))))
    with tempfile.TemporaryDirectory() as temporary:
        try:
            folder = fetch_signed(f"models:/{version.name}/{version.version}", client, Path(temporary))
            answer = probe(folder, inputs)
        except (Untrusted, DataError) as error:
            return f"the registered model is not the one that was sent: {error}"
        except RuntimeError as error:
            return f"the registered model cannot be loaded and used: {error}"
    if not same_answer(answer, expected):
        return f"the registered model answers otherwise: {str(answer)[:200]} instead of {str(expected)[:200]}"
    return ""


def same_answer(a: Any, b: Any) -> bool:
    """Equal JSON values; numbers may differ by what another process's thread count does to a float32 sum."""
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(same_answer(a[key], b[key]) for key in a)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(same_answer(x, y) for x, y in zip(a, b, strict=True))
    if isinstance(a, float) and isinstance(b, float | int) and not isinstance(b, bool):
        return math.isclose(a, b, rel_tol=1e-3, abs_tol=1e-3)
    return bool(a == b)


def _champion(client: MlflowClient, model: str) -> ModelVersion | None:
    version = client.get_registered_model(model).aliases.get(ALIAS)
    return None if version is None else client.get_model_version(model, version)


def _standing(client: MlflowClient, candidate: Candidate, reigning: ModelVersion, measure: Measure) -> Standing:
    """The champion on the candidate's data: by what it ships where that was asked the same, or else measured now."""
    version = str(reigning.version)
    with tempfile.TemporaryDirectory() as temporary:
        try:
            folder = fetch_artifacts(f"models:/{reigning.name}/{version}", client, Path(temporary))
            shipped = read_scores(folder)
            if shipped is not None and shipped.asked_as(candidate.scores) and candidate.metric in shipped.values:
                return Standing(version=version, scores=shipped)
            (checkpoint,) = folder.glob("*.ckpt")
            return Standing(version=version, scores=measure(checkpoint), again=True)
        except (Untrusted, DataError, ValueError) as error:
            if isinstance(error, ConfigError) and not isinstance(error, Untrusted) and error.what != "no such model":
                raise  # MLflow is away: the champion's weights may well be there
            why = error.what if isinstance(error, Untrusted | DataError | ConfigError) else "its files are not as ours"
            return Standing(version=version, scores=None, unknown=f"it cannot be measured on this data: {why}")


def _decide(
    client: MlflowClient,
    candidate: Candidate,
    version: ModelVersion,
    facts: Mapping[str, str],
    verdict: Verdict,
    standing: Standing | None,
) -> None:
    """Write the decision and its reason into the version's tags, move the alias."""
    tags = {
        **facts,
        "decision": "champion" if verdict.accepted else "refused",
        "reason": verdict.reason,
        "previous_champion": standing.version if standing else "none",
        "gain": json.dumps(dataclasses.asdict(verdict.gain)) if verdict.gain else "none",
        FORCED: "no",
    }
    for key, value in tags.items():
        if version.tags.get(key) != value:  # a new version was made with its facts, and each tag is two requests
            client.set_model_version_tag(candidate.model, version.version, key, value[:MAX_VERSION_TAG])
    if verdict.accepted:
        client.set_registered_model_alias(candidate.model, ALIAS, version.version)
    elif standing is None and _champion(client, candidate.model) is not None:  # it reigned itself
        client.delete_registered_model_alias(candidate.model, ALIAS)


def _measured(candidate: Candidate) -> dict[str, Any]:
    """Of a metrics document, what a candidate knows."""
    constant = {} if candidate.constant is None else {candidate.metric: candidate.constant}
    names = ("metric", "value", "split", "dataset", "manifest_digest")
    return {"constant": constant} | {name: getattr(candidate, name) for name in names}


def _document(client: MlflowClient, version: ModelVersion) -> dict[str, Any]:
    champion = _champion(client, version.name)
    tags = version.tags
    value = float(tags["metric_value"])
    gain = None if tags["gain"] == "none" else json.loads(tags["gain"])
    return {
        "model": version.name,
        "version": str(version.version),
        "uri": f"models:/{version.name}/{version.version}",
        "decision": tags["decision"],
        "reason": tags["reason"],
        "champion_version": None if champion is None else str(champion.version),
        "previous_champion": None if tags["previous_champion"] == "none" else tags["previous_champion"],
        "run_id": version.run_id or None,
        "dataset": tags["dataset"],
        "manifest_digest": tags["manifest_digest"],
        "split_digest": tags["split_digest"],
        "git_commit": tags["git_commit"],
        "git_changed": tags["git_changed"],
        "checkpoint_sha256": tags["checkpoint_sha256"],
        "metric": tags["metric"],
        "metric_mode": tags["metric_mode"],
        "metric_value": value if math.isfinite(value) else None,
        "gate": None if tags["gate"] == "none" else float(tags["gate"]),
        "min_gain": float(tags["min_gain"]),
        "gain": gain,
        "forced": tags[FORCED] != "no",
    }
