"""What goes wrong on the router's own host: HAProxy hung or dead, ports taken, disk refused, the router killed."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections import Counter

import pytest
import structlog
from ports import free_port

from milkrun.consul import Address, keys
from milkrun.errors import PortTaken
from milkrun.model import ServiceName
from milkrun.router import daemon, disk, standing
from milkrun.router.desired import Mode
from milkrun.router.haproxy import binary, plane
from milkrun.router.haproxy.process import Process


async def keep_alive(addresses, answers: Counter, stop: asyncio.Event) -> None:
    """A client that keeps its connection as long as it is told to, and counts what it got.

    When the address refuses it goes on at the next one.
    """

    async def connect():
        for address in addresses:
            with contextlib.suppress(ConnectionRefusedError):
                return await asyncio.open_connection(*address)
        raise ConnectionRefusedError

    reader, writer = await connect()
    while not stop.is_set():
        writer.write(b"GET / HTTP/1.1\r\nHost: goat\r\n\r\n")
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            body = await reader.readexactly(int(head.lower().split(b"content-length: ")[1].split()[0]))
            answers[body.decode() if head.startswith(b"HTTP/1.1 200") else head.split()[1].decode()] += 1
        except (asyncio.IncompleteReadError, ConnectionError):
            answers["lost"] += 1
            head = b"connection: close"
        if b"connection: close" in head.lower():
            writer.close()
            reader, writer = await connect()
    writer.close()


# The router itself


@contextlib.asynccontextmanager
async def a_router_process(fleet):
    command = [sys.executable, "-m", "milkrun", "router", "lb-goat", "--registry", fleet.between.url]
    process = await asyncio.create_subprocess_exec(
        *command, "--state", str(fleet.state), cwd=fleet.state.parent, stderr=asyncio.subprocess.DEVNULL
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


async def test_a_killed_router_leaves_haproxy_serving_and_its_successor_takes_it_over(fleet):
    await fleet.goat("a", "0.0.1")
    await fleet.goat("b", "0.0.2")
    await fleet.weigh(1, {"0.0.1": 100, "0.0.2": 0})
    async with a_router_process(fleet) as process:
        await fleet.serves("a", "b")
        master = fleet.master()
        process.kill()
        await process.wait()
    assert set(await fleet.answers()) == {"a"}

    await fleet.weigh(2, {"0.0.1": 0, "0.0.2": 100})
    assert set(await fleet.answers()) == {"a"}
    async with a_router_process(fleet) as process:
        report = await fleet.reported(lambda report: report.generation == 2 and not report.drift)
        assert report.reloads == 0
        assert fleet.master() == master
        assert set(await fleet.answers()) == {"b"}
    assert process.returncode is not None
    assert not (fleet.state / "process.json").exists()


async def test_a_router_that_is_stopped_before_it_knows_where_it_stands_ends_what_a_former_one_left(
    fleet, monkeypatch
):
    await fleet.goat("a", "0.0.1")
    async with a_router_process(fleet) as process:
        await fleet.serves("a")
        process.kill()
        await process.wait()
    assert (fleet.state / "process.json").exists()
    asked = asyncio.Event()

    async def never(*_):
        asked.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(standing, "first", never)
    async with asyncio.timeout(60), asyncio.TaskGroup() as tasks:
        router = tasks.create_task(
            daemon.run(
                Address(url=fleet.between.url),
                name="lb-goat",
                host="shed",
                state_dir=fleet.state,
                handover=asyncio.Event(),
            )
        )
        await asked.wait()
        router.cancel()

    assert not (fleet.state / "process.json").exists()
    assert await fleet.registry.entries(keys.ROUTER_REPORTS) == []


async def test_haproxy_is_found_again_when_the_router_died_before_it_wrote_down_which_it_is(fleet):
    await fleet.goat("a", "0.0.1")
    async with fleet.router(hand_over=True):
        await fleet.serves("a")
    master = fleet.master()
    (fleet.state / "process.json").unlink()

    async with fleet.router():
        await fleet.goat("b", "0.0.1")
        report = await fleet.serves("a", "b")
        assert fleet.master() == master
        assert report.reloads == 0


async def test_a_stopped_router_is_out_of_the_registry_and_its_haproxy_is_gone(fleet):
    a = await fleet.goat("a", "0.0.1")
    async with asyncio.TaskGroup() as tasks:
        async with fleet.router():
            await fleet.serves("a")
            a.gate.clear()
            long = tasks.create_task(fleet.ask())
            await a.entered.wait()
            fleet.when_refused(tasks, a.gate.set)
        assert await long == "a", "what was in flight has ended"
    assert (await fleet.registry.health(ServiceName("lb-goat")))[0] == []
    assert await fleet.registry.entries("milkrun/reports/routers/") == []
    with pytest.raises(ConnectionRefusedError):
        await fleet.ask()


# Settings


async def test_a_new_port_in_the_settings_costs_no_request_and_leaves_no_moment_without_a_report(fleet):
    await fleet.goat("a", "0.0.1")
    fresh = free_port()
    answers, stop = Counter(), asyncio.Event()
    async with fleet.router(), asyncio.TaskGroup() as tasks:
        former = await fleet.serves("a")
        tasks.create_task(keep_alive([fleet.listen, ("127.0.0.1", fresh)], answers, stop))
        master = fleet.master()
        fleet.between.log.clear()

        await fleet.settle(listen=f"127.0.0.1:{fresh}")

        report = await fleet.reported(
            lambda report: report.listen == f"127.0.0.1:{fresh}" and report.instances
        )
        assert await fleet.ask(fresh) == "a"
        assert fleet.master() == master
        assert report.router != former.router
        await fleet.gone(former.router)
        stop.set()
    log = fleet.between.log
    reported = log.index(("PUT", f"/v1/kv/milkrun/reports/routers/goat/{report.router}"))
    assert reported < log.index(("DELETE", f"/v1/kv/milkrun/reports/routers/goat/{former.router}"))
    assert reported < log.index(("PUT", f"/v1/agent/service/deregister/{former.router}"))
    assert not any(path.startswith("/v1/session/destroy") for _, path in log[:reported])
    assert answers["a"]
    assert answers["lost"] == 0


async def test_a_new_port_that_somebody_has_is_an_alarm_and_taken_over_when_it_is_free(fleet):
    await fleet.goat("a", "0.0.1")
    fresh = free_port()
    other = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", fresh)
    async with fleet.router():
        await fleet.serves("a")

        await fleet.settle(listen=f"127.0.0.1:{fresh}")

        report = await fleet.reported(lambda report: report.alarms)
        assert f"cannot listen on 127.0.0.1:{fresh}" in report.alarms[0]
        assert report.reloads == 0
        await fleet.goat("b", "0.0.1")
        await fleet.serves("a", "b")
        assert set(await fleet.answers()) == {"a", "b"}
        other.close()
        await other.wait_closed()
        await fleet.reported(lambda report: not report.alarms and report.reloads == 1)
        assert await fleet.ask(fresh) in ("a", "b")


async def test_a_taken_port_at_the_start_surfaces_as_itself(fleet):
    other = await asyncio.start_server(lambda _, writer: writer.close(), *fleet.listen)

    with pytest.raises(PortTaken, match=str(fleet.listen[1])):
        await daemon.run(
            Address(url=fleet.between.url),
            name="lb-goat",
            host="shed",
            state_dir=fleet.state,
            handover=asyncio.Event(),
        )

    other.close()
    await other.wait_closed()
    async with fleet.router():
        await fleet.goat("a", "0.0.1")
        await fleet.serves("a")


async def test_another_service_under_the_same_router_takes_nothing_of_the_former_along(fleet):
    await fleet.goat("a", "0.0.1")
    async with fleet.router():
        former = await fleet.serves("a")

        await fleet.settle(service="cow")

        async with asyncio.timeout(20):
            while await fleet.ask() != "503":
                await asyncio.sleep(0.01)
        await fleet.gone(former.router, service="goat")
        await fleet.settle()
        await fleet.serves("a")
        assert await fleet.ask() == "a"


async def test_every_address_can_be_listened_on(fleet):
    await fleet.goat("a", "0.0.1")
    await fleet.settle(listen=f"0.0.0.0:{fleet.listen[1]}", stats=f"[::]:{fleet.stats[1]}")
    async with fleet.router():
        await fleet.serves("a")
        assert await fleet.ask() == "a"
        entries, _ = await fleet.registry.health(ServiceName("lb-goat"))
        assert entries[0].service.address == "", "callers are given the node's address"


# HAProxy


async def test_haproxy_starts_right_from_its_folder_with_nobody_there(site, make_state):
    """I1: the files are written before HAProxy is told anything, so they are what it last served."""
    a, b = site.app("a"), site.app("b")
    await site.plane.start(make_state({}))
    wanted = make_state({"v2": 10_000}, v1=[a.server()], v2=[b.server()])
    before = await site.converge(wanted)
    process = Process(site.folder, binary.find())
    assert process.adopt()
    os.killpg(process.pid, signal.SIGKILL)
    await site.eventually(lambda: not process.running())

    await process.start([])

    assert (await site.plane.observe()).shares == before.shares
    assert {await site.ask() for _ in range(10)} == {"200 b"}
    assert site.plane.reloads == 0
    await process.stop()


async def test_a_haproxy_that_has_just_started_is_stopped_without_a_word(site, make_state, monkeypatch):
    """Its master loses signals at first, and has nothing in flight that a warning could be about."""
    monkeypatch.setattr("milkrun.router.apart.STOP_WAIT_S", 5.0)
    with structlog.testing.capture_logs() as said:
        for _ in range(8):
            await site.plane.start(make_state({}))
            await site.plane.stop()
            assert not await site.plane.alive()
    assert said == []


async def test_a_hung_haproxy_is_told_as_drift_and_followed_again(fleet):
    await fleet.goat("a", "0.0.1")
    await fleet.goat("resting", "0.0.1")
    await fleet.registry.maintenance("resting", enable=True)
    async with fleet.router():
        await fleet.reported(lambda report: report.instances.get("resting") and not report.drift)
        os.killpg(fleet.master(), signal.SIGSTOP)
        try:
            report = await fleet.reported(lambda report: report.drift)
            assert "does not answer" in report.drift[0]
            assert all(seen.state != "drained" for seen in report.instances.values())
        finally:
            os.killpg(fleet.master(), signal.SIGCONT)
        await fleet.goat("b", "0.0.1")
        await fleet.serves("a", "b")


async def test_idle_clients_on_the_runtime_socket_do_not_shut_the_router_out(fleet):
    """M7: HAProxy's default lets ten of them block everybody."""
    await fleet.goat("a", "0.0.1")
    async with fleet.router(), contextlib.AsyncExitStack() as stack:
        await fleet.serves("a")
        for _ in range(12):
            _, writer = await asyncio.open_unix_connection(fleet.state / "admin.sock")
            stack.callback(writer.close)
            writer.write(b"prompt\n")

        await fleet.goat("b", "0.0.1")

        await fleet.serves("a", "b")


async def test_a_disk_that_refuses_is_told_as_drift_and_traffic_goes_on(fleet, monkeypatch):
    def full(path, data):
        raise OSError(28, "No space left on device")

    await fleet.goat("a", "0.0.1")
    async with fleet.router():
        await fleet.serves("a")
        monkeypatch.setattr(disk.files, "replace", full)

        await fleet.goat("b", "0.0.1")

        report = await fleet.reported(lambda report: report.drift)
        assert "cannot be written" in report.drift[0]
        assert set(await fleet.answers()) == {"a"}, "what is not on disk is not served"
        monkeypatch.undo()
        await fleet.serves("a", "b")


@pytest.mark.parametrize("file", ["goat.known.json", "plane.json", "process.json", "front.json", "session"])
async def test_a_damaged_file_does_not_keep_the_router_from_its_work(fleet, file):
    await fleet.goat("a", "0.0.1")
    async with fleet.router(hand_over=True):
        await fleet.serves("a")
        await fleet.has_session()
    master = fleet.master()
    (fleet.state / file).write_bytes(b"\xff{" + b"[" * 50_000)

    async with fleet.router():
        await fleet.goat("b", "0.0.1")
        async with asyncio.timeout(20):
            while await fleet.ask() != "b":  # its report may have to wait for the lost session to end
                await asyncio.sleep(0.01)
        assert set(await fleet.answers()) == {"a", "b"}
        assert fleet.master() == master


# Reloads that do not happen


async def test_a_refused_reload_is_due_until_it_succeeds(site, make_state, monkeypatch):
    from milkrun.errors import DataPlaneError

    apps = {f"v{number}": site.app(f"a{number}") for number in range(9)}
    versions = {name: [app.server()] for name, app in apps.items()}
    await site.plane.start(make_state({"v0": 10_000}, v0=versions["v0"]))
    good = plane.config.render
    monkeypatch.setattr(plane.config, "render", lambda *given: good(*given) + "\nnonsense here\n")
    with pytest.raises(DataPlaneError, match="refuses its file"):
        await site.converge(make_state({"v8": 10_000}, **versions))
    assert {await site.ask() for _ in range(10)} == {"200 a0"}, "the worker goes on with what it had"
    monkeypatch.setattr(plane.config, "render", good)

    for again in (site.plane, site.another_plane()):
        site.plane = again
        await site.plane.start(make_state({"v0": 10_000}, v0=versions["v0"]))
        observed = await site.converge(make_state({"v8": 10_000}, **versions))

        assert observed.shares == {"v8": 10_000}
        assert {await site.ask() for _ in range(10)} == {"200 a8"}
    assert site.plane.reloads == 1, "the second router finds it done by the first"


async def test_versions_that_still_drain_never_block_new_ones(site, make_state, tmp_path):
    """26 lanes: 20 versions with requests in flight leave, 20 others come."""
    a = site.app("a")
    names = [f"{number:02}" for number in range(40)]

    def versions(numbers):
        from msgspec.structs import replace

        return {names[number]: [replace(a.server(), id=f"i{number}")] for number in numbers}

    share = {names[number]: 500 for number in range(20)}
    await site.plane.start(make_state({}))
    await site.converge(make_state(share, **versions(range(20))))
    async with asyncio.TaskGroup() as tasks:
        long = [tasks.create_task(site.ask("/?for=2")) for _ in range(60)]
        await site.eventually(lambda: len(site.answered()) == 60)

        wanted = make_state({names[number]: 500 for number in range(20, 40)}, **versions(range(20, 40)))
        observed = await site.converge(wanted)

        assert observed.shares == wanted.shares
        assert await site.plane.former_workers() == 1
        assert await site.ask() == "200 a"
    assert {task.result() for task in long} == {"200 a"}


async def test_what_somebody_put_in_a_free_lane_or_the_map_by_hand_is_taken_out_again(site, make_state):
    a, b = site.app("a"), site.app("b")
    wanted = make_state({"v1": 10_000}, v1=[a.server()])
    await site.plane.start(wanted)
    ask = site.plane._process.admin.ask
    await ask(f"add server goat.f/b 127.0.0.1:{b.port};enable server goat.f/b")
    await ask("add map goat.map 20000:20010 goat.f;add map goat.map 30000 nowhere")
    strange = await site.plane.observe()
    assert len(strange.versions) == 2
    assert len(strange.shares) == 3

    observed = await site.converge(wanted)

    assert observed.shares == wanted.shares
    assert list(observed.versions) == ["v1"]
    assert site.plane.reloads == 0


async def test_who_was_out_of_service_when_haproxy_started_comes_and_goes_like_any_other(site, make_state):
    """HAProxy remembers for ever that its file said `disabled`: that is not what the server does."""
    a, b = site.app("a"), site.app("b")
    out = make_state({"v1": 10_000}, v1=[a.server(), b.server(Mode.DRAIN)])
    both = make_state({"v1": 10_000}, v1=[a.server(), b.server()])
    await site.plane.start(out)

    observed = await site.converge(both)
    assert observed.versions["v1"]["b"].server.mode is Mode.SERVE
    assert {await site.ask() for _ in range(10)} == {"200 a", "200 b"}
    observed = await site.converge(out)
    assert not observed.versions["v1"]["b"].takes
    assert {await site.ask() for _ in range(10)} == {"200 a"}


async def test_haproxys_log_does_not_grow_for_ever(site, make_state, monkeypatch):
    monkeypatch.setattr("milkrun.router.apart.LOG_BYTES_AT_MOST", 2_000)
    await site.plane.start(make_state({}))
    for _ in range(40):
        await site.plane._process.admin.ask("set server nowhere/nobody state maint;add server goat.a/x 1")
        await site.plane.apply([], make_state({}))
    await site.plane._process.admin.ask("add server goat.a/y 127.0.0.1:1")

    sizes = [path.stat().st_size for path in site.folder.glob("haproxy.log*")]
    assert len(sizes) == 2
    assert max(sizes) < 4_000
    assert "New server registered" in (site.folder / "haproxy.log").read_text()
