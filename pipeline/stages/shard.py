"""Raw files -> validated WebDataset tars, index, manifest and quarantine list."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from contracts.errors import DataError
from contracts.redact import redact
from pipeline.settings import discover
from pipeline.settings.params import Params
from pipeline.settings.sections import ClusterConfig, ShardsConfig
from pipeline.shards import raw_listing
from pipeline.system.progress import note
from pipeline.system.project import Project
from pipeline.system.removal import remove_tree

if TYPE_CHECKING:
    from pipeline.ingest.sources import OpenSource


def open_sources(project: Project, params: Params, dataset: str) -> list[OpenSource]:
    """The sources of a data set, each with its settings, over its raw folder."""
    from pipeline.ingest.sources import OpenSource  # numpy and Pillow wait until the arguments are known to be right

    store = _store(project, dataset)
    return [
        OpenSource(
            name=name,
            module=discover.load("source", name, where=f"datasets.{dataset}.sources"),
            root=project.raw_root(dataset),
            config=params.part_config("source", {"name": name, **section}, f"datasets.{dataset}.sources.{name}"),
            store=store,
        )
        for name, section in params.dataset(dataset).sources.items()
    ]


def _store(project: Project, dataset: str) -> str | None:
    """Url of raw data that lies in a store. What stands in for it is made again where it is gone: on another machine,
    or after state/ was cleared."""
    pointer = project.raw_pointer(dataset)
    if pointer is None or "store" not in pointer:
        return None
    url, names = pointer["store"], project.raw_names(dataset)
    if not names.is_dir() and raw_listing.lay(url, names, inside=project.root) != pointer["listing_sha256"]:
        remove_tree(names, inside=project.root)
        raise DataError(
            "the raw data in the store is not what was fetched", value=redact(url), fix=f"dvc repro fetch@{dataset}"
        )
    return url


def shard(project: Project, params: Params, dataset: str) -> None:
    from pipeline.cluster.map import map_ordered
    from pipeline.ingest.sources import joined_notes
    from pipeline.shards.raw_store import readable
    from pipeline.shards.writing import shard_dataset

    config, opened = params.dataset(dataset), open_sources(project, params, dataset)
    shards, cluster = params.section(ShardsConfig, "shards"), params.section(ClusterConfig, "cluster")
    store = opened[0].store
    travels = store is not None and shards.store is not None
    run_all = partial(map_ordered, config=cluster, root=project.root, travels=travels)
    with readable(store, opened[0].root):
        manifest = shard_dataset(dataset, config, opened, project, shards, run_all)
    for split, entry in manifest["splits"].items():
        print(
            f"shard {dataset} {split}: {entry['num_samples']} of {entry['num_source']} records, "
            f"{len(entry['shards'])} shards, {entry['bytes'] / 2**20:.1f} MiB{_changes(entry)}"
        )
    for text in (*joined_notes(opened), *exif_notes(manifest, config.exif)):
        note(text)


def _changes(entry: Mapping[str, Any]) -> str:
    """What was dropped and fixed, by reason, where there was anything."""
    dropped = [f"{n} {kind}: {why}" for kind, reasons in entry["dropped"].items() for why, n in reasons.items()]
    told = {"dropped": dropped, "fixed": [f"{n} {rule}" for rule, n in entry["fixed"].items()]}
    return "".join(f"; {what} {', '.join(items)}" for what, items in told.items() if items)


def exif_notes(manifest: Mapping[str, Any], exif: str) -> list[str]:
    """What was taken for granted where pictures have an EXIF orientation and annotations."""
    if exif != "auto":
        return []
    counts: Counter[str] = Counter()
    for entry in manifest["splits"].values():
        counts.update(entry["fixed"])
    stored, undecided = counts["exif_orientation_dropped"], counts["exif_undecided"]
    if not stored:
        return []
    return [
        f"{stored} pictures have an EXIF orientation, and their annotations were taken to be drawn on the stored "
        f"pixels, not on the picture as viewers turn it ({undecided} of them have a size that cannot decide). Where "
        f"that is wrong, set datasets.{manifest['dataset']}.exif: apply; where it is right, exif: ignore"
    ]
