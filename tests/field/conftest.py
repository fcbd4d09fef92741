"""The inputs of `../shared/field`, through the stages."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from contracts.records import Record
from pipeline.settings.params import Params, load_params
from pipeline.shards.manifest import load_manifest
from pipeline.shards.reader import open_splits
from pipeline.stages.fetch import fetch
from pipeline.stages.shard import shard
from pipeline.stages.vocab import vocab
from pipeline.system.project import Project


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A field input after fetch, shard and vocab. `told` is what the stages printed."""

    project: Project
    params: Params
    manifest: dict[str, Any]
    records: dict[str, list[Record]]
    vocabulary: dict[str, list[list[Any]]]
    told: str

    def lost(self) -> dict[str, Any]:
        return {split: entry["dropped"] for split, entry in self.manifest["splits"].items() if entry["dropped"]}


@pytest.fixture
def field(shared_dir: Path) -> Path:
    folder = shared_dir / "field"
    if not folder.is_dir():
        pytest.skip(f"no field inputs: {folder} is absent")
    return folder


@pytest.fixture
def prepare(field: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> Callable[..., Prepared]:
    """`prepare(folder, sources, **data set's keys)`; `folder` lies in the field inputs."""

    number = itertools.count()

    def run(name: str, sources: dict[str, Any], runs: dict[str, Any] | None = None, **dataset: Any) -> Prepared:
        document = {
            "datasets": {"data": {"origin": "local", "input": str(field / name), "sources": sources, **dataset}},
            "runs": runs or {},
            "train": {"max_epochs": 1, "batch_size": 8, "eval_batch_size": 8, "num_pictures": 1},
            "cluster": {"engine": "local", "num_workers": 1},
            "tracking": {"system_metrics": False},
        }
        place = tmp_path / f"{name}-{next(number)}"
        place.mkdir()
        (place / "params.yaml").write_text(yaml.safe_dump(document))
        project, params = Project(place), load_params(place)
        capfd.readouterr()
        for stage in (fetch, shard, vocab):
            stage(project, params, "data")
        printed = capfd.readouterr()
        manifest = load_manifest(project.shards("data"), "data")
        readers = open_splits(project.shards("data"), manifest)
        return Prepared(
            project=project,
            params=params,
            manifest=manifest,
            records={split: [reader.read(i) for i in range(len(reader))] for split, reader in readers.items()},
            vocabulary=json.loads(project.vocabulary("data").read_text()),
            told=printed.out + printed.err,
        )

    return run
