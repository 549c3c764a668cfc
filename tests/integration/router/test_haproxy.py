"""A real HAProxy, real instances, real kills."""

from __future__ import annotations

import asyncio
import os
import signal
from collections import Counter

import msgspec
import pytest
from haproxies import on_each_release

from milkrun.errors import DataPlaneError, PortTaken
from milkrun.host.process import Identity
from milkrun.router.desired import Mode, RoutingState

SPILL = "  server spill unix@goat.spill.sock backup\n"


def in_flight(observed) -> int:
    return sum(seen.in_flight for servers in observed.versions.values() for seen in servers.values())


@on_each_release
async def test_killing_a_versions_only_instance_costs_no_get(site, make_state):
    """The lane has nobody left before the router can know: its requests spill into the service's pool."""
    a, b = site.app("a"), site.app("b")
    await site.plane.start(make_state({"v1": 5_000, "v2": 5_000}, v1=[a.server()], v2=[b.server()]))
    answers = Counter()

    async def client():
        for _ in range(40):
            answers[await site.ask("/?for=0.02")] += 1

    async with asyncio.TaskGroup() as tasks:
        for _ in range(8):
            tasks.create_task(client())
        await site.eventually(lambda: len(site.answered()) > 60)
        b.kill()

    assert set(answers) == {"200 a", "200 b"}
    assert answers.total() == 320


async def test_the_pool_is_what_saves_them(site, make_state, monkeypatch):
    """Without the spill server the same kill fails requests: the test above can see it."""
    from milkrun.router.haproxy import config

    real = config.render
    monkeypatch.setattr(config, "render", lambda *given: real(*given).replace(SPILL, ""))
    a, b = site.app("a"), site.app("b")
    await site.plane.start(make_state({"v1": 5_000, "v2": 5_000}, v1=[a.server()], v2=[b.server()]))
    assert SPILL not in (site.folder / "haproxy.cfg").read_text()

    b.kill()

    answers = {await site.ask() for _ in range(40)}
    assert any(answer.startswith("503") for answer in answers)


@on_each_release
async def test_a_post_that_may_have_arrived_is_never_sent_again(site, make_state):
    a, b = site.app("a"), site.app("b")
    await site.plane.start(make_state({"v1": 10_000}, v1=[a.server(), b.server()]))

    async with asyncio.TaskGroup() as tasks:
        posts = [tasks.create_task(site.ask("/?for=5", "POST")) for _ in range(6)]
        await site.eventually(lambda: len(site.answered()) == 6)
        a.kill()
        b.kill()

    assert Counter(site.answered()).total() == 6
    assert all(post.result().startswith("502") for post in posts)


@on_each_release
async def test_a_get_in_flight_at_the_kill_is_sent_again(site, make_state):
    a, b = site.app("a"), site.app("b")
    await site.plane.start(make_state({"v1": 10_000}, v1=[a.server(), b.server()]))

    async with asyncio.TaskGroup() as tasks:
        gets = [tasks.create_task(site.ask("/?for=1")) for _ in range(6)]
        await site.eventually(lambda: len(site.answered()) == 6)
        a.kill()

    assert {get.result() for get in gets} == {"200 b"}


@on_each_release
async def test_a_draining_server_ends_what_it_has_and_gets_nothing_new(site, make_state):
    a, b = site.app("a"), site.app("b")
    await site.plane.start(make_state({"v1": 10_000}, v1=[a.server()]))

    async with asyncio.TaskGroup() as tasks:
        long = tasks.create_task(site.ask("/?for=1"))
        await site.eventually(lambda: len(site.answered()) == 1)
        observed = await site.converge(make_state({"v1": 10_000}, v1=[b.server()]))
        assert observed.versions["v1"]["a"].server.mode is Mode.DRAIN
        assert observed.versions["v1"]["a"].in_flight == 1
        assert {await site.ask() for _ in range(10)} == {"200 b"}

    assert long.result() == "200 a"
    observed = await site.converge(make_state({"v1": 10_000}, v1=[b.server()]))
    assert list(observed.versions["v1"]) == ["b"]
    assert site.plane.reloads == 0


@on_each_release
async def test_haproxy_restarts_right_from_its_file_alone(site, make_state):
    """I1: nobody but HAProxy and its folder."""
    a, b = site.app("a"), site.app("b")
    await site.plane.start(RoutingState())
    wanted = make_state({"v1": 10_000}, v1=[a.server(), b.server(Mode.DRAIN)], v2=[b.server()])
    before = await site.converge(wanted)
    os.killpg(
        msgspec.json.decode((site.folder / "process.json").read_bytes(), type=Identity).pid, signal.SIGKILL
    )

    async with asyncio.timeout(10):
        while await site.plane.alive():
            await asyncio.sleep(0.01)
    await site.plane.start(RoutingState(shares=wanted.shares, versions=wanted.versions))

    after = await site.plane.observe()
    assert after.shares == before.shares
    assert {await site.ask() for _ in range(10)} == {"200 a"}


@on_each_release
async def test_another_router_takes_over_without_a_reload(site, make_state):
    a, b = site.app("a"), site.app("b")
    wanted = make_state({"v1": 9_000, "v2": 1_000}, v1=[a.server()], v2=[b.server()])
    await site.plane.start(RoutingState())
    await site.converge(wanted)
    identity = (site.folder / "process.json").read_bytes()

    site.plane = site.another_plane()
    await site.plane.start(wanted)

    assert (site.folder / "process.json").read_bytes() == identity
    assert (await site.plane.observe()).shares == wanted.shares
    assert site.plane.reloads == 0
    assert (await site.converge(make_state({"v2": 10_000}, v2=[b.server()]))).shares == {"v2": 10_000}


@on_each_release
async def test_more_versions_than_lanes_take_one_reload_that_costs_nothing(site, make_state):
    apps = {f"v{number}": site.app(f"a{number}") for number in range(9)}
    first = {name: app for name, app in apps.items() if name != "v8"}
    await site.plane.start(
        make_state({"v0": 10_000}, **{name: [app.server()] for name, app in first.items()})
    )
    answers = Counter()
    stop = asyncio.Event()

    async def client():
        reader, writer = await asyncio.open_connection(*site.listen)
        while not stop.is_set():
            writer.write(b"GET / HTTP/1.1\r\nHost: goat\r\n\r\n")
            head = await reader.readuntil(b"\r\n\r\n")
            assert b"ength: 2\r\n" in head, head
            answers[await reader.readexactly(2)] += 1
            if b"onnection: close" in head:
                writer.close()
                reader, writer = await asyncio.open_connection(*site.listen)
        writer.close()

    async with asyncio.TaskGroup() as tasks:
        for _ in range(8):
            tasks.create_task(client())
        all_of_them = {name: [app.server()] for name, app in apps.items()}
        await site.converge(make_state({"v8": 10_000}, **all_of_them))
        await site.eventually(lambda: answers[b"a8"] > 50)
        stop.set()

    assert site.plane.reloads == 1
    assert set(answers) <= {b"a0", b"a8"}


async def test_a_port_that_somebody_has_is_refused_before_haproxy_shares_it(site, make_state):
    other = await asyncio.start_server(lambda _, writer: writer.close(), *site.listen)

    with pytest.raises(PortTaken, match=str(site.listen[1])):
        await site.plane.start(RoutingState())

    other.close()
    await other.wait_closed()


async def test_a_hung_haproxy_is_an_error_in_bounded_time_and_then_followed_again(site, make_state):
    a = site.app("a")
    wanted = make_state({"v1": 10_000}, v1=[a.server()])
    await site.plane.start(wanted)
    group = msgspec.json.decode((site.folder / "process.json").read_bytes(), type=Identity).pid
    os.killpg(group, signal.SIGSTOP)

    with pytest.raises(DataPlaneError, match="does not answer"):
        await site.plane.observe()

    os.killpg(group, signal.SIGCONT)
    assert (await site.plane.observe()).shares == wanted.shares


async def test_the_stats_page_names_servers_by_version_and_instance(site, make_state):
    a = site.app("goat-0.0.1-host-8101")
    await site.plane.start(make_state({"0.0.1": 10_000}, **{"0.0.1": [a.server()]}))

    reader, writer = await asyncio.open_connection(*site.stats)
    writer.write(b"GET /monitor HTTP/1.0\r\n\r\n")
    page = (await reader.read()).decode()
    writer.close()

    assert "goat-0.0.1-host-8101" in page
    assert "milkrun: lb-goat" in page


@pytest.mark.parametrize("versions", [["v1", "v1"], ["v1", "v2"]])
async def test_a_get_that_the_killed_instance_had_not_read_is_sent_again(site, make_state, versions):
    """Its kernel answers with a reset instead of an end, which HAProxy treats apart."""
    a, b = site.app("a"), site.app("b")
    servers = {version: [] for version in versions}
    for version, app in zip(versions, (a, b), strict=True):
        servers[version].append(app.server())
    await site.plane.start(make_state({version: 10_000 // len(servers) for version in servers}, **servers))
    a.process.send_signal(signal.SIGSTOP)

    async with asyncio.TaskGroup() as tasks:
        gets = [tasks.create_task(site.ask()) for _ in range(40)]

        async with asyncio.timeout(10):
            while in_flight(await site.plane.observe()) < 5:
                await asyncio.sleep(0.01)
        a.kill()

    assert Counter(get.result() for get in gets) == {"200 b": 40}


async def test_a_get_outlives_many_dying_connections(site, make_state):
    """A killed instance's connections end one after the other; each try may get one of them."""
    from milkrun.model import InstanceId
    from milkrun.router.desired import Server

    tries = 0

    async def dying(reader, writer):
        nonlocal tries
        await reader.readuntil(b"\r\n\r\n")
        tries += 1
        if tries == 10:
            server.close()
        writer.close()

    server = await asyncio.start_server(dying, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    b = site.app("b")
    dead = Server(id=InstanceId("dead"), address="127.0.0.1", port=port)
    await site.plane.start(make_state({"v1": 9_999, "v2": 1}, v1=[dead], v2=[b.server()]))

    assert await site.ask() == "200 b"
    assert tries == 10
