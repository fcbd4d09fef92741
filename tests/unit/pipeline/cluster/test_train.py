"""What a training on several machines is told of its shards."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipeline.cluster.train import _tell_fetched_twice
from pipeline.shards.manifest import MANIFEST

URL = "s3://shop/a"


@pytest.mark.parametrize(
    ("store", "nodes", "machines", "is_told"),
    [(URL, 1, 2, True), (URL, 4, 3, True), (URL, 4, 2, False), (URL, 1, 1, False), (None, 1, 2, False)],
)
def test_who_fetches_the_same_shards_is_told_and_how_many_parts_would_do(
    tmp_path: Path, tiny_project, capsys, store, nodes, machines, is_told
):
    manifest = json.loads((tiny_project.shards("voc") / MANIFEST).read_text())
    (tmp_path / MANIFEST).write_text(json.dumps(manifest | ({"store": store} if store else {})))
    arguments = {"run": {"loader": {"canonical_nodes": nodes}}, "shards": str(tmp_path)}
    _tell_fetched_twice(arguments, num_machines=machines)
    said = capsys.readouterr().err
    assert (f"loader.canonical_nodes {nodes} is no multiple of {machines}; {machines} would do" in said) == is_told
    assert bool(said) == is_told
