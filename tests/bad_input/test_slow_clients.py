"""Clients that drip their requests byte by byte, or say nothing, do not keep others from their answers."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import statistics
import time

import pytest

STALLED = 500
REQUESTS = 600
DRIP_S = 0.25
CUT_OFF_WITHIN_S = 30.0
HEAD = b"GET /v1/kv/slow?recurse HTTP/1.1\r\nHost: localhost\r\nX-Padding: " + b"x" * 4_000
BODY = b"PUT /v1/kv/slow HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000\r\n\r\n" + b"x" * 4_000


class Stalled:
    """One client that does not come to the end; it comes back when it is cut off."""

    def __init__(self, port, text, whole_at_first):
        self._port, self._text, self._first = port, text, whole_at_first
        self.open = asyncio.Event()
        self.cut_off = asyncio.Event()
        self.heard = b""

    async def run(self):
        while True:
            reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
            self.open.set()
            try:
                async with asyncio.TaskGroup() as tasks:
                    dripping = tasks.create_task(self._drip(writer))
                    with contextlib.suppress(ConnectionError):
                        self.heard = await reader.read()
                    dripping.cancel()
            finally:
                writer.close()
            self.open.clear()
            self.cut_off.set()

    async def _drip(self, writer):
        writer.write(self._text[: self._first])
        for place in range(self._first, len(self._text)):
            await asyncio.sleep(DRIP_S)
            writer.write(self._text[place : place + 1])


def kinds(port):
    """A third drips its head, a third its body, a third sends nothing at all."""
    third = STALLED // 3
    heads = [Stalled(port, HEAD, 1) for _ in range(third)]
    bodies = [Stalled(port, BODY, len(BODY) - 3_999) for _ in range(third)]
    return heads, bodies, [Stalled(port, b"", 0) for _ in range(STALLED - 2 * third)]


async def answered(port, count):
    """How long each of so many requests took, every second one on a connection of its own; all succeeded."""
    took = []
    kept = await asyncio.open_connection("127.0.0.1", port)
    for number in range(count):
        fresh = number % 2
        began = time.perf_counter()
        reader, writer = await asyncio.open_connection("127.0.0.1", port) if fresh else kept
        value = str(number).encode()
        writer.write(
            b"PUT /v1/kv/quick HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n%b"
            % (len(value), value)
        )
        assert await reply(reader) == (200, b"true")
        writer.write(b"GET /v1/kv/quick?raw HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert await reply(reader) == (200, value)
        took.append(time.perf_counter() - began)
        if fresh:
            writer.close()
    kept[1].close()
    return took


async def reply(reader):
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    size = next(line for line in head.splitlines() if line.startswith("Content-Length:"))
    return int(head.split()[1]), await reader.readexactly(int(size.split()[1]))


@pytest.fixture
def files():
    """As many open files as this test has clients."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 4 * STALLED), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def test_every_other_request_is_answered(registry, files):
    alone = await answered(registry.port, REQUESTS)
    heads, bodies, silent = kinds(registry.port)
    everybody = [*heads, *bodies, *silent]
    async with asyncio.TaskGroup() as tasks:
        stalling = [tasks.create_task(each.run()) for each in everybody]
        async with asyncio.timeout(CUT_OFF_WITHIN_S):
            await asyncio.gather(*(each.open.wait() for each in everybody))
        among = await answered(registry.port, REQUESTS)
        still = sum(each.open.is_set() for each in everybody)
        async with asyncio.timeout(CUT_OFF_WITHIN_S):
            while not all(each.cut_off.is_set() for each in heads):
                among += await answered(registry.port, 20)
        for task in stalling:
            task.cancel()
    assert still > STALLED * 0.9
    assert all(each.heard.startswith(b"HTTP/1.1 408") for each in heads)
    assert registry.get("/v1/kv/slow").status == 404
    ratio = statistics.median(among) / statistics.median(alone)
    print(
        f"{len(among)} times PUT and GET, all answered, among {STALLED} clients that stall: median "
        f"{statistics.median(among) * 1e3:.2f} ms, alone {statistics.median(alone) * 1e3:.2f} ms, ratio {ratio:.2f}"
    )
