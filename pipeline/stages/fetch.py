"""Bring a data set's raw files to data/raw/<dataset>: generate, download, or point to a folder, here or in a store."""

from __future__ import annotations

import hashlib
from pathlib import Path

from contracts.errors import ConfigError, DataError
from pipeline.settings import discover
from pipeline.settings.params import Params
from pipeline.settings.uris import is_url
from pipeline.shards import raw_listing
from pipeline.system.disk import renewed, writing
from pipeline.system.progress import progress_bar
from pipeline.system.project import POINTER, Project, write_json


def fetch(project: Project, params: Params, dataset: str) -> None:
    with renewed(project.raw(dataset), inside=project.root / "data" / "raw") as target:
        _fill(project, params, dataset, target)
    print(f"fetch {dataset}: {project.raw(dataset)}")


def _fill(project: Project, params: Params, dataset: str, target: Path) -> None:
    config = params.dataset(dataset)
    if config.world is not None:
        world = discover.load("world", config.world["name"], where=f"datasets.{dataset}.world")
        settings = params.part_config("world", config.world, f"datasets.{dataset}.world")
        total = settings.num_records.total
        with writing(target), progress_bar(f"generate {dataset}", total) as advance:
            world.generate(target, settings, advance)
    elif config.download is not None:
        # Its HTTP libraries take as long to import as everything else here.
        from pipeline.ingest.download import download, keep_extracted

        archives, mirrors = config.download.archives, config.download.mirrors
        with writing(target):
            keep_extracted(project.raw(dataset), target, archives)
        download(archives, target, project.root / "state" / "downloads", mirrors)
    elif is_url(config.input):
        digest = raw_listing.lay(config.input, project.raw_names(dataset), inside=project.root)
        write_json(target / POINTER, {"store": config.input, "listing_sha256": digest})
    else:
        point(target, _local_folder(project, config.input, f"datasets.{dataset}.input"))


def _local_folder(project: Project, named: str, where: str) -> Path:
    try:
        return project.root / Path(named).expanduser()
    except RuntimeError as error:  # ~somebody, who is not known here
        raise ConfigError("no such home folder", value=named, where=where, fix=str(error)) from None


def point(target: Path, folder: Path) -> None:
    """Record where a local data set lies, with a digest of its listing, so that a change of it reruns what follows."""
    if not folder.is_dir():
        raise DataError(
            "no such folder", value=str(folder), where="datasets: input", fix="name the folder of your data"
        )
    digest = hashlib.sha256()
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        stat = path.stat()
        digest.update(f"{path.relative_to(folder)}\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode())
    write_json(target / POINTER, {"folder": str(folder.resolve()), "listing_sha256": digest.hexdigest()})
