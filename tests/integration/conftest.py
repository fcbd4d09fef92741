"""Fixtures that start Ray: shared by all tests of a session, since each start costs."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.integration.cluster import Cluster

HERE = Path(__file__).parent


@pytest.hookimpl(tryfirst=True)  # before xdist reads the marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """All of them one after another in one process, beside the unit tests in another: they share a cluster, and two
    at once would not fit on two cores."""
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker(pytest.mark.xdist_group("integration"))


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
