"""Whatever dies, requests are answered: the router, Envoy, an instance; and what Envoy refuses changes nothing."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from pathlib import Path

import grpc
import msgspec
import pytest
from envoy.config.cluster.v3.cluster_pb2 import Cluster
from envoy.service.discovery.v3 import ads_pb2_grpc
from envoy.service.discovery.v3.discovery_pb2 import DiscoveryRequest

from milkrun.errors import DataPlaneError, PortTaken
from milkrun.host.process import Identity
from milkrun.router import disk
from milkrun.router.diff import diff
from milkrun.router.envoy import clusters, plane
from milkrun.router.envoy.resources import Kind
from milkrun.settings.service import TrafficSettings

from .conftest import GOAT, App, asked, converge, load, state

KILLS = 20 if os.environ.get("MILKRUN_SOAK") == "1" else 3
ROUTER = """
import asyncio, itertools, sys
from pathlib import Path
import msgspec
from milkrun.router.desired import RoutingState
from milkrun.router.diff import diff
from milkrun.router.envoy.binary import find
from milkrun.router.envoy.plane import Envoy
from milkrun.router.front import Front

async def main():
    folder, front, state = sys.argv[1:]
    wanted = msgspec.json.decode(state, type=RoutingState)
    envoy = Envoy(Path(folder), find(), msgspec.json.decode(front, type=Front))
    await envoy.start({"goat": wanted})
    print("stands", flush=True)
    for share in itertools.cycle(range(1_000, 9_000, 7)):  # it is killed in the middle of a change
        other = msgspec.structs.replace(wanted, shares={"a": share, "b": 10_000 - share})
        await envoy.of("goat").apply(diff(await envoy.of("goat").observe(), other), other)

asyncio.run(main())
"""


def pid(stand) -> int:
    known = disk.load(stand.folder / "envoy.process.json", Identity)
    assert known
    return known.pid


def one(apps) -> object:
    return state({"a": 10_000}, a=[apps["a1"].server()])


async def test_routers_come_and_go_under_load_and_nobody_notices(stand, apps):
    both = state({"a": 5_000, "b": 5_000}, a=[apps["a1"].server()], b=[apps["b1"].server()])
    await stand.start(both)
    first = pid(stand)

    async with load(stand.url) as kept, load(stand.url, keep=False) as single:
        for turn in range(20):
            envoy = await stand.start(both)
            await kept.more(5)
            share = 1_000 + turn
            other = msgspec.structs.replace(both, shares={"a": share, "b": 10_000 - share})
            observed = await converge(envoy, other)
            assert observed.shares == other.shares
            await single.more(5)

    assert (kept.failed, single.failed) == ({}, {})
    assert pid(stand) == first


async def test_a_router_that_is_killed_leaves_envoy_serving_what_it_was_told(stand, apps):
    wanted = state({"a": 2_500, "b": 7_500}, a=[apps["a1"].server()], b=[apps["b1"].server()])
    arguments = [str(stand.folder), msgspec.json.encode(stand.front).decode()]
    arguments.append(msgspec.json.encode(wanted).decode())
    first = 0
    async with contextlib.AsyncExitStack() as callers:
        loads = []
        for _ in range(KILLS):
            router = await asyncio.create_subprocess_exec(
                *(sys.executable, "-c", ROUTER, *arguments), stdout=asyncio.subprocess.PIPE
            )
            callers.callback(_killed, router)
            assert router.stdout
            while line := await router.stdout.readline():  # others are its log
                if line == b"stands\n":
                    break
            assert line
            if not loads:
                first = pid(stand)
                loads = [
                    await callers.enter_async_context(load(stand.url, keep=keep)) for keep in (True, False)
                ]
            await loads[0].more(50)
            router.kill()
            await router.wait()
            await loads[1].more(50)
        envoy = await stand.start(state({}))  # the next router knows nothing: Envoy's own memory counts
        await loads[0].more(50)

    assert [each.failed for each in loads] == [{}, {}]
    assert set(loads[0].answers) == {"a1", "b1"}
    assert pid(stand) == first
    told = disk.load(stand.folder / "envoy.plane.json", plane.Memory)
    assert told
    assert diff(await envoy.of(GOAT).observe(), told.told[GOAT]) == []
    assert sum(told.told[GOAT].shares.values()) == 10_000


def _killed(process: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.kill()


async def test_an_envoy_that_is_killed_is_back_with_what_it_served(stand, apps):
    wanted = state({"a": 5_000, "b": 5_000}, a=[apps["a1"].server()], b=[apps["b1"].server()])
    envoy = await stand.start(wanted)
    os.kill(pid(stand), signal.SIGKILL)
    while await envoy.alive():
        await asyncio.sleep(0.01)

    await envoy.start({GOAT: wanted})

    assert await envoy.alive()
    async with load(stand.url) as callers:
        await callers.more(50)
    assert (callers.failed, set(callers.answers)) == ({}, {"a1", "b1"})


async def test_an_instance_that_dies_costs_no_get_and_is_seen_to_be_down(stand, apps):
    envoy = await stand.start(state({"a": 10_000}, a=[apps["a1"].server(), apps["a2"].server()]))

    async with load(stand.url) as kept, load(stand.url, keep=False) as single:
        await kept.more(50)
        await apps["a1"].kill()
        while (await envoy.of(GOAT).observe()).versions["a"]["a1"].up:
            await asyncio.sleep(0.01)
        await kept.more(50)
        await apps["a1"].start()
        while not (await envoy.of(GOAT).observe()).versions["a"]["a1"].up:
            await asyncio.sleep(0.01)
        before = kept.answers["a1"]
        while kept.answers["a1"] == before:
            await kept.more(1)

    assert (kept.failed, single.failed) == ({}, {})


async def test_a_versions_last_instance_dies_and_the_others_serve_for_it(stand, apps):
    await stand.start(state({"a": 5_000, "b": 5_000}, a=[apps["a1"].server()], b=[apps["b1"].server()]))

    async with load(stand.url) as kept, load(stand.url, keep=False) as single:
        await kept.more(50)
        await apps["a1"].kill()
        await kept.more(300)
        await single.more(300)

    assert (kept.failed, single.failed) == ({}, {})


async def test_without_the_spare_servers_they_do_not(stand, apps, monkeypatch):
    """The guard of the test above, taken away."""
    monkeypatch.setattr(clusters, "_spare", lambda state, version: [])
    await stand.start(state({"a": 5_000, "b": 5_000}, a=[apps["a1"].server()], b=[apps["b1"].server()]))

    async with load(stand.url, keep=False) as single:
        await apps["a1"].kill()
        await single.more(100)

    assert single.failed


async def test_a_post_that_may_have_arrived_is_never_sent_again_and_a_get_is(stand, apps):
    await stand.start(state({"a": 10_000}, a=[apps["a1"].server(), apps["a2"].server()]))
    apps["a1"].breaks = apps["a2"].breaks = True

    async with load(stand.url, method="POST", keep=False, callers=1) as posts:
        await posts.more(10)

    asked = apps["a1"].asked + apps["a2"].asked
    assert len(asked) == len(set(asked)) == posts.sent
    assert sum(posts.failed.values()) == posts.sent
    apps["a2"].breaks = False
    async with load(stand.url, callers=1) as gets:
        await gets.more(10)
    assert gets.failed == {}


async def test_what_envoy_refuses_is_taken_back_and_said(stand, apps, monkeypatch):
    good = one(apps)
    envoy = await stand.start(good)
    bad = msgspec.structs.replace(apps["b1"].server(), port=70_000)
    monkeypatch.setattr(clusters, "endpoint", lambda host, port: (host, port))
    wanted = state({"a": 5_000, "b": 5_000}, a=[apps["a1"].server()], b=[bad])

    async with load(stand.url) as kept:
        with pytest.raises(DataPlaneError, match=r"Envoy refuses its endpoints: (?s:.*)70000"):
            await envoy.of(GOAT).apply(diff(await envoy.of(GOAT).observe(), wanted), wanted)
        await kept.more(20)

        assert diff(await envoy.of(GOAT).observe(), good) == []
        other = state({"b": 10_000}, b=[apps["b1"].server()])
        assert (await converge(envoy, other)).shares == other.shares
        await kept.more(20)
    assert kept.failed == {}


async def test_what_is_no_address_is_not_told_to_envoy(stand, apps):
    envoy = await stand.start(one(apps))
    bad = msgspec.structs.replace(apps["b1"].server(), address="127.0.0.1;quit")
    wanted = state({"a": 10_000}, a=[apps["a1"].server()], b=[bad])

    with pytest.raises(DataPlaneError, match="not told to Envoy"):
        await envoy.of(GOAT).apply(diff(await envoy.of(GOAT).observe(), wanted), wanted)

    assert diff(await envoy.of(GOAT).observe(), one(apps)) == []


async def test_a_hung_envoy_is_an_error_in_bounded_time_and_then_followed_again(stand, apps, monkeypatch):
    envoy = await stand.start(one(apps))
    monkeypatch.setattr("milkrun.router.envoy.admin.REPLY_WAIT_S", 0.2)
    os.kill(pid(stand), signal.SIGSTOP)
    try:
        with pytest.raises(DataPlaneError):
            await envoy.of(GOAT).observe()
    finally:
        os.kill(pid(stand), signal.SIGCONT)
    both = state({"a": 10_000}, a=[apps["a1"].server(), apps["a2"].server()])
    assert diff(await converge(envoy, both), both) == []


async def test_a_port_that_somebody_has_is_refused_before_envoy_shares_it(stand, apps):
    other = App("other")
    other.port = stand.front.listen[1]
    await other.start()
    try:
        with pytest.raises(PortTaken):
            await stand.start(one(apps))
    finally:
        await other.kill()


async def test_envoy_is_found_again_when_the_router_died_before_it_wrote_down_which_it_is(stand, apps):
    await stand.start(one(apps))
    first = pid(stand)
    (stand.folder / "envoy.process.json").unlink()

    await stand.start(one(apps))

    assert pid(stand) == first


@pytest.mark.parametrize("file", ["envoy.plane.json", "envoy.process.json"])
async def test_a_damaged_file_does_not_keep_the_router_from_its_work(stand, apps, file):
    await stand.start(one(apps))
    (stand.folder / file).write_bytes(b"\xff{")

    envoy = await stand.start(one(apps))

    assert diff(await envoy.of(GOAT).observe(), one(apps)) == []


async def test_envoys_log_does_not_grow_for_ever(stand, apps, monkeypatch):
    envoy = await stand.start(one(apps))
    log: Path = stand.folder / "envoy.log"
    monkeypatch.setattr("milkrun.router.apart.LOG_BYTES_AT_MOST", 1000)
    with log.open("a") as file:
        file.write("x" * 2000)

    await envoy.of(GOAT).apply([], one(apps))

    assert log.stat().st_size == 0
    assert (stand.folder / "envoy.log.1").stat().st_size >= 2000


async def test_nobody_else_may_open_its_sockets_or_read_what_is_kept(stand, apps):
    await stand.start(one(apps))

    modes = {path.name: path.stat().st_mode & 0o077 for path in stand.folder.iterdir()}

    assert {"ads.sock", "admin.sock", "envoy.json", "envoy.log", plane.MEMORY_FILE} <= modes.keys()
    assert set(modes.values()) == {0}


async def test_a_request_on_which_nothing_moves_is_cut_off(stand, apps, session):
    services = {GOAT: TrafficSettings(idle_limit_s=1.0)}
    await stand.start(one(apps), msgspec.structs.replace(stand.front, services=services))
    apps["a1"].gate.clear()

    async with session.get(f"{stand.url}/long") as answer:
        assert answer.status == 504

    apps["a1"].gate.set()
    assert (await asked(session, stand.url, "/"))[0] == 200


async def test_a_cluster_that_is_made_anew_warms_and_costs_no_request(stand, apps):
    """A changed cluster waits in Envoy for its endpoints, which it does not ask for again (envoy#13072)."""
    wanted = state({"a": 5_000, "b": 5_000}, a=[apps["a1"].server()], b=[apps["b1"].server()])
    await stand.start(wanted)

    async with load(stand.url) as kept, load(stand.url, keep=False) as single:
        for balance in ("least-connections", "two-choices", "round-robin"):
            services = {GOAT: TrafficSettings(balance=balance)}
            envoy = await stand.start(wanted, msgspec.structs.replace(stand.front, services=services))
            assert envoy.behind == ""
            await kept.more(20)
            await single.more(20)

    assert (kept.failed, single.failed) == ({}, {})
    assert diff(await envoy.of(GOAT).observe(), wanted) == []


async def test_another_envoy_gets_the_same_and_what_it_refuses_is_its_own_business(stand, apps):
    envoy = await stand.start(one(apps))
    socket = stand.folder / "ads.sock"
    folder = os.open(stand.folder, os.O_PATH | os.O_DIRECTORY)
    try:
        async with grpc.aio.insecure_channel(f"unix:/proc/self/fd/{folder}/{socket.name}") as channel:
            stream = ads_pb2_grpc.AggregatedDiscoveryServiceStub(channel).StreamAggregatedResources()
            await stream.write(DiscoveryRequest(node={"id": "another"}, type_url="of no kind"))
            await stream.write(DiscoveryRequest(node={"id": "another"}, type_url=Kind.CLUSTERS.value))
            answer = await stream.read()
            assert [Cluster.FromString(each.value).name for each in answer.resources] == ["goat/a"]
            await stream.write(
                DiscoveryRequest(
                    type_url=Kind.CLUSTERS.value, response_nonce=answer.nonce, error_detail={"message": "no"}
                )
            )

            both = state({"a": 10_000}, a=[apps["a1"].server(), apps["a2"].server()])
            assert diff(await converge(envoy, both), both) == []
            stream.cancel()
    finally:
        os.close(folder)
    assert diff(await converge(envoy, one(apps)), one(apps)) == []
