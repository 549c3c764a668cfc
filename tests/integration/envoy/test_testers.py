"""A tester gets the version that was asked for; nobody else does, and no instance hears of it."""

from __future__ import annotations

import time
from contextlib import AsyncExitStack

import msgspec
import pytest
from echo import Client, Echo

from milkrun.model import SHARE_SLOTS, ServiceName, VersionName
from milkrun.router.desired import Mode, RoutingState
from milkrun.router.envoy import files
from milkrun.router.override import cookie_name, cookie_value
from milkrun.settings.service import TrafficSettings

from .conftest import GOAT, converge

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

    def __init__(self, stand) -> None:
        self.stand = stand
        self.one, self.two = Echo("one"), Echo("two")

    def state(self, two: Mode = Mode.SERVE) -> RoutingState:
        return RoutingState(
            shares={V1: SHARE_SLOTS},
            versions={V1: {"one": self.one.server()}, V2: {"two": self.two.server(two)}},
        )

    async def ask(self, headers=None, source: str = "127.0.0.1"):
        async with Client(self.stand.front.listen, source=source) as client:
            return await client.ask(headers=headers)

    async def by_cookie(self, value: str) -> str:
        return (await self.ask({"Cookie": f"{NAME}={value}"})).name


@pytest.fixture
async def router(stand):
    async with AsyncExitStack() as stack:

        async def make(traffic: TrafficSettings, key: bytes = KEY, **front) -> Place:
            found = Place(stand)
            for app in (found.one, found.two):
                await app.start()
                stack.push_async_callback(app.stop)
            (stand.folder / "override.key").write_bytes(key + b"\n")
            (stand.folder / "override.key").chmod(0o600)
            services = {GOAT: traffic}
            await stand.start(found.state(), msgspec.structs.replace(stand.front, services=services, **front))
            return found

        yield make


async def test_it_is_off_unless_the_service_says_so(router):
    place = await router(TrafficSettings())
    answer = await place.ask({"X-Version": V2, "Cookie": f"{NAME}={signed()}"})
    assert answer.name == "one"
    assert answer.saw("x-version") == [V2]


async def test_by_header_from_a_network_that_may(router):
    place = await router(BY_HEADER)
    assert (await place.ask({"X-Version": V2})).name == "two"
    assert (await place.ask({"X-Version": V1})).name == "one"
    assert (await place.ask({"X-Version": V2}, source="127.0.0.2")).name == "one"
    for value in ("", "0.0.3", "0.0.2", "two", "0.0.2+RC.1", "goat/0.0.2+rc.1", "x" * 2000):
        assert (await place.ask({"X-Version": value})).name == "one"


@pytest.mark.parametrize("local", [True, False])
async def test_no_caller_writes_down_itself_what_a_tester_gets(router, local):
    place = await router(BY_HEADER, local=local)
    for name in ("x-milkrun-asked-goat", "X_Milkrun_Asked_Goat"):
        answer = await place.ask({name: V2}, source="127.0.0.2")
        assert answer.name == "one"
    assert answer.saw("x-milkrun-asked-goat") == []
    place = await router(BY_COOKIE, local=local)
    assert (await place.ask({"x-milkrun-asked-goat": V2})).name == "one"


@pytest.mark.parametrize("source", ["127.0.0.1", "127.0.0.2"])
async def test_no_instance_sees_the_header(router, source):
    place = await router(BY_HEADER)
    answer = await place.ask({"X-Version": V2, "X-Versions": "mine"}, source=source)
    assert answer.saw("x-version") == []
    assert answer.saw("x-versions") == ["mine"]
    assert [name for name, _ in answer.seen if "asked" in name] == []


async def test_a_network_within_another_may_all_that_the_wider_one_may(router):
    traffic = TrafficSettings(override="header:X-Version", override_from=["127.0.0.0/8"])
    place = await router(traffic, trust=("127.0.0.3/32",))
    for source, told in (("127.0.0.3", ["9.9.9.9,127.0.0.3"]), ("127.0.0.4", ["127.0.0.4"])):
        answer = await place.ask({"X-Version": V2, "X-Forwarded-For": "9.9.9.9"}, source=source)
        assert answer.name == "two"
        assert answer.saw("x-forwarded-for") == told


async def test_by_a_signed_cookie_from_the_first_request_on(router):
    place = await router(BY_COOKIE)
    assert await place.by_cookie(signed()) == "two"
    assert await place.by_cookie(signed(V1)) == "one"


async def test_a_key_that_is_no_block_of_sha_256(router):
    for length in (32, 55, 65, 200):
        place = await router(BY_COOKIE, key=b"q" * length)
        await place.stand.envoys[-1].stop()
        place = await router(BY_COOKIE, key=b"q" * length)
        assert await place.by_cookie(signed(key=b"q" * length)) == "two"
        assert await place.by_cookie(signed()) == "one"


BAD = {
    "another key": lambda: signed(key=OTHER_KEY),
    "ended": lambda: signed(for_s=-1),
    "ends now": lambda: signed(for_s=0),
    "another service's": lambda: signed(service="farmer"),
    "no such version": lambda: signed("0.0.3"),
    "signature cut": lambda: signed()[:-1],
    "signature longer": lambda: signed() + "0",
    "no signature": lambda: signed()[:-64],
    "three fields": lambda: signed()[:-65],
    "made up": lambda: signed()[:-64] + "0" * 64,
    "another version under an old signature": lambda: signed(V1).replace(V1, V2),
    "prolonged": lambda: signed(for_s=-60).replace(":1", ":9", 1),
    "in capitals": lambda: signed().upper(),
    "empty": lambda: "",
    "only a version": lambda: V2,
    "colons": lambda: ":" * 50,
    "no time": lambda: f"goat:{V2}::",
    "long": lambda: signed() + "0" * 5000,
    "pattern": lambda: "%d+.*[^:]+:%s:(:%f",
}


async def test_what_is_not_signed_for_this_service_and_time_says_nothing(router):
    place = await router(BY_COOKIE)
    assert await place.by_cookie(signed()) == "two"
    assert {kind: await place.by_cookie(bad()) for kind, bad in BAD.items()} == dict.fromkeys(BAD, "one")


@pytest.mark.parametrize(
    ("cookies", "seen"),
    [
        ("{0}", []),
        ("a=b; {0}", ["a=b"]),
        ("{0}; a=b", ["a=b"]),
        ("a=b; {0}; c=d", ["a=b; c=d"]),
        ("a=b;{0};c=d;e=", ["a=b; c=d; e="]),
        ("x{0}; y=1", ["x{0}; y=1"]),
        ("{0}; a=b; {0}", ["a=b"]),
        ('a="1=2"; {0}', ['a="1=2"']),
    ],
)
async def test_no_instance_sees_the_cookie_good_or_not(router, cookies, seen):
    place = await router(BY_COOKIE)
    for value in (signed(), signed(key=OTHER_KEY)):
        cookie = f"{NAME}={value}"
        answer = await place.ask({"Cookie": cookies.format(cookie)})
        assert answer.saw("cookie") == [text.format(cookie) for text in seen]


async def test_a_version_in_maintenance_is_not_reached(router):
    place = await router(BY_HEADER)
    envoy = place.stand.envoys[-1]
    await converge(envoy, place.state(Mode.DRAIN))
    assert (await place.ask({"X-Version": V2})).name == "one"
    counted = {each.version: each.figures.requests for each in await envoy.of(GOAT).traffic()}
    assert counted == {V1: 1, V2: 0}, "it is a request like any other"


async def test_no_key_is_in_what_envoy_was_told(router):
    place = await router(BY_COOKIE)
    dump = await place.stand.envoys[-1]._process.admin.get("/config_dump")
    assert b"envoy.filters.http.lua" in dump
    assert KEY not in dump
    assert KEY not in (place.stand.folder / "envoy.plane.json").read_bytes()


async def test_the_key_is_taken_from_the_file_that_the_command_line_names(router, tmp_path):
    file = tmp_path / 'a "name"\n]] of its own'
    file.write_bytes(OTHER_KEY)
    file.chmod(0o600)
    files.keep(tmp_path, file)
    place = await router(BY_COOKIE)
    assert await place.by_cookie(signed(key=OTHER_KEY)) == "two"
    files.keep(tmp_path, None)
    assert files.override_file(tmp_path) == tmp_path / "override.key"
