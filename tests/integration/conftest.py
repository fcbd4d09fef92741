"""Fixtures that start Ray: shared by all tests of a session, since each start costs."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.integration.cluster import Cluster


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """Two nodes of one CPU each."""
    with ExitStack() as stack:
        started = Cluster(stack)
        started.add_node()
        yield started
    shutil.rmtree(started.folder, ignore_errors=True)


@pytest.fixture(scope="session")
def address(cluster: Cluster) -> str:
    return cluster.address
