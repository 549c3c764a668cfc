"""A user stays with a version, on a real HAProxy. Which slot a user has is known from the hash's specification."""

from __future__ import annotations

import ipaddress
import re
import uuid
import zlib
from contextlib import AsyncExitStack

import pytest
from alone import Alone
from echo import Client, Echo
from ports import free_port
from xxh32 import xxh32

from milkrun.model import SHARE_SLOTS, ServiceName, VersionName
from milkrun.router.desired import RoutingState
from milkrun.router.diff import diff
from milkrun.router.front import Front, Route
from milkrun.router.haproxy import binary
from milkrun.router.haproxy.plane import HAProxy
from milkrun.router.override import cookie_name, cookie_value
from milkrun.router.placement import place
from milkrun.settings.service import TrafficSettings

V1, V2 = VersionName("0.0.1"), VersionName("0.0.2")
USERS = [f"user-{number}" for number in range(600)]
# 9,999 degrees of freedom have a mean of 9,999 and a deviation of 141: this is passed by chance with p = 1e-6.
CHI_SQUARE = 10_700.0


def slot(user: bytes, service: str = "goat") -> int:
    return xxh32(user, zlib.crc32(service.encode()) >> 1) % SHARE_SLOTS


class Place:
    """A router before one instance of each of two versions."""

    def __init__(self, folder, traffic: TrafficSettings, stack: AsyncExitStack) -> None:
        self.listen = ("127.0.0.1", free_port())
        stats = ("127.0.0.1", free_port())
        self.plane = Alone(folder, "goat", listen=self.listen, stats=stats, traffic=traffic)
        self.apps = {V1: Echo("one"), V2: Echo("two")}
        self.state = RoutingState()
        self._stack = stack

    async def start(self) -> None:
        for app in self.apps.values():
            await app.start()
            self._stack.push_async_callback(app.stop)
        self._stack.push_async_callback(self.plane.stop)
        await self.plane.start(RoutingState())

    async def share(self, canary: int) -> None:
        """The canary has so many slots."""
        shares = {name: n for name, n in ((V1, SHARE_SLOTS - canary), (V2, canary)) if n}
        self.state = RoutingState(
            shares=shares,
            placement=place(self.state.placement, shares),
            versions={name: {app.name: app.server()} for name, app in self.apps.items()},
        )
        for _ in range(4):
            await self.plane.apply(diff(await self.plane.observe(), self.state), self.state)
        assert diff(await self.plane.observe(), self.state) == []

    def expected(self, user: bytes) -> str:
        at = slot(user)
        version = next(span.version for span in self.state.placement if span.first <= at <= span.last)
        return self.apps[version].name

    async def names(self, headers) -> list[str]:
        async with Client(self.listen) as client:
            return await client.names(headers)


@pytest.fixture
async def router(tmp_path):
    async with AsyncExitStack() as stack:

        async def make(**traffic) -> Place:
            found = Place(tmp_path, TrafficSettings(**traffic), stack)
            await found.start()
            return found

        yield make


def test_the_oracle_is_right():
    """Vectors of the specification."""
    assert xxh32(b"", 0) == 0x02CC5D05
    assert xxh32(b"Nobody inspects the spammish repetition", 0) == 0xE2293B2F


@pytest.mark.parametrize(
    "kind",
    [
        lambda number: f"user-{number}".encode(),
        lambda number: str(uuid.UUID(int=number * 0x9E3779B97F4A7C15F39CC0605CEDC835 % 2**128)).encode(),
        lambda number: ipaddress.IPv4Address(0x0A000000 + number).packed,
    ],
    ids=["counted", "random", "addresses"],
)
def test_a_hundred_thousand_users_spread_evenly(kind):
    """Also those whose names differ little: no slot has more of them than chance gives it."""
    counts = [0] * SHARE_SLOTS
    for number in range(100_000):
        counts[slot(kind(number))] += 1
    assert sum((count - 10) ** 2 / 10 for count in counts) < CHI_SQUARE


def test_not_the_same_users_are_every_services_canaries():
    both = sum(slot(user.encode()) >= 9_000 and slot(user.encode(), "farmer") >= 9_000 for user in USERS)
    assert both < 30  # 6 of 600 by chance, 60 were they the same


@pytest.mark.parametrize(
    ("sticky", "headers"),
    [
        ("header:X-User", lambda user: {"X-User": user}),
        ("cookie:visitor", lambda user: {"Cookie": f"a=1; visitor={user}; b=2"}),
    ],
)
async def test_a_canarys_users_stay_with_it_while_its_share_rises(router, sticky, headers):
    place = await router(sticky=sticky)
    asked = [headers(user) for user in USERS]
    before = ["one"] * len(USERS)
    for share in (0, 100, 500, 5_000, 10_000):
        await place.share(share)
        names = await place.names(asked)
        assert names == [place.expected(user.encode()) for user in USERS]
        assert all(now == "two" for was, now in zip(before, names, strict=True) if was == "two")
        assert await place.names(asked) == names
        before = names
    for share in (5_000, 100):
        await place.share(share)
        names = await place.names(asked)
        assert all(now == "one" for was, now in zip(before, names, strict=True) if was == "one")
        assert set(names) == {"one", "two"}
        before = names
    assert place.plane.reloads == 0


async def test_who_comes_without_a_cookie_gets_one_and_stays(router):
    place = await router(sticky="cookie:visitor")
    await place.share(5_000)
    firsts = set()
    for _ in range(20):
        async with Client(place.listen) as client:
            first = await client.ask(headers={"Cookie": "other=1"})
            [cookie] = first.header("set-cookie")
            found = re.fullmatch(r"(visitor=([0-9a-f-]{36})); Path=/; HttpOnly; SameSite=Lax", cookie)
            assert found
            assert first.name == place.expected(found[2].encode())
            again = [await client.ask(headers={"Cookie": found[1]}) for _ in range(5)]
        assert {answer.name for answer in again} == {first.name}
        assert [answer.header("set-cookie") for answer in again] == [[]] * 5
        firsts.add(first.name)
    assert firsts == {"one", "two"}


async def test_an_empty_cookie_is_none(router):
    place = await router(sticky="cookie:visitor")
    await place.share(5_000)
    async with Client(place.listen) as client:
        answers = [await client.ask(headers={"Cookie": "visitor="}) for _ in range(20)]
    assert {answer.name for answer in answers} == {"one", "two"}
    assert all(answer.header("set-cookie") for answer in answers)


async def test_without_the_header_each_request_is_for_itself(router):
    place = await router(sticky="header:X-User")
    await place.share(5_000)
    assert set(await place.names([{}] * 40)) == {"one", "two"}
    assert set(await place.names([{"X-User": ""}] * 40)) == {"one", "two"}


async def test_by_address_a_client_stays_whatever_it_says(router):
    place = await router(sticky="address")
    await place.share(5_000)
    seen = set()
    for number in range(1, 30):
        source = f"127.0.3.{number}"
        async with Client(place.listen, source=source) as client:
            names = await client.names([{"X-Forwarded-For": f"10.0.0.{other}"} for other in range(5)])
        assert set(names) == {place.expected(ipaddress.IPv4Address(source).packed)}
        seen |= set(names)
    assert seen == {"one", "two"}


async def test_a_tcp_services_clients_stay_by_address(router):
    place = await router(sticky="address", protocol="tcp")
    await place.share(5_000)
    for number in range(1, 15):
        source = f"127.0.3.{number}"
        for _ in range(2):
            async with Client(place.listen, source=source) as client:
                assert (await client.ask()).name == place.expected(ipaddress.IPv4Address(source).packed)


async def test_nobody_moves_when_haproxy_starts_again_from_its_files(router):
    """Another order of the slots would be the same shares."""
    place = await router(sticky="header:X-User")
    for share in (9_000, 2_500):
        await place.share(share)
    asked = [{"X-User": user} for user in USERS]
    before = await place.names(asked)

    await place.plane.stop()
    await place.plane.start(place.state)

    assert await place.names(asked) == before == [place.expected(user.encode()) for user in USERS]


async def test_many_versions_of_a_long_history_are_placed_as_remembered(router, tmp_path):
    """More than one range a version."""
    place_ = await router(sticky="header:X-User")
    third = Echo("three")
    await third.start()
    apps = {V1: place_.apps[V1], V2: place_.apps[V2], VersionName("0.0.3"): third}
    place_.apps = apps
    names = list(apps)
    for shares in ((6_000, 4_000, 0), (4_000, 4_000, 2_000), (5_000, 2_500, 2_500)):
        wanted = {name: share for name, share in zip(names, shares, strict=True) if share}
        place_.state = RoutingState(
            shares=wanted,
            placement=place(place_.state.placement, wanted),
            versions={name: {app.name: app.server()} for name, app in apps.items()},
        )
        for _ in range(4):
            await place_.plane.apply(diff(await place_.plane.observe(), place_.state), place_.state)
    assert len(place_.state.placement) > 3
    assert diff(await place_.plane.observe(), place_.state) == []

    answers = await place_.names([{"X-User": user} for user in USERS])

    assert answers == [place_.expected(user.encode()) for user in USERS]
    await place_.plane.stop()
    await place_.plane.start(place_.state)
    assert await place_.names([{"X-User": user} for user in USERS]) == answers
    await third.stop()


async def test_a_service_in_maintenance_answers_so_to_sticky_users_too(router):
    place = await router(sticky="cookie:visitor")
    await place.share(5_000)
    closed = RoutingState(versions=place.state.versions)
    await place.plane.apply(diff(await place.plane.observe(), closed), closed)
    async with Client(place.listen) as client:
        answer = await client.ask(headers={"Cookie": "visitor=me"})
    assert answer.status == 503


async def test_behind_one_sidecar_each_service_has_its_own_users(tmp_path):
    """Nobody's settings are another's, and one in maintenance says so, as it does behind its own router."""
    goat, farmer, plain = ServiceName("goat"), ServiceName("farmer"), ServiceName("plain")
    listen = ("127.0.0.1", free_port())
    front = Front(
        name="side",
        listen=listen,
        stats=("127.0.0.1", free_port()),
        routes=tuple(Route(service=name, path=f"/{name}", strip=True) for name in (goat, farmer, plain)),
        services={
            goat: TrafficSettings(sticky="header:X-User", mirror=V2, override="cookie"),
            farmer: TrafficSettings(sticky="cookie:visitor"),
            plain: TrafficSettings(),
        },
    )
    proxy = HAProxy(tmp_path, binary.find(), front, override_key=b"k" * 40)
    shares = {V1: 5_000, V2: 5_000}
    async with AsyncExitStack() as stack:
        states = {}
        for name in (goat, farmer):
            apps = {V1: Echo(f"{name}-one"), V2: Echo(f"{name}-two")}
            for app in apps.values():
                await app.start()
                stack.push_async_callback(app.stop)
            states[name] = RoutingState(
                shares=shares,
                placement=place((), shares),
                versions={version: {app.name: app.server()} for version, app in apps.items()},
            )
        stack.push_async_callback(proxy.stop)
        await proxy.start(states)

        def expected(service: str, user: str) -> str:
            return f"{service}-{'two' if slot(user.encode(), service) >= 5_000 else 'one'}"

        async with Client(listen) as client:
            for user in USERS[:60]:
                both = {"X-User": user, "Cookie": f"visitor={user}"}
                assert (await client.ask("/goat/a", both)).name == expected("goat", user)
                assert (await client.ask("/farmer/a", both)).name == expected("farmer", user)
            assert (await client.ask("/goat")).header("set-cookie") == []
            assert len((await client.ask("/farmer")).header("set-cookie")) == 1
            cookie = f"{cookie_name(goat)}={cookie_value(goat, V2, 2**40, b'k' * 40)}"
            users = [user for user in USERS if expected("goat", user).endswith("one")][:5]
            for user in users:
                answer = await client.ask("/goat", {"X-User": user, "Cookie": cookie})
                assert answer.name == "goat-two"
            assert (
                await client.ask("/farmer", {"Cookie": f"{cookie}; visitor={users[0]}"})
            ).name == expected("farmer", users[0])
            assert (await client.ask("/plain")).status == 503
            assert (await client.ask("/nobody")).status == 404
