"""A data set whose raw files lie in a real S3 server, under the real DVC."""

from __future__ import annotations

import shutil
from pathlib import Path

from tests import dvc_project
from tests.s3_server import Proxy

PARAMS = {
    "datasets": {"flags": {"origin": "local", "input": "s3://shop/flags", "sources": {"image_folder": {}}}},
    "runs": {},
    "train": {},
    "loader": {},
    "shards": {"samples": 8},
    "cluster": {"engine": "local"},
    "tracking": {},
}


def test_dvc_runs_again_what_changed_in_the_store(root: Path, tmp_path: Path, s3: Proxy, flags_project) -> None:
    there = tmp_path / "s3/shop/flags"
    shutil.copytree(flags_project.raw_root("flags"), there)
    folder = dvc_project.make(root, tmp_path / "project", PARAMS)
    assert dvc_project.stages_run(folder, "shard@flags") == ["check", "fetch@flags", "shard@flags"]
    pictures = sum(path.suffix == ".png" for path in there.rglob("*"))
    assert sum(line.endswith(".png") for line in s3.asked if line.startswith("GET")) == pictures, "each is read once"
    assert dvc_project.stages_run(folder, "shard@flags") == ["check"]
    first = next(there.rglob("*.png"))
    first.write_bytes(first.read_bytes() + b"\0")
    assert dvc_project.stages_run(folder, "fetch@flags") == ["check", "fetch@flags"]
