"""A user stays with a version, and a share that grows takes nobody away from it; instances that come start slowly."""

from __future__ import annotations

from http.cookies import SimpleCookie

import aiohttp
import msgspec
import pytest

from milkrun.router.desired import RoutingState
from milkrun.router.diff import diff
from milkrun.router.placement import place
from milkrun.settings.service import TrafficSettings

from .conftest import GOAT, converge, state

USERS = [f"user-{number}" for number in range(300)]


async def share(envoy, apps, before: RoutingState, shares: dict[str, int]) -> RoutingState:
    """The versions a, b and c have these shares, and as few slots as that takes are moved."""
    wanted = state(
        shares, **{name[0]: [apps[name].server()] for name in ("a1", "b1")}, c=[apps["b2"].server()]
    )
    wanted = msgspec.structs.replace(wanted, placement=place(before.placement, shares))
    assert diff(await converge(envoy, wanted), wanted) == []
    return wanted


async def who(session, url, headers) -> str:
    async with session.get(url, headers=headers) as answer:
        return (await answer.json())["who"]


async def start(stand, **traffic):
    front = msgspec.structs.replace(stand.front, services={GOAT: TrafficSettings(**traffic)})
    return await stand.start(state({}), front)


async def test_no_user_moves_who_need_not(stand, apps):
    envoy = await start(stand, sticky="header:x-user")
    now = RoutingState()
    seen: list[dict[str, str]] = []
    async with aiohttp.ClientSession() as session:
        for shares in (
            {"a": 9_000, "b": 1_000},
            {"a": 5_000, "b": 5_000},
            {"a": 4_000, "b": 5_000, "c": 1_000},
            {"a": 5_000, "b": 5_000},
        ):
            now = await share(envoy, apps, now, shares)
            seen.append({user: await who(session, stand.url, {"X-User": user}) for user in USERS})
            again = {user: await who(session, stand.url, {"X-User": user}) for user in USERS[:50]}
            assert again.items() <= seen[-1].items()

    for user in USERS:
        first, half, third, back = (each[user] for each in seen)
        assert (first, half) in {("a1", "a1"), ("a1", "b1"), ("b1", "b1")}, "a share that grows loses nobody"
        assert third in (half, "b2")
        assert half == back
    count = sum(name == "b1" for name in seen[1].values())
    assert abs(count - 150) < 5 * (300 / 4) ** 0.5


async def test_who_says_no_name_is_shared_out(stand, apps):
    envoy = await start(stand, sticky="header:x-user")
    await share(envoy, apps, RoutingState(), {"a": 5_000, "b": 5_000})
    async with aiohttp.ClientSession() as session:
        assert {await who(session, stand.url, {}) for _ in range(60)} == {"a1", "b1"}


async def test_a_newcomer_gets_a_cookie_and_stays(stand, apps):
    envoy = await start(stand, sticky="cookie:goat-user")
    now = await share(envoy, apps, RoutingState(), {"a": 5_000, "b": 5_000})
    users: list[tuple[str, str]] = []
    for _ in range(60):
        async with aiohttp.ClientSession() as session, session.get(stand.url) as answer:
            cookie = SimpleCookie(answer.headers["Set-Cookie"])["goat-user"]
            users.append((cookie.value, (await answer.json())["who"]))
    assert (cookie["path"], cookie["httponly"], cookie["samesite"]) == ("/", True, "Lax")
    assert (cookie["max-age"], cookie["expires"]) == ("", "")
    assert {name for _, name in users} == {"a1", "b1"}
    async with aiohttp.ClientSession() as session:
        for value, name in users:
            assert await who(session, stand.url, {"Cookie": f"x=y; goat-user={value}"}) == name
        await share(envoy, apps, now, {"a": 2_000, "b": 8_000})
        for value, name in users:
            later = await who(session, stand.url, {"Cookie": f"goat-user={value}"})
            assert later == "b1" or name == "a1"


async def test_an_address_stays(stand, apps):
    envoy = await start(stand, sticky="address")
    await share(envoy, apps, RoutingState(), {"a": 5_000, "b": 5_000})
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(force_close=True)) as session:
        assert len({await who(session, stand.url, {}) for _ in range(20)}) == 1


@pytest.mark.parametrize("balance", ["round-robin", "least-connections", "two-choices"])
async def test_each_way_to_balance_is_taken_with_a_slow_start(stand, apps, balance):
    envoy = await start(stand, balance=balance, slow_start_s=1.5)
    wanted = state({"a": 10_000}, a=[apps["a1"].server(), apps["a2"].server()])
    await converge(envoy, wanted)
    async with aiohttp.ClientSession() as session:
        names = [await who(session, stand.url, {}) for _ in range(60)]
    assert set(names) == {"a1", "a2"}
