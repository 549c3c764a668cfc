"""A tester gets the version that was asked for, on a real HAProxy; nobody else does, and no instance hears of it."""

from __future__ import annotations

import time
from contextlib import AsyncExitStack

import msgspec
import pytest
from alone import Alone
from echo import Client, Echo
from ports import free_port

from milkrun.model import SHARE_SLOTS, ServiceName, VersionName
from milkrun.router.desired import Mode, RoutingState
from milkrun.router.diff import diff
from milkrun.router.override import cookie_name, cookie_value
from milkrun.settings.service import TrafficSettings

GOAT = ServiceName("goat")
V1, V2 = VersionName("0.0.1"), VersionName("0.0.2+rc.1")
KEY, OTHER_KEY = b"k" * 64, b"o" * 64
NAME = cookie_name(GOAT)
BY_HEADER = TrafficSettings(override="header:X-Version", override_from=["127.0.0.1", "10.0.0.0/8"])
BY_COOKIE = TrafficSettings(override="cookie")


def signed(version: str = V2, *, service: str = GOAT, for_s: int = 60, key: bytes = KEY) -> str:
    until = int(time.time()) + for_s
    return cookie_value(ServiceName(service), VersionName(version), until, key)


class Place:
    """A router before `0.0.1`, which has all traffic, and `0.0.2+rc.1`, which has none."""

    def __init__(self, folder, traffic: TrafficSettings) -> None:
        self.folder, self.traffic = folder, traffic
        self.listen, self.stats = ("127.0.0.1", free_port()), ("127.0.0.1", free_port())
        self.one, self.two = Echo("one"), Echo("two")
        self.plane = self.another_plane()

    def another_plane(self, key: bytes = KEY) -> Alone:
        return Alone(
            self.folder, GOAT, listen=self.listen, stats=self.stats, traffic=self.traffic, override_key=key
        )

    async def stop(self) -> None:
        await self.plane.stop()  # the last router that took over

    def state(self, two: Mode = Mode.SERVE) -> RoutingState:
        return RoutingState(
            shares={V1: SHARE_SLOTS},
            versions={V1: {"one": self.one.server()}, V2: {"two": self.two.server(two)}},
        )

    async def follow(self, state: RoutingState) -> None:
        for _ in range(4):
            await self.plane.apply(diff(await self.plane.observe(), state), state)

    async def ask(self, headers=None, source: str = "127.0.0.1"):
        async with Client(self.listen, source=source) as client:
            return await client.ask(headers=headers)

    async def by_cookie(self, value: str) -> str:
        return (await self.ask({"Cookie": f"{NAME}={value}"})).name


@pytest.fixture
async def router(tmp_path):
    async with AsyncExitStack() as stack:

        async def make(traffic: TrafficSettings) -> Place:
            found = Place(tmp_path, traffic)
            for app in (found.one, found.two):
                await app.start()
                stack.push_async_callback(app.stop)
            await found.plane.start(RoutingState())
            stack.push_async_callback(found.stop)
            await found.follow(found.state())
            return found

        yield make


async def test_it_is_off_unless_the_service_says_so(router):
    place = await router(TrafficSettings())

    answer = await place.ask({"X-Version": V2, "Cookie": f"{NAME}={signed()}"})

    assert answer.name == "one"
    assert answer.saw("x-version") == [V2]  # a header like any other


async def test_by_header_from_a_network_that_may(router):
    place = await router(BY_HEADER)
    assert (await place.ask({"X-Version": V2})).name == "two"
    assert (await place.ask({"X-Version": V1})).name == "one"
    assert (await place.ask({"X-Version": V2}, source="127.0.0.2")).name == "one"


@pytest.mark.parametrize(
    "value", ["", "0.0.3", "0.0.2", "goat.b", "goat.all", "two", "0.0.2+RC.1", "x" * 2000]
)
async def test_what_is_no_version_says_nothing(router, value):
    place = await router(BY_HEADER)
    assert (await place.ask({"X-Version": value})).name == "one"


@pytest.mark.parametrize("source", ["127.0.0.1", "127.0.0.2"])
async def test_no_instance_sees_the_header(router, source):
    place = await router(BY_HEADER)
    answer = await place.ask({"X-Version": V2, "X-Versions": "mine"}, source=source)
    assert answer.saw("x-version") == []
    assert answer.saw("x-versions") == ["mine"]


async def test_by_a_signed_cookie(router):
    place = await router(BY_COOKIE)
    assert await place.by_cookie(signed()) == "two"
    assert await place.by_cookie(signed(V1)) == "one"


@pytest.mark.parametrize(
    "value",
    [
        pytest.param(lambda: signed(key=OTHER_KEY), id="another key"),
        pytest.param(lambda: signed(for_s=-1), id="ended"),
        pytest.param(lambda: signed(for_s=0), id="ends now"),
        pytest.param(lambda: signed(service="farmer"), id="another service's"),
        pytest.param(lambda: signed("0.0.3"), id="no such version"),
        pytest.param(lambda: signed()[:-1], id="signature cut"),
        pytest.param(lambda: signed() + "0", id="signature longer"),
        pytest.param(lambda: signed()[:-64], id="no signature"),
        pytest.param(lambda: signed()[:-65], id="three fields"),
        pytest.param(lambda: signed()[:-64] + "0" * 64, id="made up"),
        pytest.param(lambda: signed(V1).replace(V1, V2), id="another version under an old signature"),
        pytest.param(lambda: signed(for_s=-60).replace(":1", ":9", 1), id="prolonged"),
        pytest.param(lambda: signed().upper(), id="in capitals"),
        pytest.param(lambda: "", id="empty"),
        pytest.param(lambda: V2, id="only a version"),
        pytest.param(lambda: ":" * 50, id="colons"),
        pytest.param(lambda: f"goat:{V2}::", id="no time"),
    ],
)
async def test_what_is_not_signed_for_this_service_and_time_says_nothing(router, value):
    place = await router(BY_COOKIE)
    assert await place.by_cookie(signed()) == "two"
    assert await place.by_cookie(value()) == "one"


@pytest.mark.parametrize(
    ("sent", "seen"),
    [
        ("{it}", []),
        ("a=1; {it}", ["a=1"]),
        ("{it}; b=2", ["b=2"]),
        ("a=1; {it}; b=2", ["a=1; b=2"]),
        ("a=1;{it};b=2", ["a=1;b=2"]),
        ("my{it}; a=1", ["my{it}; a=1"]),
        ("a={name}; b=2", ["a={name}; b=2"]),
        ("{it}; {it}", []),
        ("{it}; a=1; {it}; {it}", []),  # nobody sends three: all cookies go rather than one of these
    ],
)
async def test_no_instance_sees_the_cookie(router, sent, seen):
    place = await router(BY_COOKIE)
    fill = {"it": f"{NAME}={signed()}", "name": NAME}
    answer = await place.ask({"Cookie": sent.format(**fill)})
    assert answer.saw("cookie") == [text.format(**fill) for text in seen]


async def test_a_version_in_maintenance_is_not_reached(router):
    """From the moment on that the state says so, without a reload; and again when it is back."""
    place = await router(BY_COOKIE)
    cookie = signed()
    for mode, name in ((Mode.DRAIN, "one"), (Mode.SERVE, "two")):
        await place.follow(place.state(two=mode))
        assert {await place.by_cookie(cookie) for _ in range(10)} == {name}
    gone = RoutingState(shares={V1: SHARE_SLOTS}, versions={V1: {"one": place.one.server()}})
    await place.follow(gone)
    assert await place.by_cookie(cookie) == "one"
    assert place.plane.reloads == 0


async def test_a_version_whose_instance_is_dead_costs_no_error(router):
    """Its requests go where all others go."""
    place = await router(BY_COOKIE)
    await place.two.stop()
    assert {await place.by_cookie(signed()) for _ in range(10)} == {"one"}
    await place.two.start()


async def test_a_service_in_maintenance_is_closed_to_testers_too(router):
    place = await router(BY_COOKIE)
    await place.follow(msgspec.structs.replace(place.state(), shares={}))
    answer = await place.ask({"Cookie": f"{NAME}={signed()}"})
    assert answer.status == 503


async def test_a_lane_that_another_version_takes_is_not_the_old_versions(router):
    place = await router(BY_COOKIE)
    cookie = signed()
    await place.follow(RoutingState(shares={V1: SHARE_SLOTS}, versions={V1: {"one": place.one.server()}}))
    third = VersionName("0.0.3")
    await place.follow(
        RoutingState(
            shares={V1: SHARE_SLOTS},
            versions={V1: {"one": place.one.server()}, third: {"two": place.two.server()}},
        )
    )
    assert await place.by_cookie(cookie) == "one"
    assert await place.by_cookie(signed(third)) == "two"


async def test_somebody_who_empties_the_map_by_hand_is_set_right(router):
    place = await router(BY_COOKIE)
    await place.plane.proxy._process.admin.ask("clear map goat.versions.map")
    assert await place.by_cookie(signed()) == "one"
    await place.follow(place.state())
    assert await place.by_cookie(signed()) == "two"


async def test_haproxy_alone_serves_testers_from_its_files(router):
    place = await router(BY_COOKIE)
    await place.plane.stop()
    await place.plane.start(place.state())
    assert await place.by_cookie(signed()) == "two"


async def test_another_key_ends_all_cookies_when_the_next_router_takes_over(router):
    place = await router(BY_COOKIE)
    place.plane = place.another_plane(OTHER_KEY)
    await place.plane.start(place.state())
    assert place.plane.reloads == 0
    assert await place.by_cookie(signed()) == "one"
    assert await place.by_cookie(signed(key=OTHER_KEY)) == "two"


async def test_without_a_key_no_cookie_is_good(router):
    place = await router(BY_COOKIE)
    place.plane = place.another_plane(b"")
    await place.plane.start(place.state())
    assert await place.by_cookie(signed(key=b"")) == "one"
    await place.plane.stop()
    await place.plane.start(place.state())
    assert await place.by_cookie(signed(key=b"")) == "one"


async def test_the_key_is_in_no_file_that_others_read_and_not_in_the_configuration(router):
    place = await router(BY_COOKIE)
    from milkrun.router.haproxy import choice

    text = choice.key_text(KEY)
    files = [file for file in place.folder.rglob("*") if file.is_file()]
    holding = {file.name for file in files if text in file.read_text(errors="replace")}
    assert holding == {choice.KEY_MAP}
    assert {oct(file.stat().st_mode & 0o077) for file in files if file.name == choice.KEY_MAP} == {"0o0"}


async def test_a_tester_may_be_sticky_as_well(router):
    place = await router(TrafficSettings(override="cookie", sticky="cookie:visitor"))
    first = await place.ask({"Cookie": f"{NAME}={signed()}"})
    assert first.name == "two"
    assert len(first.header("set-cookie")) == 1
    assert (await place.ask({"Cookie": f"visitor=me; {NAME}={signed()}"})).saw("cookie") == ["visitor=me"]
