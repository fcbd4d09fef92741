"""What tells runs apart: the few settings that differ, and a name made of them."""

from __future__ import annotations

import dataclasses
import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from mlflow.entities import ViewType
from mlflow.tracking import MlflowClient

from pipeline.settings import discover
from pipeline.settings.params import BESIDE, Run
from pipeline.settings.sections import ORDER, ClusterConfig, LoaderConfig
from pipeline.settings.train_config import TrainConfig
from pipeline.tracking.connection import FAILURES

ALIAS = "champion"  # of the version that may be served
FORCED = "forced"  # tag of a version: "no", or who made it champion against the gate
SETTINGS = "run.yaml"  # the artifact with every setting
EXPERIMENT = "DVC_EXP_NAME"  # set by `dvc exp run` for its stages
_MOST_CHARACTERS = 60
_MISSING = object()


def settings_of(run: Run, cluster: ClusterConfig) -> dict[str, Any]:
    """Every setting of a run, as `run.yaml` has them."""
    return _plain({**run.to_dict(), "cluster": dataclasses.asdict(cluster)})


def parameters(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Of `settings_of`, those that weights depend on and that differ from the defaults of their part, by dotted name;
    data set and model, too."""
    task = discover.load("task", settings["task_name"], where="task_name").Task.Config
    model = discover.load("model", settings["model_name"], where="model_name").Config
    parts = {"task": task, "model": model, "train": TrainConfig, "loader": LoaderConfig}
    usual = {name: _defaults(part) for name, part in parts.items()}
    chosen = {"dataset": settings["dataset"], "model": settings["model_name"]}
    if settings["init"]:
        chosen["init"] = settings["init"]["from"]
    given = {name: settings[name] for name in parts}
    differing = {name: value for name, value, _ in _differing(given, usual) if value is not _MISSING}
    return chosen | {name: value for name, value in differing.items() if _trains(name)}


def new_name(
    client: MlflowClient,
    experiment_id: str,
    run: str,
    settings: Mapping[str, Any],
    params: Mapping[str, Any],
    lineage: Mapping[str, str],
) -> str:
    """A name that no run of the experiment has: DVC's name of the experiment, else what differs from the champion of
    this run, else what differs from the defaults.

    Args:
        run: its name in params.yaml.
        lineage: `data` and `code`, digests; told where nothing else differs from the champion.
    """
    told = os.environ.get(EXPERIMENT, "")
    champion = _champion(client, run) if settings and not told else None
    if champion is not None:
        told = _told(_changes(settings, champion[0]))
        other = [f"{name} {lineage[name][:8]}" for name in lineage if lineage[name] != champion[1].get(name, "")]
        told = told or ", ".join(other) or "settings of the champion"
    told = told or _told({name: value for name, value in params.items() if "." in name})  # not data set and model
    name = f"{run}: {told}" if told else run
    return _unused(client, experiment_id, name)


def _champion(client: MlflowClient, model: str) -> tuple[dict[str, Any], dict[str, str]] | None:
    """Settings and lineage of the run that the champion came from; None where they cannot be had."""
    try:
        run_id = client.get_model_version_by_alias(model, ALIAS).run_id or ""
        tags = client.get_run(run_id).data.tags
        with tempfile.TemporaryDirectory() as folder:
            settings = yaml.safe_load(Path(client.download_artifacts(run_id, SETTINGS, folder)).read_text())
    except FAILURES:
        return None
    return settings, {"data": tags.get("manifest_digest", ""), "code": tags.get("git_commit", "")}


def _changes(settings: Mapping[str, Any], champion: Mapping[str, Any]) -> dict[str, Any]:
    """What the weights depend on and the champion had otherwise."""
    found = {}
    for name, value, before in _differing(settings, champion):
        if name != "name" and _trains(name):
            found[name] = f"without {_short(before)}" if value is _MISSING else value
    return found


def _trains(name: str) -> bool:
    """Whether weights depend on a setting (`Run.weight_settings`)."""
    section, _, key = name.partition(".")
    beside = {"train": key in BESIDE, "loader": not key.startswith(ORDER), "cluster": True}
    return not beside.get(section, False)


def _told(differing: Mapping[str, Any]) -> str:
    """Settings by the last part of their names, as many as can be read in a list."""
    texts = [f"{name.rpartition('.')[2]}={_short(value)}" for name, value in differing.items()]
    for shown in range(len(texts), 0, -1):
        told = ", ".join([*texts[:shown], *([f"{len(texts) - shown} more"] if shown < len(texts) else [])])
        if len(told) <= _MOST_CHARACTERS or shown == 1:
            return told[:_MOST_CHARACTERS]
    return ""


def _short(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, list):
        return "+".join(_short(part) for part in value) or "none"
    if isinstance(value, dict):
        return _short(value["name"]) if "name" in value else json.dumps(value)
    return {True: "yes", False: "no", None: "none"}.get(value, str(value)) if not isinstance(value, str) else value


def _unused(client: MlflowClient, experiment_id: str, name: str) -> str:
    quoted = name.replace("'", "")  # MLflow's filter has no way to write it
    found = client.search_runs(
        [experiment_id], f"attributes.run_name LIKE '{quoted}%'", run_view_type=ViewType.ALL, max_results=1000
    )
    taken = {run.info.run_name for run in found}
    number = 1
    while (quoted if number == 1 else f"{quoted} ({number})") in taken:
        number += 1
    return quoted if number == 1 else f"{quoted} ({number})"


def _defaults(part: type) -> dict[str, Any]:
    """The defaults of a configuration class, without what has none."""
    found = {}
    for field in dataclasses.fields(part):
        if field.default is not dataclasses.MISSING:
            found[field.name] = field.default
        elif field.default_factory is not dataclasses.MISSING:
            found[field.name] = field.default_factory()
    return _plain({k: dataclasses.asdict(v) if dataclasses.is_dataclass(v) else v for k, v in found.items()})  # type: ignore[arg-type]


def _differing(
    settings: Mapping[str, Any], other: Mapping[str, Any], prefix: str = ""
) -> Iterator[tuple[str, Any, Any]]:
    """Dotted name, value and other value of what is not the same in two documents; `_MISSING` where one has none."""
    for name in dict.fromkeys([*settings, *other]):
        here, there = settings.get(name, _MISSING), other.get(name, _MISSING)
        if isinstance(here, Mapping) and isinstance(there, Mapping):
            yield from _differing(here, there, f"{prefix}{name}.")
        elif isinstance(here, Mapping) and there in (None, _MISSING):
            yield from _differing(here, {}, f"{prefix}{name}.")
        elif here != there:
            yield f"{prefix}{name}", here, there


def _plain(document: Any) -> Any:
    """As it comes back from a file: lists, no tuples."""
    return json.loads(json.dumps(document))
