"""The shard stage on a COCO folder of a user: what it refuses, and in what words."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from contracts.errors import DataError
from pipeline.settings.params import load_params
from pipeline.shards.manifest import load_manifest
from pipeline.shards.reader import open_splits
from pipeline.stages.fetch import fetch
from pipeline.stages.shard import shard
from pipeline.system.project import Project

SOURCE = {"images": "img", "instances": "all.json"}


def write(folder: Path, num_images: int, *, bad: int = 0, absent: int = 0) -> None:
    """Pictures with a box each; the first `bad` boxes have no area, the first `absent` pictures no file."""
    (folder / "img").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for i in range(absent, num_images):
        Image.fromarray(rng.integers(0, 255, (8, 8, 3), np.uint8)).save(folder / f"img/{i:02d}.png")
    document = {
        "images": [{"id": i, "file_name": f"{i:02d}.png"} for i in range(num_images)],
        "annotations": [
            {"id": i, "image_id": i, "category_id": 0, "bbox": [1, 1, 0 if i < bad else 3, 3]}
            for i in range(num_images)
        ],
        "categories": [{"id": 0, "name": "cup"}],
    }
    (folder / "all.json").write_text(json.dumps(document))


def run(folder: Path, **config: Any) -> Project:
    dataset = {"origin": "local", "input": str(folder), "sources": {"coco": SOURCE}, **config}
    document = {"datasets": {"d": dataset}, "runs": {}, "cluster": {"engine": "local"}}
    (folder.parent / "params.yaml").write_text(yaml.safe_dump(document))
    project, params = Project(folder.parent), load_params(folder.parent)
    fetch(project, params, "d")
    shard(project, params, "d")
    return project


def test_a_set_without_val_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    write(tmp_path / "raw", 4)
    with pytest.raises(DataError, match=r"(?s)no val split: \['train'\].*split: \{val: 0\.1\}"):
        run(tmp_path / "raw")
    assert not (tmp_path / "data/shards").exists() and not (tmp_path / "data/quarantine").exists()


def test_a_drawn_val_is_sharded(tmp_path: Path) -> None:
    write(tmp_path / "raw", 20)
    folder = run(tmp_path / "raw", split={"val": 0.1, "test": 0.2, "seed": 3}).shards("d")
    readers = open_splits(folder, load_manifest(folder, "d"))
    assert {split: len(reader) for split, reader in readers.items()} == {"train": 14, "val": 2, "test": 4}


def test_too_many_losses_are_told_in_words(tmp_path: Path) -> None:
    write(tmp_path / "raw", 20, bad=5)
    words = (
        r"(?s)too many annotations of d, split 'train', cannot be used: \d of 18 .*"
        r"- \d x zero_area_box: A box without area is dropped\.\n"
        r"      \S+/all\.json: object \d+ .*quarantine/d\.jsonl lists all.*allowed: max_quarantined: 1\.00%"
    )
    with pytest.raises(DataError, match=words) as told:
        run(tmp_path / "raw", split={"val": 0.1})
    assert str(told.value).count("all.json: object") == 3
    assert len((tmp_path / "data/quarantine/d.jsonl").read_text().splitlines()) == 5
    run(tmp_path / "raw", split={"val": 0.1}, max_quarantined=1.0)


def test_a_split_of_missing_pictures_is_told_in_words(tmp_path: Path) -> None:
    write(tmp_path / "raw", 6, absent=6)
    with pytest.raises(DataError, match=r"(?s)no usable sample:.*5 x missing_image: .*img/\d\d\.png: record \d"):
        run(tmp_path / "raw", split={"val": 0.1})
