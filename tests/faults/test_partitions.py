"""F9, F10, F12, F28: hosts that cannot reach one another, or barely; in network namespaces."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import random
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from milkrun.consul import Address, Registry, keys
from milkrun.consul import wire as nouns
from milkrun.errors import MilkrunError
from milkrun.testing.registry import embedded_registry

from .herd import Herd, a_herd
from .relay import Relay
from .wire import Wire, on_a_host, ports_from

pytestmark = pytest.mark.needs("netns")

CUTS = {
    "nothing arrives in either direction": lambda wire: wire.drop(there=1.0, back=1.0),
    "nothing arrives there": lambda wire: wire.drop(there=1.0),
    "nothing comes back": lambda wire: wire.drop(back=1.0),
    "the way there is refused": lambda wire: wire.refuse(),
    "connections are reset": lambda wire: wire.reset(),
}


@contextlib.asynccontextmanager
async def far_registry(folder: Path, chance: random.Random) -> AsyncIterator[tuple[Herd, Wire, str]]:
    """A herd on this host, the registry's far address, and the wire to it. The test itself asks without the wire."""
    async with contextlib.AsyncExitStack() as stack:
        address = await stack.enter_async_context(embedded_registry(folder / "registry"))
        herd = await stack.enter_async_context(a_herd(folder, address))
        wire = Wire(chance)
        stack.callback(wire.close)
        relay = await stack.enter_async_context(Relay(address.url, wire.listener).running())
        yield herd, wire, relay.url


def test_f9_a_router_that_cannot_reach_the_registry(tmp_path, chance):
    """Each kind of cut: users notice nothing, no new commit is called served, and then it is followed."""

    async def body() -> None:
        async with far_registry(tmp_path, chance) as (herd, wire, url):
            herd.between.url = url
            await herd.three()
            async with herd.router(), herd.load():
                await herd.follows(1)
                for generation, cut in enumerate(chance.sample(list(CUTS.values()), len(CUTS)), 2):
                    wire.lost = 0
                    cut(wire)
                    await herd.weigh(generation, {"0.0.1": chance.randrange(1, 100), "0.0.2": 50})
                    await herd.until(lambda: wire.lost >= 3)
                    await herd.more(30)
                    assert (await herd.report()).generation < generation
                    wire.whole()
                    await herd.follows(generation)
            herd.proved()

    on_a_host(body)


def test_f10_an_agent_that_cannot_reach_the_registry(tmp_path, chance):
    """Its instances' signs of life run out: that is said, and users notice nothing."""

    async def body() -> None:
        async with far_registry(tmp_path, chance) as (herd, wire, url), Registry(Address(url=url)) as far:
            goats = await herd.three()
            for goat in goats.values():
                check = nouns.TtlCheck(check_id=f"service:{goat.name}", name="alive", ttl="1s")
                values = {"address": "127.0.0.1", "port": goat.port, "tags": [f"version={goat.version}"]}
                await far.register(nouns.Registration(id=goat.name, name="goat", check=check, **values))
            async with asyncio.TaskGroup() as tasks, herd.router():
                agent = tasks.create_task(_signs_of_life(far, goats))
                async with herd.load():
                    await herd.follows(1)
                    chance.choice(list(CUTS.values()))(wire)
                    await herd.reported(lambda report: report.alarms)
                    await herd.more(50)
                    wire.whole()
                    await herd.reported(lambda report: not report.alarms)
                    await herd.follows(1)
                agent.cancel()
            herd.proved()
            assert all(goat.asked for goat in goats.values())

    on_a_host(body)


async def _signs_of_life(registry: Registry, goats) -> None:
    """What an agent does for its instances: each is told to be alive, several times within its TTL."""
    while True:
        for name in goats:
            with contextlib.suppress(MilkrunError):
                await registry.report(f"service:{name}", "passing", "alive")
        await asyncio.sleep(0.2)


def test_f12_a_wire_that_loses_and_delays(tmp_path, chance):
    """Of 30 % lost packets and 200 ms each way users notice nothing; the router keeps its session and follows."""

    async def body() -> None:
        async with far_registry(tmp_path, chance) as (herd, wire, url):
            herd.between.url = url
            await herd.three()
            async with herd.router(), herd.load():
                report = await herd.follows(1)
                key = keys.router_report("goat", report.router)
                before = (await herd.registry.get(key)).session
                wire.drop(there=0.3, back=0.3)
                for generation in range(2, 6):
                    wire.delay(0.2 if generation % 2 else 0.0)
                    await herd.weigh(generation, {"0.0.1": chance.randrange(1, 100), "0.0.2": 50})
                    report = await herd.follows(generation)
                assert wire.lost
                assert (await herd.registry.get(key)).session == before
                wire.whole()
            herd.proved()
            assert (report.reloads, report.held, report.alarms) == (0, [], [])

    on_a_host(body)


def take_all_ports_towards(port: int, held: contextlib.ExitStack) -> None:
    """Connections are begun until there is no port for another one; whoever listens need not have accepted them."""
    while True:
        taken = held.enter_context(socket.socket())
        taken.setblocking(False)
        if (error := taken.connect_ex(("127.0.0.1", port))) != errno.EINPROGRESS:
            assert error == errno.EADDRNOTAVAIL
            return


def test_f28_no_port_is_left_for_an_instance(tmp_path, chance):
    """Somebody holds every outgoing port towards one instance: the others serve, and it is back when they are free."""

    async def body() -> None:
        async with embedded_registry(tmp_path / "registry") as address, a_herd(tmp_path, address) as herd:
            goats = await herd.three()
            async with herd.router(), herd.load(rate=50):
                await herd.follows(1)
                ports_from(61_000, 61_299)  # enough for the callers, who have them towards the router
                victim = goats[chance.choice("ab")]
                with contextlib.ExitStack() as held:
                    take_all_ports_towards(victim.port, held)
                    await herd.more(40)
                await herd.more(10, victim.name)
            herd.proved()

    on_a_host(body)
