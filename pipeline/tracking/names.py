"""What a command may name of what was trained: a run, a registered model, or the file of a checkpoint.

Imports nothing that is slow: a wrong name is told at once.
"""

from __future__ import annotations

import os
import re
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from contracts.errors import ConfigError, DataError
from contracts.names import NAME, is_name
from pipeline.settings.params import FILE, load_params
from pipeline.settings.sections import TrackingConfig
from pipeline.system import lock
from pipeline.system.project import Project
from pipeline.tracking.moved import DATABASE
from pipeline.training import run_files

FORMS = "a run, a registered model (name, name@alias, name/version, models:/.., runs:/..) or a .ckpt file"
_URI = re.compile(r"(models|runs):/")
_REGISTERED = re.compile(rf"{NAME.pattern}(@[\w.-]+|/\d+)", re.ASCII)


@dataclass(frozen=True, kw_only=True)
class Named:
    """Exactly one of `checkpoint`, a file that is there, and `uri`, of an MLflow model; `run` where that is one's."""

    given: str
    run: str | None = None
    checkpoint: Path | None = None
    uri: str | None = None


def named(project: Project, given: str) -> Named:
    """What `given` stands for. A bare name is the run of that name, where it was trained here, or else the champion of
    the registered model.

    Raises:
        ConfigError: nothing is called so.
        DataError: the run's checkpoint is not the one that training wrote, or there is no such file.
    """
    if given.endswith(".ckpt"):
        if not Path(given).is_file():
            raise DataError("no such checkpoint file", value=given, allowed=FORMS)
        return Named(given=given, checkpoint=Path(given))
    if _URI.match(given):
        return Named(given=given, uri=given)
    if _REGISTERED.fullmatch(given):
        return Named(given=given, uri=f"models:/{given}")
    if is_name(given):
        checkpoint = project.artifacts(given) / run_files.BEST
        if checkpoint.is_file():
            run_files.trained(project, given)
            return Named(given=given, run=given, checkpoint=checkpoint)
        if _has_registry(project):
            return Named(given=given, uri=f"models:/{given}@champion")
    raise unknown(project, given)


def unknown(project: Project, given: str, registered: str = "") -> ConfigError:
    """That nothing is called `given`, with what there is. `registered` names the registered models, if any are."""
    trained = sorted(path.parent.name for path in (project.root / "artifacts").glob(f"*/{run_files.BEST}"))
    return ConfigError(
        f"no such trained run{' or registered model' if registered else ''}",
        value=given,
        where=str(project.root / "artifacts"),
        allowed="; ".join(filter(None, (", ".join(trained), registered))) or "none is trained yet",
        fix=f"use one of these, or {FORMS}" if trained or registered else f"dvc repro train@{given}",
    )


def fetch(project: Project, chosen: Named, folder: Path, *, trust: bool) -> Path:
    """The folder of a registered model, downloaded below `folder`, as `mlflow_run.fetch_signed` has it.

    Raises:
        ConfigError: nothing is called so, or MLflow does not answer. Others as `fetch_signed`.
    """
    from pipeline.tracking import connection
    from pipeline.tracking import mlflow_run as tracking

    assert chosen.uri is not None
    client = connection.connect(tracking_config(project), project.tracking_root)
    try:
        return tracking.fetch_signed(chosen.uri, client, folder, trust=trust)
    except ConfigError as error:
        if error.what == "no such model" and is_name(chosen.given):
            raise unknown(project, chosen.given, error.allowed) from error
        raise


def checkpoint_of(project: Project, chosen: Named, held: ExitStack, *, trust: bool) -> Path:
    """The file of the weights, for this project's code to read; it stays as it is until `held` is left.

    Raises:
        ConfigError: as `fetch`.
        DataError: the run's checkpoint is not the one that training wrote, or the model is none of Sightline's.
    """
    if chosen.run is not None:
        what = f"the results of run {chosen.run}"
        held.enter_context(lock.hold(project.locks, f"run-{chosen.run}", what, shared=True))
        run_files.trained(project, chosen.run)  # again, under the lock
    if chosen.checkpoint is not None:
        return chosen.checkpoint
    folder = fetch(project, chosen, Path(held.enter_context(tempfile.TemporaryDirectory())), trust=trust)
    found = list((folder / "artifacts").glob("*.ckpt"))
    if len(found) != 1:
        raise DataError("not a Sightline model", value=chosen.given, fix="name one that `register` made")
    return found[0]


@dataclass(frozen=True, kw_only=True)
class Shipped:
    """A registered model's weights and code, downloaded."""

    checkpoint: Path
    code: Path

    def command(self, name: str) -> list[str]:
        """The start of a command line that lets this code, and none of this folder's, do it with the weights."""
        return [sys.executable, "-P", "-m", "pipeline.cli", name, str(self.checkpoint)]

    def environment(self) -> dict[str, str]:
        path = os.pathsep.join(filter(None, [str(self.code), os.environ.get("PYTHONPATH")]))
        return {**os.environ, "PYTHONPATH": path}


def shipped(project: Project, chosen: Named, folder: Path, *, trust: bool) -> Shipped:
    """Fetch a registered model to be run with its own code, below `folder`.

    Raises:
        ConfigError: it is none of Sightline's; others as `fetch`.
    """
    fetched = fetch(project, chosen, folder, trust=trust)
    checkpoints = list((fetched / "artifacts").glob("*.ckpt"))
    if len(checkpoints) != 1 or not (fetched / "code" / "pipeline" / "cli.py").is_file():
        raise ConfigError("not a Sightline model", value=chosen.given)
    return Shipped(checkpoint=checkpoints[0], code=fetched / "code")


def exact(project: Project, chosen: Named) -> Named:
    """A registered model's alias as the version that it stands for now; anything else as it is."""
    match = re.fullmatch(r"models:/([^/@]+)@([^/]+)", chosen.uri or "")
    if match is None:
        return chosen
    from pipeline.tracking import connection

    client = connection.connect(tracking_config(project), project.tracking_root)
    with connection.answering(client.tracking_uri):
        try:
            version = client.get_model_version_by_alias(*match.groups()).version
        except connection.MlflowException as error:
            if not connection.is_final(error):
                raise
            return chosen  # there is none: `fetch` tells what there is
    return replace(chosen, uri=f"models:/{match[1]}/{version}")


def tracking_config(project: Project) -> TrackingConfig:
    """`tracking:` of params.yaml, or the defaults where there is no such file."""
    if not (project.root / FILE).is_file():
        return TrackingConfig()
    return load_params(project.root).section(TrackingConfig, "tracking")


def _has_registry(project: Project) -> bool:
    """Whether there is a store to ask: asking makes the database of a project that has none."""
    elsewhere = os.environ.get("MLFLOW_TRACKING_URI") or tracking_config(project).uri
    return bool(elsewhere) or (project.tracking_root / DATABASE).is_file()
