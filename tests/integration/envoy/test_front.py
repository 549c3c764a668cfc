"""Where Envoy stands: routes to several services, shares, draining, TCP, WebSocket, the page for people."""

from __future__ import annotations

import asyncio
from collections import Counter

import aiohttp
import msgspec
import pytest
from ports import free_port

from milkrun.errors import DataPlaneError
from milkrun.latency import quantile_ms
from milkrun.model import ServiceName
from milkrun.router.desired import Mode
from milkrun.router.diff import Remove, diff
from milkrun.router.envoy import readback
from milkrun.router.front import Route
from milkrun.settings.service import TrafficSettings

from .conftest import GOAT, asked, converge, load, of, state

COW = ServiceName("cow")


@pytest.fixture
async def edge(stand, apps):
    """Goats at shop.example/goat (GET and POST, stripped) and by a header; cows get the rest of /cow."""
    routes = (
        Route(service=GOAT, host="shop.example", path="/goat", methods=("GET", "POST"), strip=True),
        Route(service=GOAT, headers=(("x-team", "red"),)),
        Route(service=COW, path="/cow"),
    )
    services = {GOAT: TrafficSettings(), COW: TrafficSettings(path="/v1")}
    front = msgspec.structs.replace(stand.front, routes=routes, services=services)
    await stand.start({GOAT: of(apps["a1"]), COW: of(apps["b1"])}, front)
    return stand


@pytest.mark.parametrize(
    ("path", "method", "headers", "expected"),
    [
        ("/goat/x?q=1&r=%20", "GET", {"Host": "shop.example"}, (200, "a1", "/x?q=1&r=%20")),
        ("/goat", "POST", {"Host": "SHOP.example.:8080"}, (200, "a1", "/")),
        ("/goat/", "GET", {"Host": "shop.example"}, (200, "a1", "/")),
        ("/goatee", "GET", {"Host": "shop.example"}, (404, None, None)),
        ("/goat/x", "PUT", {"Host": "shop.example"}, (404, None, None)),
        ("/goat/x", "GET", {"Host": "shopxexample"}, (404, None, None)),
        ("/goat/x", "GET", {"Host": "other.example"}, (404, None, None)),
        ("/anything", "PUT", {"X_Team": "red"}, (200, "a1", "/anything")),
        ("/anything", "PUT", {"X_Team": "reddish"}, (404, None, None)),
        ("/cow/x?y", "DELETE", {}, (200, "b1", "/v1/cow/x?y")),
        ("/cow", "GET", {}, (200, "b1", "/v1/cow")),
        ("/cow", "GET", {"X_Team": "red"}, (200, "a1", "/cow")),
        ("/", "GET", {}, (404, None, None)),
        ("/cow/%2e%2e/goat", "GET", {}, (400, None, None)),
        ("/cow/..%2Fgoat", "GET", {}, (400, None, None)),
        ("/cow/..;x/goat", "GET", {}, (400, None, None)),
        ("/cow/a..b/.c?/../d", "GET", {}, (200, "b1", "/v1/cow/a..b/.c?/../d")),
    ],
)
async def test_the_first_route_that_fits_takes_a_request(edge, path, method, headers, expected):
    async with aiohttp.ClientSession() as session:
        assert await asked(session, edge.url, path, method, **headers) == expected


async def test_one_services_change_touches_no_other(edge, apps, session):
    envoy = edge.envoys[-1]

    async with load(f"{edge.url}/cow") as cows:
        for share in (0, 1, 5_000, 10_000):
            shares = {name: each for name, each in (("1", 10_000 - share), ("2", share)) if each}
            await converge(envoy, state(shares, **{"1": [apps["a1"].server()], "2": [apps["a2"].server()]}))
            await cows.more(10)
        observed = await converge(envoy, state({}))
        assert observed.shares == {}
        await cows.more(10)
        assert await asked(session, edge.url, "/goat", Host="shop.example") == (503, None, None)

    assert (cows.failed, set(cows.answers)) == ({}, {"b1"})
    assert (await envoy.of(COW).observe()).shares == {"1": 10_000}


async def test_a_service_is_read_back_without_the_others(edge, apps):
    envoy = edge.envoys[-1]
    rows = (await envoy._process.admin.get("/clusters?format=json")).count(b'"host_statuses"')
    assert rows > (await envoy._process.admin.get(readback.question(GOAT))).count(b'"host_statuses"') == 1
    assert (await envoy.of(GOAT).observe()).shares == (await envoy.of(COW).observe()).shares == {"1": 10_000}


async def test_a_poisoned_service_keeps_no_other_from_its_start(edge, apps, session):
    bad = state({"1": 10_000}, **{"1": [msgspec.structs.replace(apps["a1"].server(), address="goat;x")]})
    good = of(apps["b1"])
    await edge.envoys[-1].stop()

    envoy = await edge.start({GOAT: bad, COW: good})

    assert await asked(session, edge.url, "/cow") == (200, "b1", "/v1/cow")
    assert (await envoy.of(GOAT).observe()).shares == {}
    with pytest.raises(DataPlaneError):
        await envoy.of(GOAT).apply(diff(await envoy.of(GOAT).observe(), bad), bad)
    assert diff(await converge(envoy, good, COW), good) == []


async def test_another_front_is_taken_over_without_a_lost_request(edge, apps, session):
    async with load(f"{edge.url}/cow") as cows:
        await cows.more(10)
        routes = (Route(service=COW, path="/cow"), Route(service=GOAT))
        front = msgspec.structs.replace(edge.front, routes=routes)
        envoy = await edge.start({GOAT: of(apps["a1"]), COW: of(apps["b1"])}, front)
        await cows.more(10)

    assert (cows.failed, envoy.behind) == ({}, "")
    assert await asked(session, edge.url, "/any") == (200, "a1", "/any")


async def test_another_address_is_listened_on_and_a_taken_one_is_said(edge, apps, session):
    wanted = {GOAT: of(apps["a1"]), COW: of(apps["b1"])}
    former = edge.url
    moved = msgspec.structs.replace(edge.front, listen=("127.0.0.1", free_port()))

    envoy = await edge.start(wanted, moved)

    assert envoy.behind == ""
    assert await asked(session, edge.url, "/cow") == (200, "b1", "/v1/cow")
    with pytest.raises(aiohttp.ClientConnectorError):
        async with aiohttp.ClientSession() as other:
            await asked(other, former, "/cow")
    envoy = await edge.start(
        wanted, msgspec.structs.replace(edge.front, listen=("127.0.0.1", apps["a2"].port))
    )
    assert "goes on at its former addresses" in envoy.behind
    at = f"http://127.0.0.1:{moved.listen[1]}"
    assert await asked(session, at, "/cow") == (200, "b1", "/v1/cow")


async def test_shares_are_as_told_whatever_the_number_of_instances(stand, apps):
    envoy = await stand.start(state({}))
    three = [apps["b1"].server(), apps["b2"].server(), apps["a2"].server()]
    await converge(envoy, state({"a": 7_500, "b": 2_500}, a=[apps["a1"].server()], b=three))

    async with load(stand.url, callers=8) as callers:
        await callers.more(2_000)

    assert callers.failed == {}
    count = sum(callers.answers.values())
    # Five standard deviations: one run in 1.7 million is outside by chance.
    assert abs(callers.answers["a1"] - 0.75 * count) < 5 * (count * 0.75 * 0.25) ** 0.5


async def test_a_share_of_one_slot_is_kept_exactly(stand, apps):
    envoy = await stand.start(state({}))
    wanted = state({"a": 9_999, "b": 1}, a=[apps["a1"].server()], b=[apps["b1"].server()])

    assert (await converge(envoy, wanted)).shares == {"a": 9_999, "b": 1}


async def test_who_drains_ends_what_it_has_gets_nothing_new_and_only_then_goes(stand, apps, session):
    envoy = await stand.start(state({"a": 10_000}, a=[apps["a1"].server(), apps["a2"].server()]))
    plane = envoy.of(GOAT)
    apps["a1"].gate.clear()
    async with asyncio.TaskGroup() as tasks:
        long = [tasks.create_task(asked(session, stand.url, "/long")) for _ in range(4)]
        await apps["a1"].entered.wait()
        gone = state({"a": 10_000}, a=[apps["a2"].server()])
        while (await plane.observe()).versions["a"]["a1"].server.mode is Mode.SERVE:
            await plane.apply(diff(await plane.observe(), gone), gone)
        while len(apps["a1"].asked) < (await plane.observe()).versions["a"]["a1"].in_flight:
            await asyncio.sleep(0.01)
        seen = len(apps["a1"].asked)

        async with load(stand.url, keep=False) as others:
            await others.more(40)

        observed = await plane.observe()
        assert observed.versions["a"]["a1"].in_flight == seen > 0
        assert diff(observed, gone) == []
        assert (set(others.answers), others.failed) == ({"a2"}, {})
        apps["a1"].gate.set()
        assert {(await answer)[0] for answer in long} == {200}
    while not (operations := diff(await plane.observe(), gone)):
        await asyncio.sleep(0.01)
    assert operations == [Remove("a", "a1")]
    await converge(envoy, gone)
    assert len(apps["a1"].asked) == seen


async def test_a_request_that_a_spare_has_is_counted_too(stand, apps, session):
    """Draining is over only when the requests that it took for another version are."""
    envoy = await stand.start(
        state({"a": 5_000, "b": 5_000}, a=[apps["a1"].server()], b=[apps["b1"].server()])
    )
    await apps["a1"].kill()
    while (await envoy.of(GOAT).observe()).versions["a"]["a1"].up:
        await asyncio.sleep(0.01)
    apps["b1"].gate.clear()
    async with asyncio.TaskGroup() as tasks:
        long = [tasks.create_task(asked(session, stand.url, "/long")) for _ in range(20)]
        while (await envoy.of(GOAT).observe()).versions["b"]["b1"].in_flight < 20:
            await asyncio.sleep(0.01)
        assert (await envoy.of(GOAT).observe()).versions["b"]["b1"].pooled
        apps["b1"].gate.set()
    assert {(await answer)[1] for answer in long} == {"b1"}


async def test_a_version_that_lost_half_of_it_keeps_its_share(stand, apps, session):
    """Others serve for it only when none of its own is left."""
    versions = {"a": [apps["a1"].server(), apps["a2"].server()], "b": [apps["b1"].server()]}
    envoy = await stand.start(state({"a": 9_999, "b": 1}, **versions))
    await apps["a1"].kill()
    while (await envoy.of(GOAT).observe()).versions["a"]["a1"].up:
        await asyncio.sleep(0.01)

    answers = Counter([(await asked(session, stand.url, "/"))[1] for _ in range(200)])

    assert answers.keys() <= {"a2", "b1"}
    assert answers["b1"] <= 5  # at 1 in 10,000, six of 200 happen once in ten million runs


async def test_who_is_in_maintenance_gets_nothing_even_when_nobody_else_is_left(stand, apps, session):
    await stand.start(state({"a": 10_000}, a=[apps["a1"].server(), apps["a2"].server(Mode.DRAIN)]))
    await apps["a1"].kill()

    answers = Counter([(await asked(session, stand.url, "/"))[0] for _ in range(30)])

    assert answers == {503: 30}
    assert apps["a2"].asked == []


async def answers(place) -> bool:
    """Whether somebody listens there."""
    try:
        _, writer = await asyncio.open_connection(*place)
    except OSError:
        return False
    writer.close()
    return True


async def test_a_stop_waits_for_what_is_in_flight_and_takes_nothing_new(stand, apps, session):
    envoy = await stand.start(of(apps["a1"]))
    apps["a1"].gate.clear()
    async with asyncio.TaskGroup() as tasks:
        long = tasks.create_task(asked(session, stand.url, "/long"))
        await apps["a1"].entered.wait()
        stop = tasks.create_task(envoy.stop())
        while await answers(stand.front.listen):
            await asyncio.sleep(0.01)
        assert not stop.done()
        apps["a1"].gate.set()
        assert (await long)[:2] == (200, "a1")
    assert not await envoy.alive()


async def test_the_page_shows_versions_and_nothing_else_of_the_admin(stand, apps, session):
    await stand.start(of(apps["a1"]))

    async with session.get(f"{stand.page}/") as answer:
        assert (answer.url.path, answer.status) == ("/monitor", 200)
        assert "goat/1::127.0.0.1" in await answer.text()
    async with session.get(f"{stand.page}/metrics") as answer:
        assert 'envoy_cluster_name="goat/1"' in await answer.text()
    for method, path in (
        *(("GET", each) for each in ("/config_dump", "/quitquitquit", "/monitor/../quitquitquit")),
        *(("POST", each) for each in ("/monitor", "/quitquitquit", "/drain_listeners", "/logging")),
    ):
        async with session.request(method, f"{stand.page}{path}") as answer:
            assert answer.status == 404, (method, path)


async def test_requests_are_counted_by_version(stand, apps, session):
    envoy = await stand.start(
        state({"1": 10_000}, **{"1": [apps["a1"].server()], "1.internal": [apps["b1"].server()]})
    )
    for number in range(30):
        method = "GET" if number % 3 else "PATCH"
        assert (await asked(session, stand.url, "/", method))[0] == (200 if number % 3 else 500)
    apps["a1"].slow_s = 0.2
    for _ in range(10):
        await asked(session, stand.url, "/")
    apps["a1"].gate.clear()
    async with asyncio.TaskGroup() as tasks:
        apps["a1"].entered.clear()
        tasks.create_task(asked(session, stand.url, "/"))
        await apps["a1"].entered.wait()

        while True:  # Envoy's histograms are up to a second behind
            counted = {each.version: each for each in await envoy.of(GOAT).traffic()}
            if sum(counted["1"].figures.latency.values()) == 40:
                break
            await asyncio.sleep(0.05)
        apps["a1"].gate.set()

    figures = counted["1"].figures
    assert figures.answers == {"2xx": 30, "5xx": 10}
    assert (figures.requests, figures.failures, counted["1"].in_flight) == (40, 10, 1)
    assert figures.bytes_in > 40 * 50
    assert figures.bytes_out > 30 * 50
    assert 190 < (quantile_ms(figures.latency, 0.9) or 0) < 400
    assert (quantile_ms(figures.latency, 0.5) or 0) < 100
    assert counted["1"].process > 0
    assert counted["1.internal"].figures.requests == 0
