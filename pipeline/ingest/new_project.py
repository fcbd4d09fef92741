"""`sightline init`: another project, in a folder of its own, on data that lies where it lies."""

from __future__ import annotations

import dataclasses
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from contracts.errors import ConfigError, DataError
from pipeline.ingest.found import Found, find
from pipeline.ingest.layouts import worth_trying
from pipeline.ingest.params_text import params_text, plain
from pipeline.ingest.presets import CPU, GPU, presets
from pipeline.ingest.tree import Tree
from pipeline.settings import discover
from pipeline.settings.check import check
from pipeline.settings.code import CODE
from pipeline.settings.params import FILE, Params, read_params, unfit
from pipeline.settings.parse import nearest, raise_if
from pipeline.settings.sections import ShardsConfig
from pipeline.settings.train_config import TrainConfig
from pipeline.system.disk import renewed
from pipeline.system.git import in_repository

_IGNORED = (
    "data/*",
    "artifacts",
    "predictions",
    "evaluations",
    "plots",
    "curves",
    "registry",
    "report.html",
    "state",
    "mlflow.db*",
    "mlartifacts",
    "dvc_plots",
)


def write_project(folder: Path, data: Path, task: str, source: str | None) -> None:
    """Fill `folder` with params.yaml, dvc.yaml and what DVC and git want; tell what to do next.

    Args:
        data: the user's folder; named in params.yaml by its absolute path, since another place reads it.
        source: None: all are tried.

    Raises:
        ConfigError: the folder holds something; no such task or source.
        DataError: no such data, no source reads it, or it has not what the task requires.
    """
    if re.match(r"\w+:/", str(data)):  # a path has one slash of a url's two
        raise DataError(
            "only a folder can be looked into", value=str(data), where="--data",
            fix="name a folder with some of the data; then set datasets: input to the url in params.yaml",
        )  # fmt: skip
    folder, data = folder.expanduser().absolute(), data.expanduser().absolute()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError("this folder is not empty", value=str(folder), fix="name a new one")
    if folder == Path.cwd():
        raise ConfigError("this is the folder you are in", value=str(folder), fix="go out of it and name it")
    for kind, name in (("task", task), ("source", source)):
        known = discover.names(kind)
        if name is not None and name not in known:
            raise ConfigError(f"unknown {kind}", value=name, where=f"--{kind}", fix=nearest(name, known))
    if not data.is_dir():
        raise DataError("no such folder", value=str(data), where="--data", fix="name the folder of your data")
    found = find(data, task, source)
    document = _document(data, task, found)
    raise_if(_mistakes(plain(document)), FILE)
    with renewed(folder, inside=folder.parent) as new:
        (new / FILE).write_text(params_text(document))
        shutil.copyfile(CODE / "dvc.yaml", new / "dvc.yaml")
        (new / ".dvc").mkdir()
        (new / ".dvc" / "config").write_text(_dvc_config(folder))
        (new / ".dvc" / ".gitignore").write_text("/config.local\n/tmp\n/cache\n")
        (new / ".dvcignore").write_text("state\nmlartifacts\n")
        (new / ".gitignore").write_text("".join(f"/{name}\n" for name in _IGNORED))
        (new / "README.md").write_text(_readme(task, document))
    check(read_params(folder))
    print(f"{folder}: a project for {task} on {data}, read as {', '.join(found.layout.sources)}")
    for line in found.told:
        print(f"  {line}")
    print(f"next: cd {folder} && sightline repro")


def load_sources(data: Path) -> None:
    """Import the sources that may read `data`: what is imported within `outlines()` reads nothing."""
    for name in worth_trying(Tree(data.expanduser()), discover.names("source")):
        discover.load("source", name, where="--source")


def _mistakes(document: dict[str, Any]) -> list[str]:
    try:
        check(Params(document))
    except ConfigError as error:
        return [str(error)]
    return []


def _document(data: Path, task: str, found: Found) -> dict[str, Any]:
    """The model that the shipped run of this task has, else the first that fits; settings by the data's statistics."""
    shipped = yaml.safe_load((CODE / FILE).read_text())
    run: dict[str, Any] = next((run for run in shipped["runs"].values() if run["task"]["name"] == task), {})
    model = run["model"]["name"] if run else next(m for m in discover.names("model") if not unfit(task, m, "--task"))
    machine = GPU if _has_gpu() else CPU
    configs = {
        "task": discover.load("task", task, where="--task").Task.Config,
        "model": discover.load("model", model, where="--task").Config,
        "train": TrainConfig,
        "shards": ShardsConfig,
    }
    known = {section: {field.name for field in dataclasses.fields(config)} for section, config in configs.items()}
    chosen: dict[str, dict[str, Any]] = {"task": {"name": task}, "model": {"name": model}, "train": {}, "shards": {}}
    for path, setting in presets(found.statistics, task, known, machine, _weights()).items():
        section, _, key = path.partition(".")
        chosen[section][key] = setting
    dataset = found.document["datasets"]["data"]
    if "search" in chosen["task"]:  # done once for all pictures, and in the same way for a new one
        dataset = {**dataset, "proposals": chosen["task"]["search"]}
    return {
        **found.document,
        "datasets": {"data": dataset},
        "shards": chosen["shards"],
        "train": chosen["train"],
        "runs": {
            f"{task}_{model}".replace("__", "_"): {"dataset": "data", "task": chosen["task"], "model": chosen["model"]}
        },
        "cluster": {"engine": "local"},
        "registry": {"gates": {}},
    }


def _has_gpu() -> bool:
    """Asked of the system: torch takes longer to import than all else here."""
    return any(Path("/dev").glob("nvidia[0-9]*"))


def _weights(environment: Mapping[str, str] = os.environ) -> tuple[str, ...]:
    """Backbones whose pretrained weights lie where torch keeps them."""
    cache = Path(environment.get("XDG_CACHE_HOME", "~/.cache")).expanduser()
    folder = Path(environment.get("TORCH_HOME", cache / "torch")).expanduser() / "hub" / "checkpoints"
    return tuple(sorted({path.name.partition("-")[0] for path in folder.glob("*-*.pth")}))


def _readme(task: str, document: dict[str, Any]) -> str:
    names = discover.load("task", task, where="--task").Task.inputs
    inputs = " ".join(_GIVEN.get(name, f'--{name} "..."') for name in names)
    return _README.format(task=task, run=_run_name(document), inputs=inputs)


def _run_name(document: dict[str, Any]) -> str:
    return next(iter(document["runs"]))


def _dvc_config(folder: Path) -> str:
    """DVC refuses a folder outside any git repository unless it is told that there is none."""
    alone = "" if in_repository(folder.parent) else "    no_scm = true  # take this line out after `git init`\n"
    return (
        f"[core]\n    analytics = false\n    check_update = false\n{alone}"
        '# Links instead of copies: shards lie on the disk once.\n[cache]\n    type = "hardlink,copy"\n'
    )


_GIVEN = {
    "image": "photo.jpg",
    "clip": "video.mp4",
    "candidates": '--candidates "... | ..."',
    "boxes": '--boxes "x1,y1,x2,y2 | ..."',
}
_README = """\
# {task}

Made by `sightline init`. In this folder:

    sightline check      # every mistake in params.yaml
    sightline repro      # shards, training, evaluation, registration: what changed
    sightline report     # report.html: all runs side by side
    sightline ui         # MLflow: curves and pictures of every training
    sightline predict {run} {inputs}

`params.yaml` holds the settings; `data/`, `artifacts/`, `evaluations/`, `plots/` and `registry/` are written by
the stages, `metrics/` is for git.
"""
