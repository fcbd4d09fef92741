"""Raw files -> validated WebDataset tars, index, manifest and quarantine list."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline import discover
from pipeline.params import Params
from pipeline.project import Project
from pipeline.sections import ClusterConfig, ShardsConfig
from pipeline.stages._command import main

if TYPE_CHECKING:
    from pipeline.sources import OpenSource


def open_sources(project: Project, params: Params, dataset: str) -> list[OpenSource]:
    """The sources of a data set, each with its settings, over its raw folder."""
    from pipeline.sources import OpenSource  # numpy and Pillow wait until the arguments are known to be right

    return [
        OpenSource(
            name=name,
            module=discover.load("source", name, where=f"datasets.{dataset}.sources"),
            root=project.raw_root(dataset),
            config=params.part_config("source", {"name": name, **section}, f"datasets.{dataset}.sources.{name}"),
        )
        for name, section in params.dataset(dataset).sources.items()
    ]


def shard(project: Project, params: Params, dataset: str) -> None:
    from pipeline.sharding import shard_dataset

    config = params.dataset(dataset)
    manifest = shard_dataset(
        dataset,
        config,
        open_sources(project, params, dataset),
        project,
        params.section(ShardsConfig, "shards"),
        params.section(ClusterConfig, "cluster"),
        project.root,
    )
    for split, entry in manifest["splits"].items():
        print(
            f"shard {dataset} {split}: {entry['num_samples']} of {entry['num_source']} records, "
            f"{len(entry['shards'])} shards, {entry['bytes'] / 2**20:.1f} MiB; "
            f"dropped {entry['dropped']}; fixed {entry['fixed']}"
        )


if __name__ == "__main__":
    main(shard, "data set")
