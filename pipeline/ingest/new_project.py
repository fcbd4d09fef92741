"""`sightline init`: another project, in a folder of its own, on data that lies where it lies."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from contracts.errors import ConfigError, DataError, SightlineError
from contracts.raw import Problem, RawRecord
from pipeline.ingest.sources import OpenSource, joined_splits, read_joined
from pipeline.ingest.sources._recognise import what_lies_in
from pipeline.settings import discover
from pipeline.settings.check import check
from pipeline.settings.code import CODE, is_code
from pipeline.settings.params import FILE, Params, read_params, unfit
from pipeline.settings.parse import nearest, raise_if
from pipeline.system.disk import renewed
from pipeline.system.git import in_repository

_LOOKED_AT = 200  # records of the training split
_HAS: dict[str, Callable[[RawRecord], bool]] = {
    "num_captions": lambda record: bool(record.captions),
    "num_objects": lambda record: bool(record.objects),
    "num_masks": lambda record: record.instance_mask is not None or any(o.segmentation for o in record.objects),
    "num_questions": lambda record: bool(record.questions),
    "num_labels": lambda record: bool(record.labels),
    "has_semantic": lambda record: record.semantic_mask is not None,
    "num_texts": lambda record: any(sentence.role == "text" for sentence in record.sentences),
}
_WHAT = {
    "num_captions": "captions",
    "num_objects": "objects with boxes",
    "num_masks": "objects with masks",
    "num_questions": "questions",
    "num_labels": "labels of whole images or texts",
    "has_semantic": "label masks",
    "num_texts": "texts",
}
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


@dataclass(frozen=True)
class _Reading:
    """One way to read a folder: what stands in `datasets.<name>`, beside origin and input."""

    sources: dict[str, dict[str, Any]]
    beside: dict[str, Any] = field(default_factory=dict)


def write_project(folder: Path, data: Path, task: str, source: str | None) -> None:
    """Fill `folder` with params.yaml, dvc.yaml and what DVC and git want; tell what to do next.

    Args:
        data: the user's folder; named in params.yaml by its absolute path, since another place reads it.
        source: None: all are tried.

    Raises:
        ConfigError: the folder holds something; no such task or source.
        DataError: no such data, no source reads it, or it has not what the task requires.
    """
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
    reading = _reading(data, task, source)
    document = _document(data, task, reading)
    raise_if(_mistakes(document), FILE)
    with renewed(folder, inside=folder.parent) as new:
        (new / FILE).write_text(_params_text(document, reading))
        (new / "dvc.yaml").write_text(_stages_text())
        (new / ".dvc").mkdir()
        (new / ".dvc" / "config").write_text(_dvc_config(folder))
        (new / ".dvc" / ".gitignore").write_text("/config.local\n/tmp\n/cache\n")
        (new / ".dvcignore").write_text("state\nmlartifacts\n")
        (new / ".gitignore").write_text("".join(f"/{name}\n" for name in _IGNORED))
        (new / "README.md").write_text(_README.format(task=task, run=_run_name(document)))
    check(read_params(folder))
    print(f"{folder}: a project for {task} on {data}, read as {', '.join(reading.sources)}")
    print(f"next: cd {folder} && sightline repro")


def _mistakes(document: dict[str, Any]) -> list[str]:
    try:
        check(Params(document))
    except ConfigError as error:
        return [str(error)]
    return []


def _candidates(data: Path, source: str | None) -> Iterator[_Reading]:
    """Ways to read a folder, the likeliest first. A source that has only one split gets a val split drawn."""
    for name in [source] if source else discover.names("source"):
        sections: list[tuple[dict[str, Any], dict[str, Any]]] = [({}, {})]
        if name == "coco":  # Roboflow's export, and one file anywhere
            files = {"images": "{split}", "instances": "{split}/_annotations.coco.json", "captions": ""}
            sections += [(files, {}), (files, {"splits": {"val": "valid"}})]
        elif name == "voc":
            found = itertools.islice(data.rglob("JPEGImages"), 1)
            sections = [({"folders": [path.parent.relative_to(data).as_posix()]}, {}) for path in found]
        elif name == "image_folder":
            sections += [({}, {"splits": {"val": "valid"}})]
        elif name == "labelme":
            sections += [({"train": "."}, {})]
        for section, beside in sections:
            yield _Reading({name: section}, beside)
            if "splits" not in beside:
                yield _Reading({name: section}, {"split": {"val": 0.1}})


def _reading(data: Path, task: str, source: str | None) -> _Reading:
    """The first way that finds training and validation data with all that the task requires."""
    required = discover.load("task", task, where="--task").Task.requires
    read: dict[str, list[str]] = {}
    for reading in _candidates(data, source):
        lacking = _lacking(data, reading, required)
        if lacking == []:
            return reading
        if lacking is not None:
            read.setdefault(", ".join(reading.sources), lacking)
    wanted = " and ".join(_WHAT.get(column, column) for column in required)
    if read:
        told = "; ".join(f"as {name} it has no {' and no '.join(lacking)}" for name, lacking in read.items())
        raise DataError(
            f"this data has not what {task} learns from", value=told, where=str(data), allowed=f"images with {wanted}",
            fix="choose the task that suits it, or write params.yaml by hand: docs/adding.md, your own files",
        )  # fmt: skip
    there = "".join(f"\n    - {line}" for line in what_lies_in(data))
    raise DataError(
        "no source reads this folder as it stands", where=str(data),
        allowed=", ".join([source] if source else discover.names("source")),
        fix=f"write params.yaml by hand; what lies there:{there}" if there else "name the folder of the annotations",
    )  # fmt: skip


def _lacking(data: Path, reading: _Reading, required: tuple[str, ...]) -> list[str] | None:
    """What of the required the first records have not; None where nothing can be read in this way."""
    try:
        config = Params(_dataset_document(data, reading)).dataset("data")
        opened = [
            OpenSource(
                name=name,
                module=discover.load("source", name, where="--source"),
                root=data,
                config=Params({}).part_config("source", {"name": name, **section}, name),
            )
            for name, section in config.sources.items()
        ]
        found = joined_splits(opened)
        if {"train", "val"} - {*found, *(config.split.shares if config.split else ())}:
            return None
        if config.split and set(config.split.shares) & set(found):
            return None
        records = (one for one in read_joined(opened, "train") if not isinstance(one, Problem))
        seen = list(itertools.islice(records, _LOOKED_AT))
    except (SightlineError, OSError):
        return None
    if not seen:
        return None
    return [_WHAT[column] for column in required if column in _HAS and not any(map(_HAS[column], seen))]


def _dataset_document(data: Path, reading: _Reading) -> dict[str, Any]:
    dataset = {"origin": "local", "input": str(data), "sources": reading.sources, **reading.beside}
    return {"datasets": {"data": dataset}, "runs": {}}


def _document(data: Path, task: str, reading: _Reading) -> dict[str, Any]:
    """Task, model and training as the shipped run of this task has them, else the first model that fits."""
    shipped = yaml.safe_load((CODE / FILE).read_text())
    run: dict[str, Any] = next((run for run in shipped["runs"].values() if run["task"]["name"] == task), {})
    model = run.get("model") or {
        "name": next(name for name in discover.names("model") if not unfit(task, name, "--task"))
    }
    entry = {"dataset": "data", "task": {"name": task}, "model": model}
    return {
        **_dataset_document(data, reading),
        "train": {"max_epochs": 8, "batch_size": 16, **run.get("train", {})},
        "runs": {f"{task}_{model['name']}".replace("__", "_"): entry},
    }


def _run_name(document: dict[str, Any]) -> str:
    return next(iter(document["runs"]))


def _flow(value: Any) -> str:
    return yaml.safe_dump(value, default_flow_style=True, width=10**6, sort_keys=False).strip()


def _params_text(document: dict[str, Any], reading: _Reading) -> str:
    dataset = document["datasets"]["data"]
    run = document["runs"][_run_name(document)]
    drawn = "  # a tenth of train, since there is no val split" if "split" in dataset else ""
    beside = "".join(f"    {key}: {_flow(value)}{drawn}\n" for key, value in reading.beside.items())
    return _PARAMS.format(
        input=_flow({"input": dataset["input"]})[1:-1],
        sources=_flow(dataset["sources"]),
        beside=beside,
        train="".join(f"  {key}: {_flow(value)}\n" if isinstance(value, dict) else f"  {key}: {value}\n"
                      for key, value in document["train"].items()),
        name=_run_name(document),
        task=_flow(run["task"]),
        model=_flow(run["model"]),
    )  # fmt: skip


def _stages_text() -> str:
    """The stages of this repository's dvc.yaml, its code replaced by digests that `check` writes."""
    stages = yaml.safe_load((CODE / "dvc.yaml").read_text())["stages"]
    first = stages["check"]
    first |= {"cmd": f"{first['cmd']} --code data/code", "always_changed": True, "outs": [*first["outs"], "data/code"]}
    del first["deps"]
    for name, stage in stages.items():
        if name != "check":
            own = stage.get("do", stage)
            kept = [dep for dep in own["deps"] if not is_code(dep)]
            own["deps"] = [*kept, f"data/code/{name}/${{key}}.json" if "do" in stage else f"data/code/{name}.json"]
    return _STAGES + yaml.safe_dump({"stages": stages}, sort_keys=False, width=120)


def _dvc_config(folder: Path) -> str:
    """DVC refuses a folder outside any git repository unless it is told that there is none."""
    alone = "" if in_repository(folder.parent) else "    no_scm = true  # take this line out after `git init`\n"
    return (
        f"[core]\n    analytics = false\n    check_update = false\n{alone}"
        '# Links instead of copies: shards lie on the disk once.\n[cache]\n    type = "hardlink,copy"\n'
    )


_PARAMS = """\
# Every knob of this project that differs from the defaults. `sightline check` tells every mistake at once;
# `sightline repro` runs what a change makes necessary.

datasets:
  data:
    origin: local
    {input}
    sources: {sources}
{beside}    max_quarantined: 0.01  # largest share of records that may be unusable; they are listed in data/quarantine

shards:
  samples: 128             # of a tar; more for large sets of small images

train:                     # every run's defaults; a run's own `train` is laid over them
{train}
runs:                      # a run = data set + task + model; others are further entries
  {name}:
    dataset: data
    task: {task}
    model: {model}

cluster:
  engine: local            # ray: two workers, all GPUs, or a cluster that RAY_ADDRESS names

registry:
  gates: {{}}                # run name -> least value of its metric that may become champion
"""

_STAGES = """\
# One template a stage; a new data set or run needs no line here. `check` always runs, and its outputs say what changed:
# settings of each run in data/settings, and in data/code a digest of the code behind each stage.
"""

_README = """\
# {task}

Made by `sightline init`. In this folder:

    sightline check                    # every mistake in params.yaml
    sightline repro                    # shards, training, evaluation, registration: what changed
    sightline report                   # report.html: all runs side by side
    sightline ui                       # MLflow: curves and pictures of every training
    sightline predict {run} photo.jpg

`params.yaml` holds the settings; `data/`, `artifacts/`, `evaluations/`, `plots/` and `registry/` are written by
the stages, `metrics/` is for git.
"""
