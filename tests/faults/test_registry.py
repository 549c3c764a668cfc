"""F6, F7, F8, F11, F20, F29: whatever the registry says or does not say, users notice nothing."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import resource
import signal
import sys
from pathlib import Path

import pytest
from aiohttp import web
from ports import free_port

from milkrun.consul import Address, keys

from .conftest import PLANES, PLANES_OF_LONG, SOAK
from .herd import a_herd
from .relay import Relay

WATCHED = ("/v1/health/service/goat", "/v1/kv/goat/")


@pytest.mark.parametrize("plane", PLANES)
async def test_f6_a_registry_that_is_away(herd, chance):
    """It goes and comes, goats are killed and join meanwhile; then its news is followed."""
    goats = await herd.three()
    async with herd.router(), herd.load():
        await herd.follows(1)
        await herd.more(chance.randrange(30))

        await herd.between.down()
        await herd.more(20)
        killed = goats[chance.choice("ab")]
        killed.kill()
        await herd.more(40)
        await herd.registry.deregister(killed.name)
        await herd.goat("d", "0.0.1")
        await herd.weigh(2, {"0.0.1": chance.randrange(1, 100), "0.0.2": 50})
        await herd.between.up()

        report = await herd.follows(2, *(set("abcd") - {killed.name}))
        await herd.more(20, "d")
    herd.proved()
    assert (report.reloads, report.held, report.alarms) == (0, [], [])


async def test_f6_haproxy_starts_again_while_the_registry_is_away(herd, chance):
    """Meanwhile connections are refused; before and after, nothing is lost."""
    await herd.three()
    async with herd.router():
        async with herd.load():
            await herd.follows(1)
            await herd.between.down()
            await herd.more(20)
        herd.proved()
        before = herd.master()
        os.killpg(before, signal.SIGKILL)
        await herd.until(lambda: herd.master() != before)
        async with herd.load():
            await herd.more(40)
        herd.proved()
        assert {share.version for share in herd.figures.shares} == {"0.0.1", "0.0.2"}
        await herd.between.up()
        generation = chance.randrange(2, 99)
        await herd.weigh(generation, {"0.0.1": 1, "0.0.2": 1})
        await herd.follows(generation)


def distorted(chance: random.Random):
    """The truth once, then something that looks like it: cut, emptied, of another shape, or with parts missing."""

    def body(truth: bytes) -> tuple[int, bytes]:
        match chance.randrange(7):
            case 0:
                return 200, truth[: chance.randrange(len(truth))]
            case 1:
                return 200, b"[]"
            case 2:
                return 500, b"No cluster leader"
            case 3:
                return chance.choice([301, 403, 429, 502]), b"<html>"
            case 4:
                return 200, json.dumps([one for one in json.loads(truth) if chance.random() < 0.7]).encode()
            case 5:
                return 200, chance.randbytes(chance.randrange(200))
            case _:
                return 404, b""

    return body


@pytest.mark.parametrize("plane", PLANES_OF_LONG)
async def test_f7_a_registry_that_answers_nonsense(herd, chance):
    await herd.three()
    truths = {path: (await herd.registry.ask("GET", path, params=asked)).body for path, asked in _asked()}
    distort = distorted(chance)

    def lie(request: web.Request) -> web.StreamResponse | None:
        if request.method != "GET" or request.path not in WATCHED:
            return None
        status, body = distort(truths[request.path])
        return web.Response(
            status=status, body=body, headers={"X-Consul-Index": chance.choice(["0", "1", "7"])}
        )

    async with herd.router(), herd.load():
        await herd.follows(1)
        for _ in range(2):
            herd.between.tell(lie)
            await asyncio.wait_for(herd.between.lied.wait(), 60)
            await herd.more(10)
        herd.between.truth()
        await herd.goat("d", "0.0.1")
        await herd.weigh(2, {"0.0.1": 60, "0.0.2": 40})
        report = await herd.follows(2)
        await herd.more(10, "a", "d")
    herd.proved()
    assert (report.reloads, report.held, report.alarms) == (0, [], [])


def _asked():
    return [(WATCHED[0], {}), (WATCHED[1], {"recurse": ""})]


@pytest.mark.parametrize("plane", PLANES_OF_LONG)
async def test_f8_a_registry_restored_from_an_old_snapshot(herd, chance):
    """The older world is refused and said, over a restart of the router too; newer commits are followed again."""
    await herd.three()
    old, new = 5, 5 + chance.randrange(1, 5)
    await herd.weigh(old, {"0.0.1": 50, "0.0.2": 50})
    snapshot = (await herd.registry.ask("GET", "/v1/snapshot", wait_s=30)).body
    async with contextlib.AsyncExitStack() as load:
        async with herd.router(hand_over=True):
            await herd.follows(old)
            await load.enter_async_context(herd.load())
            await herd.weigh(new, {"0.0.1": 100, "0.0.2": 0})
            await herd.goat("d", "0.0.1")
            await herd.follows(new)

            await herd.registry.ask("PUT", "/v1/snapshot", body=snapshot, wait_s=30)

            report = await herd.reported(lambda report: report.held)
            assert f"older than {new}" in report.held[0]
            assert report.generation == new
            seen = len(herd.goats["c"].asked)
            await herd.more(40)
            assert len(herd.goats["c"].asked) == seen, "the older weights are not served"
        async with herd.router():
            await herd.reported(lambda report: report.held and report.generation == new)
            await herd.join(herd.goats["d"])
            await herd.weigh(new + 1, {"0.0.1": 50, "0.0.2": 50})
            report = await herd.follows(new + 1)
            assert report.held == []
            await herd.more(10, "c")
            await load.aclose()
    herd.proved()


async def test_f11_a_registry_that_is_slow(herd, chance):
    """Answers come after five seconds and a byte a second: users do not wait for them, and questions do not pile up."""
    async with Relay(herd.between.url).running() as relay:
        herd.between.url = relay.url
        await herd.three()
        async with herd.router(), herd.load():
            await herd.follows(1)
            relay.slow(first_s=chance.choice([0.0, 5.0]), byte_s=1.0)
            relay.cut()
            await herd.weigh(2, {"0.0.1": 50, "0.0.2": 50})
            await herd.until(lambda: relay.crept >= 4)
            herd.goats["a"].kill()
            await herd.more(100, "b")
            if SOAK:
                await herd.until(lambda: relay.given_up >= 3)
            relay.heal()
            await herd.follows(2, "a", "b", "c")
            await herd.goats["a"].start()
            await herd.more(10, "a")
    herd.proved()
    assert relay.most <= 12, "each loop of the router has one question at a time"


async def test_f20_all_weights_zero_by_mistake(herd, chance):
    """The last shares stay, and that is said."""
    await herd.three()
    async with herd.router(), herd.load():
        await herd.follows(1)
        for generation in range(2, 2 + chance.randrange(1, 4)):
            await herd.weigh(generation, {"0.0.1": 0, "0.0.2": 0})
            report = await herd.reported(lambda report: report.held)
            assert report.generation == 1
            await herd.more(20)
        await herd.weigh(9, {"0.0.1": 0, "0.0.2": 1})
        await herd.follows(9)
        await herd.more(20, "c")
        await herd.follows(9)
    herd.proved()


async def test_f20_all_weights_zero_by_intent(herd, chance):
    await herd.three()
    async with herd.router():
        await herd.follows(1)
        await herd.weigh(2, {"0.0.1": 0, "0.0.2": 0})
        await herd.registry.put(keys.maintenance("goat"), b"true")
        await herd.reported(lambda report: report.generation == 2 and not report.held)
        assert await herd.ask() == "503"
        await herd.weigh(3, {"0.0.1": chance.randrange(1, 100), "0.0.2": 0})
        await herd.follows(3)
        async with herd.load():
            await herd.more(20, "a", "b")
    herd.proved()


async def test_f29_a_registry_without_a_file_descriptor(chance, tmp_path):
    """Whoever it knows is served; whoever is new is not, until there are some again; users notice nothing."""
    port = free_port()
    async with a_registry(port, tmp_path) as process:
        async with a_herd(tmp_path, Address(url=f"http://127.0.0.1:{port}")) as herd:
            await herd.three()
            async with herd.router(), herd.load(), Knock(port) as known:
                await herd.follows(1)
                assert await known.leads(within_s=20)
                limits = resource.prlimit(process.pid, resource.RLIMIT_NOFILE)
                few = len(list(Path(f"/proc/{process.pid}/fd").iterdir())) + chance.randrange(-3, 1)
                resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (few, limits[1]))
                async with contextlib.AsyncExitStack() as strangers:
                    for _ in range(chance.randrange(20, 60)):
                        stranger = await strangers.enter_async_context(Knock(port))
                    assert not await stranger.leads(within_s=0.5)
                    await herd.weigh(2, {"0.0.1": 50, "0.0.2": 50})
                    await herd.more(100)
                    assert await known.leads(within_s=20)
                    assert process.returncode is None
                resource.prlimit(process.pid, resource.RLIMIT_NOFILE, limits)
                async with Knock(port) as new:
                    assert await new.leads(within_s=20)
                await herd.goat("d", "0.0.2")
                await herd.follows(2)
            herd.proved()
        assert process.returncode is None


@contextlib.asynccontextmanager
async def a_registry(port: int, folder: Path):
    """A registry in a process of its own."""
    command = ["registry", "--http", f"127.0.0.1:{port}", "--acl", "open", "--data", str(folder / "registry")]
    with (folder / "registry.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "milkrun", *command), cwd=folder, stderr=log
        )
    try:
        async with asyncio.timeout(30):
            while True:
                with contextlib.suppress(OSError):
                    async with Knock(port) as first:
                        if await first.leads(within_s=5):
                            break
                await asyncio.sleep(0.05)
        yield process
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()
        print((folder / "registry.log").read_text())


class Knock:
    """One connection to the registry."""

    def __init__(self, port: int) -> None:
        self._port = port

    async def __aenter__(self):
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port)
        return self

    async def __aexit__(self, *_) -> None:
        self._writer.close()
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()

    async def leads(self, *, within_s: float) -> bool:
        """Whether it answers who the leader is."""
        self._writer.write(b"GET /v1/status/leader HTTP/1.1\r\nHost: localhost\r\n\r\n")
        try:
            async with asyncio.timeout(within_s):
                head = await self._reader.readuntil(b"\r\n\r\n")
                size = head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]
                await self._reader.readexactly(int(size))
        except (TimeoutError, OSError, asyncio.IncompleteReadError):
            return False
        return head.startswith(b"HTTP/1.1 200 ")
