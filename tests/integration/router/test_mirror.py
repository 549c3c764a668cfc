"""A version gets copies of GETs on a real HAProxy, and no user notices."""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import Callable
from contextlib import AsyncExitStack

import pytest
from alone import Alone
from echo import Client, Echo
from haproxies import on_each_release
from ports import free_port

from milkrun.model import SHARE_SLOTS, VersionName
from milkrun.router.desired import Mode, RoutingState
from milkrun.router.diff import diff
from milkrun.router.haproxy.mirror import COPIES_AT_MOST
from milkrun.router.instance_traffic import InstanceLedger
from milkrun.router.traffic import Ledger
from milkrun.settings.service import TrafficSettings

WEBSOCKET = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="
V1, V2 = VersionName("0.0.1"), VersionName("0.0.2")


class Place:
    """A router before `0.0.1`, which has all traffic, and `0.0.2`, which gets copies."""

    def __init__(self, folder, traffic: TrafficSettings) -> None:
        self.listen = ("127.0.0.1", free_port())
        stats = ("127.0.0.1", free_port())
        self.plane = Alone(folder, "goat", listen=self.listen, stats=stats, traffic=traffic)
        self.user, self.copy = Echo("user"), Echo("copy")

    def state(self, copy: Mode = Mode.SERVE) -> RoutingState:
        return RoutingState(
            shares={V1: SHARE_SLOTS},
            versions={V1: {"user": self.user.server()}, V2: {"copy": self.copy.server(copy)}},
        )

    async def follow(self, state: RoutingState) -> None:
        for _ in range(4):
            await self.plane.apply(diff(await self.plane.observe(), state), state)

    async def names(self, count: int) -> Counter[str]:
        async with Client(self.listen) as client:
            return Counter([(await client.ask()).name for _ in range(count)])

    async def raw(self, request: str) -> str:
        reader, writer = await asyncio.open_connection(*self.listen)
        writer.write(request.replace("\n", "\r\n").encode())
        line = await asyncio.wait_for(reader.readline(), 20)
        writer.close()
        return line.decode().split()[1]

    @staticmethod
    async def eventually(fact: Callable[[], bool]) -> None:
        async with asyncio.timeout(20):
            while not fact():
                await asyncio.sleep(0.01)


@pytest.fixture
async def router(tmp_path):
    async with AsyncExitStack() as stack:

        async def make(**traffic) -> Place:
            found = Place(tmp_path, TrafficSettings(mirror=V2, **traffic))
            for app in (found.user, found.copy):
                await app.start()
                stack.push_async_callback(app.stop)
            stack.push_async_callback(found.plane.stop)
            await found.plane.start(RoutingState())
            await found.follow(found.state())
            return found

        yield make


async def test_each_get_is_copied_and_answered_once(router):
    place = await router()
    assert await place.names(50) == {"user": 50}
    await place.eventually(lambda: place.copy.requests == 50)
    assert place.user.requests == 50


async def test_the_copy_says_what_the_request_said_and_that_it_is_a_copy(router):
    place = await router(path="/v1")
    async with Client(place.listen) as client:
        answer = await client.ask("/kids?name=Homer%20S", {"X-A": "b", "Cookie": "c=d; e=f"})
    await place.eventually(lambda: place.copy.requests == 1)
    assert place.copy.lines == ["GET /v1/kids?name=Homer%20S HTTP/1.1"] == place.user.lines
    seen = dict(place.copy.heads[0])
    assert {name: seen[name] for name in ("x-a", "cookie", "host")} == {
        "x-a": "b",
        "cookie": "c=d; e=f",
        "host": dict(answer.seen)["host"],
    }
    assert seen["x-milkrun-mirror"] == "1"
    assert answer.saw("x-milkrun-mirror") == []


@pytest.mark.parametrize(
    "request_",
    [
        "POST / HTTP/1.1\nHost: a\nContent-Length: 2\n\nhi",
        "HEAD / HTTP/1.1\nHost: a\n\n",
        "DELETE / HTTP/1.1\nHost: a\n\n",
        f"GET / HTTP/1.1\nHost: a\nConnection: Upgrade\nUpgrade: websocket\n{WEBSOCKET}\n\n",
    ],
)
async def test_what_does_something_is_not_copied(router, request_):
    place = await router()
    assert await place.raw(request_) == "200"
    await place.names(1)  # this one is
    await place.eventually(lambda: place.copy.requests > 0)
    assert [line.split()[0] for line in place.copy.lines] == ["GET"]
    assert place.user.requests == 2


async def test_some_of_them(router):
    place = await router(mirror_percent=20.0)
    await place.names(500)
    await place.eventually(lambda: place.copy.requests > 60)
    assert place.copy.requests < 145  # 100, and 5 standard deviations


async def test_a_copy_that_hangs_costs_no_user_anything(router):
    """More of them than may be under way: the rest is not made."""
    place = await router()
    place.copy.gate.clear()
    most = COPIES_AT_MOST * len(os.sched_getaffinity(0))  # HAProxy has a thread a processor
    async with asyncio.TaskGroup() as tasks:
        for _ in range(10):
            tasks.create_task(place.names(most // 5))
    await place.eventually(lambda: place.copy.requests >= COPIES_AT_MOST)
    assert place.copy.requests <= most
    assert place.user.requests == 2 * most

    async def under_way() -> int:
        return sum(seen.in_flight for seen in (await place.plane.observe()).versions[V2].values())

    assert await under_way() > 0
    async with asyncio.timeout(20):  # nobody waits for them for ever
        while await under_way():
            await asyncio.sleep(0.05)
    assert place.copy.requests <= most  # nor is one made again


@on_each_release
async def test_copies_are_no_requests_of_the_version_nor_of_its_instance(router):
    """A rollout judges by those: what nobody waits for, and nobody saw fail, is none of them."""
    place = await router()
    ledger, each = (
        Ledger().read(await place.plane.traffic()),
        InstanceLedger().read(await place.plane.traffic()),
    )
    await place.names(20)
    await place.eventually(lambda: place.copy.requests == 20)
    await place.follow(RoutingState(shares={V1: 5000, V2: 5000}, versions=place.state().versions))
    found = await place.names(40)
    await place.eventually(lambda: place.copy.requests == 60 + found["copy"])

    async def counted() -> tuple[Ledger, InstanceLedger]:
        now = await place.plane.traffic()
        return ledger.read(now), each.read(now)

    async with asyncio.timeout(20):  # the client hears of the end before HAProxy counts it
        while sum(one.requests for one in (await counted())[0].total.values()) < 60:
            await asyncio.sleep(0.01)
    ledger, each = await counted()
    assert {name: one.requests for name, one in ledger.total.items()} == {
        V1: 20 + found["user"],
        V2: found["copy"],
    }
    assert {name: one.requests for name, one in each.total.items()} == {
        "user": 20 + found["user"],
        "copy": found["copy"],
    }
    assert sum(ledger.total[V2].latency.values()) == found["copy"]


@pytest.mark.parametrize("how", ["dead", "in maintenance", "gone"])
async def test_copies_for_nobody_go_nowhere(router, how):
    """Not to the version that serves the users: it would have all its load twice."""
    place = await router()
    if how == "dead":
        await place.copy.stop()
    elif how == "in maintenance":
        await place.follow(place.state(copy=Mode.DRAIN))
    else:
        await place.follow(
            RoutingState(shares={V1: SHARE_SLOTS}, versions={V1: {"user": place.user.server()}})
        )
    assert await place.names(100) == {"user": 100}
    await place.eventually(lambda: place.user.requests >= 100)
    assert await place.names(100) == {"user": 100}
    assert place.user.requests == 200
    if how == "dead":
        await place.copy.start()


async def test_a_large_answer_is_not_held(router):
    """The body of a copy's answer is dropped at the socket."""
    place = await router()
    place.copy.body = b"x" * (4 << 20)
    assert await place.names(60) == {"user": 60}
    await place.eventually(lambda: place.copy.requests == 60)
    assert await place.names(1) == {"user": 1}


async def test_after_a_restart_and_a_reload_too(router, tmp_path):
    place = await router()
    await place.plane.stop()
    await place.plane.start(place.state())
    await place.names(10)
    await place.eventually(lambda: place.copy.requests == 10)
    many = {VersionName(f"1.0.{number}"): {f"e{number}": place.user.server()} for number in range(9)}
    many = {
        version: {name: type(server)(id=name, address="127.0.0.1", port=server.port)}
        for version, servers in many.items()
        for name, server in servers.items()
    }
    state = place.state()
    await place.follow(RoutingState(shares=state.shares, versions=state.versions | many))
    assert place.plane.reloads == 1
    await place.names(10)
    await place.eventually(lambda: place.copy.requests == 20)
