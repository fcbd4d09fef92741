"""Runs that start from the weights of another one: it is trained first, and its checkpoint laid where all ranks see it.

DVC's templates know no dependency that only some runs have. So `check` writes into the settings of such a run what the
other one depends on (`Params.train_settings`), by which DVC trains both again, and here the other one is brought up to
date before: DVC lets go of the project while a stage's command runs, and afterwards finds that run done.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from contracts.errors import DataError
from pipeline.settings.params import Params
from pipeline.system.disk import publish
from pipeline.system.project import Project
from pipeline.training.checkpoints import BEST, file_sha256
from pipeline.training.run_files import START, trained
from pipeline.training.runs import RunData, load_run


def train_first(project: Project, params: Params, name: str) -> None:
    """Train the run that run `name` starts from, where it is not trained as params.yaml and the code have it now.

    Raises:
        DataError: it could not be trained.
    """
    init = params.run(name).init
    if init is None or is_current(project, params, init.run):
        return
    print(f"{name} starts from {init.run}, which is trained first", flush=True)
    dataset = params.run_dataset(init.run)
    # What this stage reads, nobody may write meanwhile: its own data is there already.
    data = () if dataset == params.run_dataset(name) else ("fetch", "shard", "vocab")
    command = ["repro", "--single-item", *(f"{stage}@{dataset}" for stage in data), f"train@{init.run}"]
    subprocess.run([sys.executable, "-m", "dvc", *command], cwd=project.root, check=False)
    if not is_current(project, params, init.run):
        raise DataError(
            f"run {name} starts from run {init.run}, which is not trained",
            where=str(project.artifacts(init.run)),
            fix=f"see what `dvc repro train@{init.run}` says",
        )


def is_current(project: Project, params: Params, name: str) -> bool:
    """Whether the checkpoint of run `name` is here and what it would become."""
    try:
        return trained(project, name)["fingerprint"] == load_run(project, params, name).fingerprint
    except DataError:  # it was never trained, or its data is not there yet
        return False


def lay_start(project: Project, data: RunData, state: Path) -> None:
    """Copy the checkpoint that a run starts from into its state folder.

    Raises:
        DataError: it has changed since the run's fingerprint was taken.
    """
    if data.run.init is None:
        return
    source, part = project.artifacts(data.run.init.run) / BEST, state / f".{START}.part"
    shutil.copyfile(source, part)
    if file_sha256(part) != data.start:
        raise DataError("the checkpoint to start from has changed meanwhile", where=str(source), fix="run this again")
    publish(part, state / START)
