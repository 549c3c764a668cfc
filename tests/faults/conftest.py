"""Each fault row with many seeds: one as a part of the suite, twenty with MILKRUN_SOAK=1, or MILKRUN_SEEDS of them."""

from __future__ import annotations

import os
import random
from collections.abc import AsyncIterator

import pytest

from milkrun.testing.registry import embedded_registry

from .herd import Herd, a_herd

SOAK = os.environ.get("MILKRUN_SOAK") == "1"
PLANES = ["haproxy", pytest.param("envoy", marks=pytest.mark.needs("envoy"))]
PLANES_OF_LONG = PLANES if SOAK else PLANES[:1]

SEEDS = int(os.environ.get("MILKRUN_SEEDS", "20" if SOAK else "1"))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "chance" in metafunc.fixturenames:
        metafunc.parametrize("seed", range(SEEDS))


@pytest.fixture
def plane() -> str:
    """Which program carries the traffic, where a test does not say."""
    return "haproxy"


@pytest.fixture
def chance(seed: int) -> random.Random:
    """What this run's seed decides."""
    return random.Random(seed)


@pytest.fixture
async def herd(tmp_path, plane) -> AsyncIterator[Herd]:
    """Goats, a registry behind a proxy that can lie, and settings for one router before them."""
    async with (
        embedded_registry(tmp_path / "registry") as address,
        a_herd(tmp_path, address, data_plane=plane) as found,
    ):
        yield found
