"""A dairy farm of its own for each test: real processes, free ports, nothing left behind."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from farm import Farm


@pytest.fixture
def farm(tmp_path: Path) -> Iterator[Farm]:
    made = Farm(tmp_path / "farm")
    yield made
    made.end()


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Farm]:
    """One farm that is up, for all tests of a file that do no harm to it."""
    made = Farm(tmp_path_factory.mktemp("running") / "farm")
    try:
        made.up()
        yield made
    finally:
        made.end()
