"""Count the texts of the training split: data/vocab/<dataset>.json, most frequent first.

What is counted, and in which tokens, each file of `lightning_modules/texts` says; of what a data set has not got,
nothing is written.
"""

from __future__ import annotations

from contracts.errors import DataError
from pipeline.settings import discover
from pipeline.settings.params import Params
from pipeline.system.progress import progress_bar
from pipeline.system.project import Project, write_json


def vocab(project: Project, params: Params, dataset: str) -> None:
    from pipeline.shards.manifest import load_manifest  # these need numpy: not for --help
    from pipeline.shards.reader import open_splits

    params.dataset(dataset)
    folder = project.shards(dataset)
    manifest = load_manifest(folder, dataset)
    readers = open_splits(folder, manifest)
    if "train" not in readers:
        raise DataError("this data set has no split to train on", where=str(folder), allowed="train", value=[*readers])
    texts = {name: discover.load("text", name, where="vocab").Text() for name in discover.names("text")}
    reader = readers["train"]
    with progress_bar(f"vocab {dataset}", len(reader)) as advance:
        for position in range(len(reader)):
            record = reader.read(position)
            for text in texts.values():
                text.add(record)
            advance(1)
    for name, text in texts.items():
        text.check(name, dataset, str(folder))
    document = {name: counted for name, text in texts.items() if (counted := text.counted())}
    write_json(project.vocabulary(dataset), document, indent=None)
    found = ", ".join(f"{len(counted)} {name}" for name, counted in document.items())
    print(f"vocab {dataset}: {found or 'no texts'}")
