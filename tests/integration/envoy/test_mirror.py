"""A version gets copies of GETs, no user notices, and they are none of its requests."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from contextlib import AsyncExitStack

import msgspec
import pytest
from echo import Client, Echo

from milkrun.model import SHARE_SLOTS, VersionName
from milkrun.router.desired import Mode, RoutingState
from milkrun.router.diff import diff
from milkrun.router.envoy.limits import COPIES_AT_MOST
from milkrun.settings.service import TrafficSettings

from .conftest import GOAT, converge

V1, V2 = VersionName("0.0.1"), VersionName("0.0.2")
WEBSOCKET = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="


class Place:
    """A router before `0.0.1`, which has all traffic, and `0.0.2`, which gets copies."""

    def __init__(self, stand) -> None:
        self.stand = stand
        self.user, self.copy = Echo("user"), Echo("copy")

    def state(self, copy: Mode = Mode.SERVE, *, share: int = 0) -> RoutingState:
        return RoutingState(
            shares={V1: SHARE_SLOTS - share} | ({V2: share} if share else {}),
            versions={V1: {"user": self.user.server()}, V2: {"copy": self.copy.server(copy)}},
        )

    async def follow(self, state: RoutingState) -> None:
        await converge(self.stand.envoys[-1], state)

    async def names(self, count: int) -> Counter[str]:
        async with Client(self.stand.front.listen) as client:
            return Counter([(await client.ask()).name for _ in range(count)])

    async def raw(self, request: str) -> str:
        reader, writer = await asyncio.open_connection(*self.stand.front.listen)
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
async def router(stand):
    async with AsyncExitStack() as stack:

        async def make(mode: Mode = Mode.SERVE, **traffic) -> Place:
            found = Place(stand)
            for app in (found.user, found.copy):
                await app.start()
                stack.push_async_callback(app.stop)
            services = {GOAT: TrafficSettings(mirror=V2, **traffic)}
            await stand.start(found.state(mode), msgspec.structs.replace(stand.front, services=services))
            return found

        yield make


async def test_each_get_is_copied_and_answered_once_and_no_copy_is_a_request(router):
    place = await router()
    assert await place.names(50) == {"user": 50}
    await place.eventually(lambda: place.copy.requests == 50)
    assert place.user.requests == 50
    counted = {
        each.version: each.figures.requests for each in await place.stand.envoys[-1].of(GOAT).traffic()
    }
    assert counted == {V1: 50, V2: 0}
    assert place.stand.envoys[-1].behind == ""
    assert diff(await place.stand.envoys[-1].of(GOAT).observe(), place.state()) == []


async def test_the_copy_says_what_the_request_said_and_that_it_is_a_copy(router):
    place = await router(path="/v1")
    async with Client(place.stand.front.listen) as client:
        answer = await client.ask("/kids?name=Homer%20S", {"X-A": "b", "Cookie": "c=d; e=f"})
    await place.eventually(lambda: place.copy.requests == 1)
    assert place.copy.lines == ["GET /v1/kids?name=Homer%20S HTTP/1.1"] == place.user.lines
    seen = dict(place.copy.heads[0])
    assert {name: seen[name] for name in ("x-a", "cookie", "host")} == {
        "x-a": "b",
        "cookie": "c=d; e=f",
        "host": "goat",
    }
    assert seen["x-milkrun-mirror"] == "1"
    assert seen["x-forwarded-for"].startswith("127.0.0.1,")  # Envoy adds itself, as one more proxy
    assert answer.saw("x-milkrun-mirror") == []
    assert [name for name in seen if name.startswith("x-envoy")] == []


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
    await place.raw(request_)
    await place.names(1)  # this one is
    await place.eventually(lambda: place.copy.requests > 0)
    assert [line.split()[0] for line in place.copy.lines] == ["GET"]
    assert place.user.requests == 2


async def test_so_many_are_copied_as_was_said(router):
    place = await router(mirror_percent=10)
    await place.names(1000)
    # Five standard deviations: one run in 1.7 million is outside by chance.
    await place.eventually(lambda: abs(place.copy.requests - 100) < 5 * 90**0.5)


async def test_a_copy_that_is_not_answered_costs_no_user_anything_and_there_are_only_so_many(router):
    place = await router()
    place.copy.gate.clear()
    assert await place.names(2 * COPIES_AT_MOST + 50) == {"user": 2 * COPIES_AT_MOST + 50}
    assert place.copy.requests <= 2 * COPIES_AT_MOST  # two threads at most have these connections
    place.copy.gate.set()


async def test_a_version_that_is_gone_or_rests_gets_no_copy_and_nobody_else_does(router):
    place = await router(Mode.DRAIN)
    assert await place.names(20) == {"user": 20}
    assert (place.user.requests, place.copy.requests) == (20, 0)
    await place.follow(RoutingState(shares={V1: SHARE_SLOTS}, versions={V1: {"user": place.user.server()}}))
    assert await place.names(20) == {"user": 20}
    await place.follow(place.state())
    assert await place.names(20) == {"user": 20}
    await place.eventually(lambda: place.copy.requests == 20)
    assert place.user.requests == 60


async def test_an_instance_that_died_is_sent_no_copies_of_copies(router):
    place = await router()
    await place.copy.stop()
    assert await place.names(30) == {"user": 30}
    assert place.user.requests == 30


async def test_the_version_that_gets_copies_may_have_a_share(router):
    place = await router()
    await place.follow(place.state(share=5_000))
    answers = await place.names(100)
    await place.eventually(lambda: place.copy.requests == 100 + answers["copy"])
    counted = {
        each.version: each.figures.requests for each in await place.stand.envoys[-1].of(GOAT).traffic()
    }
    assert counted == {V1: answers["user"], V2: answers["copy"]}


async def test_a_copy_that_is_never_answered_is_cut(router, monkeypatch):
    monkeypatch.setattr("milkrun.router.envoy.mirror.COPY_WAIT_S", 0.2)
    place = await router()
    place.copy.gate.clear()
    await place.names(1)
    await place.eventually(lambda: place.copy.requests == 1)
    ask = "/stats?filter=copies.upstream_rq_active$"
    async with asyncio.timeout(20):
        while b": 0" not in await place.stand.envoys[-1]._process.admin.get(ask):
            await asyncio.sleep(0.02)
    assert place.copy.requests == 1
