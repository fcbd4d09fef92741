"""Write a data set's shards in the format of another tool.

    sightline convert coco yolo /data/coco-as-yolo
    sightline convert flags image_folder /data/flags --split val

What the format cannot say is counted. The source of the same name reads it back.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import cast

from contracts.errors import ConfigError
from contracts.records import Record
from pipeline.settings import discover
from pipeline.settings.params import load_params
from pipeline.shards.formats import FormatModule
from pipeline.system.disk import renewed
from pipeline.system.progress import progress_bar
from pipeline.system.project import Project


def convert(project: Project, dataset: str, format_name: str, folder: Path, splits: Sequence[str] | None) -> None:
    """Fill `folder`, which appears when it is whole.

    Raises:
        ConfigError: no such data set, format or split; the folder is there.
        DataError: the data set has no whole shards.
    """
    from pipeline.shards.manifest import load_manifest
    from pipeline.shards.reader import SplitReader

    load_params(project.root).dataset(dataset)
    module = cast(FormatModule, discover.load("format", format_name, where="the command line"))
    if folder.exists():
        raise ConfigError("this folder is there already", value=str(folder), fix="name one that is not")
    shards = project.shards(dataset)
    manifest = load_manifest(shards)
    wanted = list(splits or manifest["splits"])
    readers = {split: SplitReader(shards, manifest, split) for split in wanted}
    with (
        renewed(folder.absolute(), inside=folder.absolute().parent) as new,
        progress_bar(f"{dataset} as {format_name}", sum(map(len, readers.values()))) as advance,
    ):

        def records(reader: SplitReader) -> Iterator[Record]:
            for position in range(len(reader)):
                yield reader.read(position)
                advance(1)

        streams = {split: records(reader) for split, reader in readers.items()}
        left_out = module.write(new, streams, manifest["classes"])
    told = ", ".join(f"{count} x {what}" for what, count in sorted(left_out.items()))
    print(f"{dataset} as {format_name}: {folder}" + (f"; the format has no place for {told}" if told else ""))
