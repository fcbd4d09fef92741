"""Fixtures that start Ray: shared by all tests of a file. Left running for the others, a cluster takes processors."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from pipeline.cluster.train import run_training
from pipeline.settings.sections import ClusterConfig
from pipeline.system.project import Project
from tests.integration.cluster import TRAIN, Cluster, training


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """A Ray cluster of two nodes of one CPU each."""
    with ExitStack() as stack:
        yield Cluster(stack, num_nodes=2, dashboard=True).address


@pytest.fixture(scope="module")
def unbroken(address: str, root: Path, tiny_project: Project, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """State folder of a training of two workers that nothing happened to. Each node has one CPU and each worker takes
    one, so they can only run on two nodes."""
    state = tmp_path_factory.mktemp("unbroken") / "state"
    config = ClusterConfig(address=address, num_workers=2)
    run_training(training(tiny_project, state, **TRAIN), config, root, load_every_s=0.5)
    return state
