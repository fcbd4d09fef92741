"""A small project on generated data, in a folder of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from pipeline.settings.params import Params, load_params
from pipeline.stages.fetch import fetch
from pipeline.stages.shard import shard
from pipeline.stages.vocab import vocab
from pipeline.system.project import Project


def make_project(root: Path, num_images: int, image_size: int = 128, **sections: Any) -> tuple[Project, Params]:
    """A data set `voc` of `num_images` scenes of `image_size` pixels and a run `fcn` on it, ready to be trained."""
    world = {"name": "voc_scenes", "image_size": image_size, "num_records": {"train": num_images, "val": 4}}
    document = {
        "datasets": {
            "voc": {"origin": "generated", "input": "pipeline/ingest/worlds", "world": world, "sources": {"voc": {}}}
        },
        "runs": {"fcn": {"dataset": "voc", "task": {"name": "segmentation"}, "model": {"name": "fcn"}}},
        "cluster": {"engine": "local"},
        **sections,
    }
    (root / "params.yaml").write_text(yaml.safe_dump(document))
    project, params = Project(root), load_params(root)
    for stage in (fetch, shard, vocab):
        stage(project, params, "voc")
    return project, params
