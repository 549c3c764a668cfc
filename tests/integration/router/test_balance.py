"""How a version's requests are shared among its instances, on a real HAProxy."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import AsyncExitStack

import pytest
from alone import Alone
from echo import Client, Echo
from ports import free_port

from milkrun.model import SHARE_SLOTS, VersionName
from milkrun.router.desired import RoutingState
from milkrun.router.diff import diff
from milkrun.settings.service import TrafficSettings

V1, V2 = VersionName("0.0.1"), VersionName("0.0.2")


class Place:
    """A router before instances that come and go."""

    def __init__(self, folder, traffic: TrafficSettings, stack: AsyncExitStack) -> None:
        self.listen = ("127.0.0.1", free_port())
        stats = ("127.0.0.1", free_port())
        self.plane = Alone(folder, "goat", listen=self.listen, stats=stats, traffic=traffic)
        self._stack = stack
        self.state = RoutingState()

    async def echo(self, name: str) -> Echo:
        app = Echo(name)
        await app.start()
        self._stack.push_async_callback(app.stop)
        return app

    async def serve(self, shares: dict[VersionName, int] | None = None, **weights: tuple[Echo, int]) -> None:
        """The first version has these instances with these weights; names with `w` are the second's."""
        versions = {V1: {}, V2: {}}
        for name, (app, weight) in weights.items():
            versions[V2 if name.startswith("w") else V1][app.name] = app.server(weight=weight)
        wanted = RoutingState(
            shares=shares or {V1: SHARE_SLOTS},
            versions={version: servers for version, servers in versions.items() if servers},
        )
        for _ in range(4):
            await self.plane.apply(diff(await self.plane.observe(), wanted), wanted)
        assert diff(await self.plane.observe(), wanted) == []
        self.state = wanted

    async def restart(self) -> None:
        """HAProxy starts from its files: what it has then has its part at once."""
        await self.plane.stop()
        await self.plane.start(self.state)

    async def count(self, requests: int) -> Counter[str]:
        """Who answered so many requests, one after the other."""
        async with Client(self.listen) as client:
            return Counter([(await client.ask()).name for _ in range(requests)])

    async def at_once(self, requests: int, apps: list[Echo]) -> Counter[str]:
        """Who was given so many requests, while those whose gate is shut answer none of them."""
        before = {app.name: app.requests for app in apps}

        async def one() -> None:
            async with Client(self.listen) as client:
                await client.ask()

        async with asyncio.TaskGroup() as tasks:
            for sent in range(1, requests + 1):
                tasks.create_task(one())
                async with asyncio.timeout(20):
                    while sum(app.requests - before[app.name] for app in apps) < sent:
                        await asyncio.sleep(0)
            found = Counter({app.name: app.requests - before[app.name] for app in apps})
            for app in apps:
                app.gate.set()
        return found


@pytest.fixture
async def router(tmp_path):
    async with AsyncExitStack() as stack:

        async def make(**traffic) -> Place:
            found = Place(tmp_path, TrafficSettings(**traffic), stack)
            stack.push_async_callback(found.plane.stop)
            await found.plane.start(RoutingState())
            return found

        yield make


async def test_in_turn(router):
    place = await router()
    apps = {name: (await place.echo(name), 1) for name in ("a", "b", "c")}
    await place.serve(**apps)
    assert await place.count(30) == {"a": 10, "b": 10, "c": 10}


async def test_in_turn_also_to_one_that_does_not_answer(router):
    """The control for the two tests below."""
    place = await router()
    apps = [await place.echo(name) for name in ("a", "b", "c")]
    await place.serve(**{app.name: (app, 1) for app in apps})
    apps[0].gate.clear()
    assert (await place.at_once(90, apps))["a"] == 30


async def test_to_the_one_with_the_fewest_requests(router):
    place = await router(balance="least-connections")
    apps = [await place.echo(name) for name in ("a", "b", "c")]
    await place.serve(**{app.name: (app, 1) for app in apps})
    apps[0].gate.clear()
    found = await place.at_once(90, apps)
    assert 1 <= found["a"] <= 3


async def test_to_the_better_of_two(router):
    """The busy one gets only what draws it twice: less than its turn, more than nothing."""
    place = await router(balance="two-choices")
    apps = [await place.echo(name) for name in ("a", "b", "c")]
    await place.serve(**{app.name: (app, 1) for app in apps})
    apps[0].gate.clear()
    found = await place.at_once(150, apps)
    assert 1 <= found["a"] < 40


async def test_instances_count_by_their_weight_within_their_version(router):
    place = await router()
    apps = {name: await place.echo(name) for name in ("a", "b", "w1", "w2")}
    shares = {V1: 5_000, V2: 5_000}
    await place.serve(shares, a=(apps["a"], 1), b=(apps["b"], 3), w1=(apps["w1"], 200), w2=(apps["w2"], 50))
    found = await place.count(800)
    ones, twos = found["a"] + found["b"], found["w1"] + found["w2"]
    assert 4 * found["a"] == pytest.approx(ones, abs=4)
    assert 5 * found["w2"] == pytest.approx(twos, abs=5 * 2)
    assert 300 < ones < 500  # the version's share: 400, and 7 standard deviations

    await place.serve(shares, a=(apps["a"], 4), b=(apps["b"], 1), w1=(apps["w1"], 200), w2=(apps["w2"], 50))
    found = await place.count(400)
    assert 5 * found["b"] == pytest.approx(found["a"] + found["b"], abs=5 * 2)
    assert place.plane.reloads == 0


@pytest.mark.parametrize("balance", ["least-connections", "two-choices"])
async def test_weights_count_however_it_is_balanced(router, balance):
    """Nobody answers, so each request is held by whom it was given to."""
    place = await router(balance=balance)
    light, heavy = await place.echo("light"), await place.echo("heavy")
    await place.serve(light=(light, 10), heavy=(heavy, 90))
    light.gate.clear()
    heavy.gate.clear()
    found = await place.at_once(100, [light, heavy])
    assert found["light"] == pytest.approx(10, abs=2 if balance == "least-connections" else 7)


async def test_an_instance_that_comes_starts_slowly(router):
    place = await router(slow_start_s=3600.0)
    apps = {name: (await place.echo(name), 1) for name in ("a", "b")}
    await place.serve(**apps)
    await place.restart()
    await place.serve(**apps, c=(await place.echo("c"), 1))
    assert (await place.count(60))["c"] <= 5


async def test_without_it_it_has_its_part_at_once(router):
    place = await router()
    apps = {name: (await place.echo(name), 1) for name in ("a", "b")}
    await place.serve(**apps)
    await place.serve(**apps, c=(await place.echo("c"), 1))
    assert (await place.count(60))["c"] >= 19


async def test_a_version_that_comes_whole_is_slow_in_no_share(router):
    """Its instances are all new, so each has its part of what the version gets, which is exact all the same."""
    place = await router(slow_start_s=3600.0)
    apps = {name: (await place.echo(name), 1) for name in ("a", "w1", "w2")}
    await place.serve({V1: 5_000, V2: 5_000}, **apps)
    found = await place.count(400)
    assert found["w1"] == pytest.approx(found["w2"], abs=2)
    assert 140 < found["a"] < 260


async def test_in_the_end_it_has_its_part(router):
    place = await router(slow_start_s=2.0)
    apps = {name: (await place.echo(name), 1) for name in ("a", "b")}
    await place.serve(**apps)
    await place.restart()
    await place.serve(**apps, c=(await place.echo("c"), 1))
    async with asyncio.timeout(60):
        while (await place.count(30))["c"] < 10:
            pass


async def test_one_that_comes_back_starts_slowly_too(router):
    place = await router(slow_start_s=3600.0)
    a, b = await place.echo("a"), await place.echo("b")
    await place.serve(a=(a, 1), b=(b, 1))
    await place.restart()
    assert await place.count(20) == {"a": 10, "b": 10}

    await b.stop()
    assert set(await place.count(10)) == {"a"}
    await b.start()
    async with asyncio.timeout(20):
        while not (await place.plane.observe()).versions[V1]["b"].up:
            await asyncio.sleep(0.01)

    assert (await place.count(40))["b"] <= 5
