"""Runs that start from what is there already: another run is trained first, and what all ranks begin with is laid into
the state folder, which all of them see.

DVC's templates know no dependency that only some runs have. So `check` writes into the settings of such a run what the
other one depends on (`Params.train_settings`), by which DVC trains both again, and here the other one is brought up to
date before: DVC lets go of the project while a stage's command runs, and afterwards finds that run done.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from contracts.errors import DataError
from pipeline.settings.params import Params
from pipeline.system.disk import publish
from pipeline.system.project import Project, write_json
from pipeline.training.checkpoints import (
    BEST,
    build_module,
    file_sha256,
    load_best,
    newest_state,
    read_note,
    save_best,
)
from pipeline.training.ledger import FOLDER as LEDGER
from pipeline.training.resume import DECIDED
from pipeline.training.run_files import BEGUN, EVENTS, LAST, START, trained
from pipeline.training.runs import RunData, load_run


def train_first(project: Project, params: Params, name: str) -> None:
    """Train the run that run `name` starts from, where it is not trained as params.yaml and the code have it now.

    Raises:
        DataError: it could not be trained.
    """
    init = params.run(name).init
    if init is None or init.run is None or is_current(project, params, init.run):
        return
    print(f"{name} starts from {init.run}, which is trained first", flush=True)
    dataset = params.run_dataset(init.run)
    # What this stage reads, nobody may write meanwhile: its own data is there already.
    data = () if dataset == params.run_dataset(name) else ("fetch", "shard", "vocab")
    command = [
        "--wait-for-lock",
        "repro",
        "--single-item",
        *(f"{stage}@{dataset}" for stage in data),
        f"train@{init.run}",
    ]
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


def is_laid(state: Path) -> bool:
    """Whether the state folder has what the training begins with."""
    return (state / BEGUN).is_file()


def lay_weights(data: RunData, state: Path, weights: Mapping[str, torch.Tensor], about: dict[str, Any]) -> None:
    """The weights of the whole model as the training begins: `weights` over those it would have been initialised with,
    which are those of the run's seed.

    Args:
        about: where they are from, for the record.

    Raises:
        ConfigError, DataError: they do not fit.
    """
    from pipeline.training.beginning import lay_over, told  # what trains, which few runs' drivers need

    init, run = data.run.init, data.run.to_dict()
    assert init is not None
    torch.manual_seed(data.run.train.seed)
    module = build_module(run, data.spec)
    loaded = lay_over(module, weights, init)
    save_best(state / START, run=run, data=data.spec, weights=module.state_dict(), info=about)
    write_json(state / BEGUN, {**about, **loaded})
    print(f"{data.run.name} starts from {init.source}: {told(loaded)}", flush=True)


def lay_state(project: Project, data: RunData, state: Path) -> None:
    """The state that the extended run ended with, its best checkpoint as this run's, its curves and its ledger.

    Raises:
        DataError: it kept no state, or a damaged one.
    """
    run = data.run.to_dict()
    other = project.artifacts(str(run["init"]["from"]))
    newest = newest_state(other / LAST) if (other / LAST).is_dir() else None
    if newest is None:
        raise DataError(
            f"run {other.name} has kept no state that could be gone on from",
            where=str(other / LAST),
            fix=f"train it anew with the state kept: `dvc repro --force --single-item train@{other.name}`; or leave "
            f"extend out: that starts a new training from its best weights",
        )
    best = load_best(other / BEST)
    run["train"]["precision"] = best["run"]["train"]["precision"]  # as it was decided when that run began
    save_best(state / BEST, run=run, data=data.spec, weights=best["state_dict"], info=best["info"])
    for source in (other / EVENTS, other / LAST / DECIDED):
        if source.is_file():
            shutil.copyfile(source, state / source.name)
    if (other / LEDGER).is_dir():
        shutil.copytree(other / LEDGER, state / LEDGER, dirs_exist_ok=True)
    step = int(read_note(newest.with_suffix(".json"))["step"])
    shutil.copyfile(newest.with_suffix(".json"), (state / newest.name).with_suffix(".json"))
    shutil.copyfile(newest, state / f".{newest.name}.part")
    publish(state / f".{newest.name}.part", state / newest.name)
    write_json(state / BEGUN, {"from": other.name, "step": step, "sha256": file_sha256(newest)})
    print(f"{data.run.name} extends {other.name} from step {step}", flush=True)


def keep_state(state: Path, folder: Path) -> None:
    """Keep the state that a training ended with in its artifacts `folder`."""
    newest = newest_state(state)
    assert newest is not None  # written after the last epoch
    (folder / LAST).mkdir()
    for source in (newest, newest.with_suffix(".json"), state / DECIDED):
        if source.is_file():
            shutil.copyfile(source, folder / LAST / source.name)


def for_fit(run: dict[str, Any]) -> dict[str, Any]:
    """`Run.to_dict()` as `fit` takes it: it loads the whole of what was laid, whatever was chosen to be laid over."""
    return run if run["init"] is None else {**run, "init": {**run["init"], "part": None}}
