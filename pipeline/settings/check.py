"""Check every section of params.yaml at once, before any work: `sightline check`.

The first stage of dvc.yaml, which all others depend on: a name that is a path or shell text goes no further.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from contracts.errors import ConfigError
from pipeline.settings import own
from pipeline.settings.code import CODE, STAGES, WHOLE, Code
from pipeline.settings.document import shown
from pipeline.settings.params import Params, read_params
from pipeline.settings.parse import Problems, indented, nearest, parse, raise_if
from pipeline.settings.sections import (
    ClusterConfig,
    LoaderConfig,
    RegistryConfig,
    ShardsConfig,
    TrackingConfig,
    check_folder_url,
)
from pipeline.settings.train_config import TrainConfig
from pipeline.settings.uris import check_tracking_uri
from pipeline.system.disk import renewed
from pipeline.system.project import Project, write_json

_READ_BY_DVC = ("shards", "registry")  # beside `datasets` and `runs`: DVC stops where one is not there
_TOGETHER = ("train: ", "loader: ")


def check(params: Params) -> None:
    """Raise one ConfigError that tells every mistake of every section."""
    found: Problems = []
    document = params.document
    for name in document["datasets"]:
        params.read_dataset(name, found)
    shards = parse(ShardsConfig, document.get("shards"), "shards", found)
    store = None if shards is None else shards.store
    shared = _shared_mistakes(params, store)
    found += [one for one in shared if not one.startswith(_TOGETHER) or not document["runs"]]
    for name in document["runs"]:
        mistakes: Problems = []
        run = params.read_run(name, mistakes)
        if run is not None:
            _check_loader(run.loader, store, f"runs.{name}.loader", mistakes)
            if run.init is not None and run.init.kind == "file" and not Path(run.init.source).is_file():
                mistakes.append(f"runs.{name}.init.from: no such file (is {shown(run.init.source)})")
        # What a run has from the shared section is told there, once for all runs that have it.
        found += [rest if (rest := one.removeprefix(f"runs.{name}.")) in shared else one for one in mistakes]
    for cls, key in ((ClusterConfig, "cluster"), (TrackingConfig, "tracking")):
        parse(cls, document.get(key), key, found)
    missing = [key for key in _READ_BY_DVC if key not in document]
    found += [f"{key}: not there, and DVC's stages depend on it; `{key}: {{}}` takes the defaults" for key in missing]
    registry = parse(RegistryConfig, document.get("registry"), "registry", found)
    runs = list(document["runs"])
    for setting, names in registry.named_runs.items() if registry else ():
        for name in names:
            if name not in runs:
                where = f"registry.{setting}: " if setting == "runs" else f"registry.{setting}.{name}: "
                said = f" (is {name!r})" if setting == "runs" else ""
                found.append(f"{where}no such run{said}; {nearest(name, runs)}")
    if uri := os.environ.get("MLFLOW_TRACKING_URI"):  # goes before `tracking.uri`
        try:
            check_tracking_uri(uri, where="environment variable MLFLOW_TRACKING_URI")
        except ConfigError as error:
            found.append(indented(error))
    try:
        check_folder_url("SIGHTLINE_STORAGE", os.environ.get("SIGHTLINE_STORAGE") or None)
    except ConfigError as error:
        found.append(indented(error))
    told = {mistake.partition(": ")[0] for mistake in params.mistakes}
    raise_if([*params.mistakes, *(one for one in found if one.partition(": ")[0] not in told)], params.file)


def _shared_mistakes(params: Params, store: str | None) -> Problems:
    """Of the sections that every run lays its own over. Whether values go together (`_TOGETHER`) is each run's matter:
    one may give another value beside it."""
    mistakes: Problems = []
    parse(TrainConfig, params.document.get("train"), "train", mistakes)
    loader = parse(LoaderConfig, params.document.get("loader"), "loader", mistakes)
    if loader is not None:
        _check_loader(loader, store, "loader", mistakes)
    return mistakes


def _check_loader(loader: LoaderConfig, store: str | None, where: str, problems: Problems) -> None:
    """
    Args:
        store: where shards lie, other than in data/shards.
    """
    if loader.start_method == "fork" and store is not None:
        problems.append(
            f"{where}.start_method: fork copies a process that fetches shards from shards.store, with the locks that "
            "it holds, which nobody frees then; allowed: forkserver, spawn"
        )
    try:
        own.check(loader.stages, Project.here().root)
    except ConfigError as error:
        problems.append(f"{where}.stages: {indented(error)}")


def write_settings(params: Params, folder: Path) -> None:
    """`<folder>/<run>/train.json` and `evaluate.json`: what each of DVC's stages depends on, so that it runs again when
    one of these changes, and not when another setting does."""
    with renewed(folder, inside=Path.cwd()) as new:
        for name in params.document["runs"]:
            run = params.run(name)
            stages = own.digests(run.loader.stages, Project.here().root)
            settings = params.train_settings(name) | ({"own_code": stages} if stages else {})
            write_json(new / name / "train.json", settings)
            write_json(new / name / "evaluate.json", {"num_pictures": run.train.num_pictures})


def write_code(params: Params, folder: Path, root: Path = CODE) -> None:
    """`<folder>/<stage>/<name>.json`, and `<folder>/<stage>.json` where a stage is of the whole project: a digest of
    the code below `root` that it depends on."""
    code = Code(root)
    with renewed(folder, inside=Path.cwd()) as new:
        for stage, section in STAGES.items():
            for name, entry in params.document[section].items():
                write_json(new / stage / f"{name}.json", {"sha256": code.digest(entry, stage)})
        for stage in WHOLE:
            write_json(new / f"{stage}.json", {"sha256": code.digest({}, stage)})


def run(
    out: Path | None, settings: Path | None, code: Path | None = None, *, hints: Callable[[Params, Path], list[str]]
) -> None:
    """The command: check, say so, and write what DVC's stage asks for.

    Args:
        hints: what is worth knowing of the data although nothing is wrong in the file, such as folders not there yet.
        out: file to write when all is well.
        settings: folder below this one for the resolved settings of every run.
        code: folder below this one for digests of the code of every stage.

    Raises:
        ConfigError: tells every mistake.
    """
    params = read_params(Project.here().root)
    check(params)
    if settings is not None:
        write_settings(params, settings)
        if not params.document["runs"]:  # the report of none, which DVC's stage reads like any other
            for folder in ("evaluations", "registry"):
                (Project.here().root / folder).mkdir(exist_ok=True)
    if code is not None:
        write_code(params, code)
    if out is not None:
        write_json(out, {"checked": True})  # always the same, so that no stage runs again because of it
    if told := hints(params, Project.here().root):
        from pipeline.system.progress import note  # draws bars, too, and takes a tenth of this command to import

        for text in told:
            note(text)
    counts = f"{len(params.document['datasets'])} data sets, {len(params.document['runs'])} runs"
    said = f", {len(told)} hint{'s' * (len(told) > 1)}" if told else ""
    print(f"params.yaml: {counts}, no mistakes{said}", flush=True)
