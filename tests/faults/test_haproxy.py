"""F24 to F27: HAProxy dies, does not answer, is reloaded without end, or is given a file that it refuses."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from pathlib import Path

import pytest
from ports import free_port

from milkrun.errors import DataPlaneError
from milkrun.router.haproxy import binary, parse, plane
from milkrun.router.haproxy.process import Process

from .conftest import SOAK
from .herd import worker_of


@pytest.mark.parametrize("victim", ["worker", "master"])
async def test_f24_haproxy_is_killed(herd, chance, victim):
    """It comes back by itself as it was. What was in flight is lost, connections are refused: nothing else is seen."""
    await herd.three()
    async with herd.router():
        await herd.weigh(2, {"0.0.1": chance.randrange(1, 100), "0.0.2": 50})
        before = await herd.follows(2)
        async with herd.load():
            await herd.more(chance.randrange(10, 40))
            master = herd.master()
            os.kill(worker_of(master) if victim == "worker" else master, signal.SIGKILL)
            await herd.until(lambda: herd.master() != master)
            await herd.answering()
            await herd.more(20)
        assert not [why for why in herd.figures.failures if why.startswith("HTTP")], herd.figures.failures
        assert herd.figures.duplicated == 0
        async with herd.load():
            await herd.more(40)
        herd.proved()
        after = await herd.follows(2)
    shares = [{name: each.share for name, each in report.versions.items()} for report in (before, after)]
    assert shares[0] == shares[1]
    assert after.reloads == 0


@contextlib.asynccontextmanager
async def another_behind(socket: Path, answer):
    """Somebody else answers on HAProxy's socket meanwhile."""
    real = socket.with_suffix(".real")
    socket.rename(real)
    server = await asyncio.start_unix_server(answer, socket)
    try:
        yield
    finally:
        server.close()
        socket.unlink()
        real.rename(socket)


async def test_f25_haproxys_socket_makes_no_sense(herd, chance):
    """Traffic flows, that nothing can be told is said, nothing is reloaded; then the router follows again."""
    hows = chance.sample(["garbage", "silence", "hanging up", "an error"], 4)

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            await reader.read(100)
            match hows[-1]:
                case "garbage":
                    writer.write(chance.randbytes(chance.randrange(1, 3000)))
                case "an error":
                    writer.write(b"Permission denied\n\n")
                case "silence":
                    await reader.read()
            await writer.drain()
        writer.close()

    await herd.three()
    async with herd.router(), herd.load():
        report = await herd.follows(1)
        while hows:
            generation = report.generation + 1
            async with another_behind(herd.state / "admin.sock", answer):
                await herd.weigh(generation, {"0.0.1": 50, "0.0.2": chance.randrange(1, 100)})
                report = await herd.reported(lambda report: report.drift)
                assert report.generation < generation
                await herd.more(20)
            report = await herd.follows(generation)
            hows.pop()
    herd.proved()
    assert report.reloads == 0


async def test_f25_idle_clients_hold_haproxys_socket(herd, chance):
    await herd.three()
    async with herd.router(), herd.load(), contextlib.AsyncExitStack() as stack:
        await herd.follows(1)
        for _ in range(chance.randrange(10, 20)):
            _, writer = await asyncio.open_unix_connection(herd.state / "admin.sock")
            stack.callback(writer.close)
            writer.write(b"prompt\n")
        await herd.weigh(2, {"0.0.1": 50, "0.0.2": 50})
        await herd.follows(2)
    herd.proved()


@contextlib.asynccontextmanager
async def long_requests(herd, count: int):
    """So many requests are in flight, on connections of their own, until they are let go: then each is answered."""
    writers = []
    readers = []
    for goat in herd.goats.values():
        goat.gate.clear()
    for _ in range(count):
        reader, writer = await asyncio.open_connection(*herd.listen)
        writer.write(b"GET / HTTP/1.1\r\nHost: goat\r\nConnection: close\r\n\r\n")
        readers.append(reader)
        writers.append(writer)
    await herd.until(lambda: sum(goat.held for goat in herd.goats.values()) >= count)
    try:
        yield readers
    finally:
        for goat in herd.goats.values():
            goat.gate.set()
        for writer in writers:
            writer.close()


async def test_f26_changes_need_no_worker_of_their_own(herd, chance):
    """However many, while long requests run: no reload, one worker, and each long request is answered."""
    await herd.three()
    async with herd.router():
        await herd.follows(1)
        async with long_requests(herd, 100 if SOAK else 20) as readers:
            for number in range(500 if SOAK else 10):
                await herd.goat(f"x{number}", "0.0.1")
                await herd.weigh(number + 2, {"0.0.1": chance.randrange(1, 100), "0.0.2": 50})
                report = await herd.reported(lambda report, wanted=number + 2: report.generation == wanted)
                await herd.registry.maintenance(f"x{number}", enable=True)
                await herd.registry.deregister(f"x{number}")
            running = await workers(herd)
            for goat in herd.goats.values():
                goat.gate.set()
            heads = [(await asyncio.wait_for(reader.read(), 60))[:15] for reader in readers]
        assert set(heads) == {b"HTTP/1.1 200 Sa"}
        assert (report.reloads, len(running)) == (0, 1)


async def test_f26_old_workers_do_not_pile_up(herd, chance, monkeypatch):
    """Each reload leaves a worker behind that has a long request: there are never more than the limit."""
    render = plane.config.render
    limited = "mworker-max-reloads 2"
    monkeypatch.setattr(
        plane.config, "render", lambda *given: render(*given).replace("mworker-max-reloads 8", limited)
    )
    await herd.three()
    most = 0
    async with herd.router(), contextlib.AsyncExitStack() as stack:
        await herd.follows(1)
        for _ in range(5):
            await stack.enter_async_context(long_requests(herd, chance.randrange(1, 4)))
            await stands_anew(herd)
            most = max(most, len(await workers(herd)))
        assert limited in (herd.state / "haproxy.cfg").read_text()
    assert 2 <= most <= 4


async def stands_anew(herd) -> None:
    """The stats page is at another port, which takes a reload, and that is done."""
    port = free_port()
    await herd.settle(stats=f"127.0.0.1:{port}")
    await herd.reported(lambda report: f":{port}/" in report.stats and report.instances and not report.drift)


async def workers(herd) -> list[int]:
    """The pids of all workers. While the master starts itself anew, as each reload makes it do, it does not say."""
    process = Process(herd.state, binary.find())
    assert process.adopt()
    async with asyncio.timeout(60):
        while True:
            with contextlib.suppress(DataPlaneError):
                return parse.workers(await process.master.ask("show proc", half_close=True))
            await asyncio.sleep(0.02)


BAD = [
    "nonsense here",
    "backend broken\n  server x 127.0.0.1:1 check disabled enabled nothing",
    "frontend broken\n  bind 127.0.0.1:0\n  use_backend nowhere",
    "defaults\n  timeout connect never",
]


async def test_f27_a_file_that_haproxy_refuses(herd, chance, monkeypatch):
    """The running one serves on and still takes weights; it is said; the next good file is taken."""
    await herd.three()
    render = plane.config.render
    bad = chance.choice(BAD)
    async with herd.router(), herd.load():
        await herd.follows(1)
        master = herd.master()
        monkeypatch.setattr(plane.config, "render", lambda *given: f"{render(*given)}\n{bad}\n")
        await herd.settle(stats=f"127.0.0.1:{free_port()}")
        report = await herd.reported(lambda report: report.alarms)
        assert "refuses its file" in report.alarms[0]
        await herd.more(20)
        monkeypatch.setattr(plane.config, "render", render)
        await stands_anew(herd)
        await herd.weigh(2, {"0.0.1": 50, "0.0.2": 50})
        report = await herd.follows(2)
        await herd.more(20)
        assert herd.master() == master
    herd.proved()
    assert report.alarms == []
