"""A PostgreSQL cluster for each of the test files, and a database in it for each test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from milkrun.rollout.migrations.database import Address

from .cluster import Cluster, bottles


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    made = Cluster()
    yield made
    made.stop()


@pytest.fixture
def url(cluster) -> str:
    """A database with bottles in it."""
    url = cluster.database()
    bottles(url)
    return url


@pytest.fixture
def address(url) -> Address:
    return Address(url)
