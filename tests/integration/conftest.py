"""Trainings on Ray, shared by all tests of a file."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.cluster.train import run_training
from pipeline.settings.sections import ClusterConfig
from pipeline.system.project import Project
from tests.integration.cluster import TRAIN, training


@pytest.fixture(scope="module")
def unbroken(address: str, root: Path, tiny_project: Project, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """State folder of a training of two workers that nothing happened to. Each node has one CPU and each worker takes
    one, so they can only run on two nodes."""
    state = tmp_path_factory.mktemp("unbroken") / "state"
    config = ClusterConfig(address=address, num_workers=2)
    run_training(training(tiny_project, state, **TRAIN), config, root, load_every_s=0.5)
    return state
