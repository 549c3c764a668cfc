"""The guests of a host with an engine that says what a test wants, and a real registry."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from milkrun.agent.guests.guest import House
from milkrun.agent.guests.hall import Hall
from milkrun.agent.guests.known import Known
from milkrun.agent.probes import Prober
from milkrun.agent.units.docker import EngineAway
from milkrun.agent.units.docker_answers import Actor, Config, Container, Happened, HostConfig, State
from milkrun.consul import Registry, catalog
from milkrun.model import Health
from milkrun.testing.registry import embedded_registry

STARTED_NS = 1795205072_000000000
STARTED = "2026-11-20T20:04:32Z"


class FakeEngine:
    """Containers that run, and events that come; away when it is told to be."""

    def __init__(self) -> None:
        self.running: dict[str, Container] = {}
        self.coming: asyncio.Queue[Happened | None] = asyncio.Queue()
        self.away = False
        self.connections = 0

    def runs(self, container: str, port: int) -> None:
        labels = {"milkrun.service": "goat", "milkrun.version": "1", "milkrun.port": str(port)}
        self.running[container] = Container(
            id=container,
            name=f"/{container}",
            state=State(running=True, started_at=STARTED),
            config=Config(labels=labels),
            host_config=HostConfig(network_mode="host"),
        )

    def happens(self, action: str, container: str, *, signal: str = "", after_ns: int = 1) -> None:
        actor = Actor(id=container, attributes={"signal": signal} if signal else {})
        self.coming.put_nowait(Happened(action=action, actor=actor, time_ns=STARTED_NS + after_ns))

    async def listed(self) -> list[str]:
        if self.away:
            raise EngineAway("the engine is away")
        return list(self.running)

    async def inspect(self, container: str) -> Container | None:
        return self.running.get(container)

    async def events(self, since: str):
        self.connections += 1
        while (event := await self.coming.get()) is not None:
            yield event


@contextlib.asynccontextmanager
async def visited(tmp_path):
    """A hall, its engine, and how the registry sees its guests once something is so."""
    engine, news = FakeEngine(), asyncio.Event()
    async with embedded_registry(tmp_path) as address, Registry(address) as registry, Prober() as prober:
        changed = asyncio.Event()
        house = House(host="meadow", registry=registry, prober=prober, router_news=asyncio.Event)
        hall = Hall(engine, house, Known(tmp_path), changed.set)

        async def seen(so):
            async with asyncio.timeout(20):
                while True:
                    entries, _ = await registry.health("goat")
                    instances = catalog.instances(entries)
                    if so(instances, hall):
                        return instances
                    await asyncio.sleep(0.01)

        async with asyncio.TaskGroup() as tasks:
            running = tasks.create_task(hall.run(lambda: "127.0.0.1", lambda: news))
            yield engine, seen
            running.cancel()


def passing(count: int):
    return lambda found, _: len(found) == count and all(one.health is Health.PASSING for one in found)


async def test_a_signal_from_before_its_start_means_nothing(tmp_path):
    async with visited(tmp_path) as (engine, seen):
        engine.runs("goat", 8101)
        await seen(passing(1))
        engine.happens("kill", "goat", signal="15", after_ns=-1)
        engine.runs("next", 8102)
        engine.happens("start", "next")
        await seen(passing(2))
        engine.happens("kill", "goat", signal="15")
        found = await seen(lambda found, _: any(one.health is Health.MAINTENANCE for one in found))
        assert [one.port for one in found if one.health is Health.MAINTENANCE] == [8101]


@pytest.mark.parametrize("action", ["die", "destroy", "pause"])
async def test_whatever_happens_is_a_reason_to_look(tmp_path, action):
    async with visited(tmp_path) as (engine, seen):
        engine.runs("goat", 8101)
        await seen(passing(1))
        del engine.running["goat"]
        engine.happens(action, "goat")
        await seen(lambda found, _: found == [])


async def test_who_comes_in_anothers_place_waits_until_that_one_is_out(tmp_path):
    async with visited(tmp_path) as (engine, seen):
        engine.runs("goat", 8101)
        await seen(passing(1))
        engine.runs("again", 8101)
        engine.happens("start", "again")
        engine.runs("marker", 8102)
        engine.happens("start", "marker")
        await seen(passing(2))
        await seen(lambda _, hall: _containers(hall) == ["goat", "marker"])
        del engine.running["goat"]
        engine.happens("die", "goat")
        await seen(lambda _, hall: _containers(hall) == ["again", "marker"])
        await seen(passing(2))


async def test_while_the_engine_is_away_they_stay_and_then_are_looked_at(tmp_path):
    async with visited(tmp_path) as (engine, seen):
        engine.runs("goat", 8101)
        engine.runs("gone", 8102)
        await seen(passing(2))
        engine.away = True
        engine.coming.put_nowait(None)
        await seen(lambda _, hall: hall.alarms != [])
        await seen(passing(2))
        del engine.running["gone"]
        engine.runs("next", 8103)
        engine.away = False
        found = await seen(lambda found, hall: {one.port for one in found} == {8101, 8103})
        assert len(found) == 2
        await seen(lambda _, hall: hall.alarms == [] and engine.connections == 2)


async def test_a_former_guest_that_is_gone_is_taken_out(tmp_path):
    async with visited(tmp_path) as (engine, seen):
        engine.runs("goat", 8101)
        engine.runs("next", 8102)
        await seen(passing(2))
    known = Known(tmp_path)
    assert list(known) == ["goat-1-meadow-8101", "goat-1-meadow-8102"]
    async with visited(tmp_path) as (engine, seen):
        engine.runs("next", 8102)
        found = await seen(lambda found, _: len(found) == 1)
        assert found[0].port == 8102
        await seen(passing(1))


def _containers(hall: Hall) -> list[str]:
    return sorted(guest.container for guest in hall._guests.values())
