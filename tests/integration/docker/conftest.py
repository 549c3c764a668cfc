from __future__ import annotations

import functools
from collections.abc import Iterator

import pytest
from integration.agent.conftest import Farm, _farming
from integration.docker.engine import Docker

from milkrun.settings.service import HealthSettings, StopSettings
from milkrun.settings.unit import DockerSettings


@pytest.fixture(scope="session")
def _engine() -> Iterator[Docker]:
    """One engine for all tests: it takes seconds to start."""
    made = Docker()
    try:
        made.start()
        for version in ("0.0.1", "0.0.2"):
            made.make(f"goat:{version}")
        yield made
    finally:
        made.end()


@pytest.fixture
def docker(_engine: Docker, monkeypatch: pytest.MonkeyPatch) -> Iterator[Docker]:
    """The engine, without any container; agents find it."""
    monkeypatch.setenv("DOCKER_HOST", _engine.host)
    yield _engine
    if _engine.running:
        _engine.clear()
    else:
        _engine.start()
        _engine.clear()


class Barn(Farm):
    """A farm whose goats are containers."""

    async def goats(
        self, replicas: dict[str, int], *, mood: str = "", docker: DockerSettings | None = None, **settings
    ) -> None:
        defaults = {
            "command": [],
            "docker": docker or DockerSettings(image="goat:{version}", network="host"),
            "env": {"MOOD": mood} | settings.pop("env", {}),
            "health": HealthSettings(interval_s=0.05, timeout_s=2.0, rise=2, fall=2),
            "stop": StopSettings(drain_limit_s=10, stop_limit_s=5),
        }
        await self.publish(wish=replicas, **(defaults | settings))


@pytest.fixture
def farming(tmp_path, docker):
    """`async with farming() as farm`, as of the agent's own tests."""
    return functools.partial(_farming, tmp_path, Barn)
