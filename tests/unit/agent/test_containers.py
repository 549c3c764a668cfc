"""What an agent takes over of what an earlier one left at the engine."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from milkrun.agent.units import recipe
from milkrun.agent.units.containers import Containers
from milkrun.agent.units.docker import EngineAway, EngineRefused
from milkrun.agent.units.docker_answers import Config, Container, State
from milkrun.agent.units.program import Place
from milkrun.agent.units.running import Order, Watcher
from milkrun.errors import Conflict
from milkrun.settings.service import ServiceSettings
from milkrun.settings.unit import DockerSettings

NAME = "goat-1-meadow-8101"


class FakeEngine:
    """Containers by name, each its own id."""

    def __init__(self) -> None:
        self.there: dict[str, Container] = {}
        self.away = self.refuses = False

    def has(self, name: str, *, state: str = "/state", running: bool = True) -> None:
        config = Config(labels={recipe.STATE: state, recipe.INSTANCE: name})
        self.there[name] = Container(
            id=name, name=f"/{name}", state=State(running=running, pid=7), config=config
        )

    async def inspect(self, name: str) -> Container | None:
        if self.away:
            raise EngineAway("the Docker engine does not answer")
        return self.there.get(name)

    async def listed(self, labels, *, stopped: bool) -> list[str]:
        wanted = dict(label.split("=") for label in labels)
        return [name for name, one in self.there.items() if wanted.items() <= one.labels.items()]

    async def create(self, name: str, _: dict) -> str:
        self.has(name, running=False)
        return name

    async def start(self, name: str) -> None:
        if self.refuses:
            raise EngineRefused("the Docker engine says: port is already allocated", status=500)
        self.has(name)

    async def remove(self, name: str) -> None:
        del self.there[name]

    async def ended(self, _: str) -> bool:
        await asyncio.Event().wait()

    async def log(self, _: str, since: str):
        await asyncio.Event().wait()
        yield b""


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine()


@pytest.fixture
def containers(engine: FakeEngine, tmp_path: Path) -> Containers:
    return Containers(engine, tmp_path, Path("/state"), "http://127.0.0.1:8500")


async def does(doing, tmp_path: Path) -> str:
    """The id of what runs then; empty when nothing does."""
    place = Place(service="goat", version="1", instance=NAME, address="127.0.0.1", port=8101)
    order = Order(
        settings=ServiceSettings(docker=DockerSettings(image="goat")), place=place, log=tmp_path / "log"
    )
    async with asyncio.TaskGroup() as tasks:
        watcher = Watcher(on_exit=print, on_news=lambda: None, tasks=tasks)
        found = await doing(order, watcher)
        if found:
            found.leave()
        return found.id if found else ""


@pytest.mark.parametrize(
    ("there", "then"),
    [
        ({}, (NAME, [NAME])),
        ({"running": False}, ("", [])),  # made, and its agent was killed before it could start it
        ({"state": "/other"}, ("", [NAME])),
        ({"state": "/other", "running": False}, ("", [NAME])),
    ],
)
async def test_only_what_runs_and_is_its_own_is_adopted(engine, containers, tmp_path, there, then):
    engine.has(NAME, **there)
    found = await does(lambda order, watcher: containers.adopt(order, None, watcher), tmp_path)
    assert (found, list(engine.there)) == then


async def test_what_is_not_there_is_not_adopted(containers, tmp_path):
    assert await does(lambda order, watcher: containers.adopt(order, None, watcher), tmp_path) == ""


async def test_without_the_engine_it_is_taken_to_run(engine, containers, tmp_path):
    engine.away = True
    assert await does(lambda order, watcher: containers.adopt(order, None, watcher), tmp_path) == NAME


async def test_a_start_takes_the_name_from_its_own_and_from_nobody_else(engine, containers, tmp_path):
    engine.has(NAME, running=False)
    assert await does(containers.start, tmp_path) == NAME
    assert engine.there[NAME].state.running
    engine.has(NAME, state="/other")
    with pytest.raises(ExceptionGroup) as refused:
        await does(containers.start, tmp_path)
    assert isinstance(refused.value.exceptions[0], Conflict)
    assert list(engine.there) == [NAME]


async def test_what_could_not_be_started_is_not_left_there(engine, containers, tmp_path):
    engine.refuses = True
    with pytest.raises(ExceptionGroup):
        await does(containers.start, tmp_path)
    assert engine.there == {}


async def test_strays_are_its_own_containers_of_no_unit(engine, containers):
    for name, fields in {
        NAME: {},
        "lost": {},
        "dead": {"running": False},
        "other": {"state": "/other"},
    }.items():
        engine.has(name, **fields)
    assert [one.id for one in await containers.strays(lambda: {NAME})] == ["lost", "dead"]
    engine.away = True
    assert await containers.strays(set) == []
