"""Where things lie."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.system.project import Project


@pytest.mark.parametrize("folder", ["", ".dvc/tmp/exps/tmpabc", ".dvc/tmp/exps/standalone/tmpabc"])
def test_what_outlives_an_experiment_lies_in_the_project_itself(folder):
    project = Project(Path("/home/a/sightline") / folder)
    assert project.store_root == Path("/home/a/sightline")
    assert project.state("seg", "f" * 64) == Path("/home/a/sightline/state/seg-ffffffffffffffff")
    assert project.store_locks == Path("/home/a/sightline/state/locks")
    assert project.shards("voc") == project.root / "data/shards/voc", "outputs are the experiment's own"
