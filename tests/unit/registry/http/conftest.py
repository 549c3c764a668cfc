"""A listener with an application of its own, and a client that speaks bytes."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator

import pytest
import uvloop

from milkrun.registry.http.connections import Connections, listening
from milkrun.registry.http.limits import Limits
from milkrun.registry.http.message import Reply, Request


def pytest_asyncio_loop_factories(config, item):
    """Both loops: tests run the registry on the one, the daemon runs it on the other."""
    return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


class Site:
    """Answers with the method, the target and the body; `/wait/...` waits until the test opens the gate."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.left: list[str] = []
        self.gate = asyncio.get_running_loop().create_future()
        self.connections: Connections
        self.port = 0

    async def __call__(self, request: Request) -> Reply:
        target = request.target.decode()
        self.asked.append(target)
        if target.startswith("/wait"):
            request.on_leave(lambda: self.left.append(target))
            await asyncio.shield(self.gate)
        if target == "/mistake":
            raise KeyError("a mistake of ours")
        if target == "/later-mistake":
            await asyncio.sleep(0)
            raise KeyError("a mistake of ours")
        if target.startswith("/large/"):
            return Reply(body=b"x" * int(target.removeprefix("/large/")))
        if target == "/echo":
            return Reply(headers=[(b"x-echo", await request.body())])
        body = await request.body()
        return Reply(body=f"{request.method} {target} ".encode() + body, content_type=b"text/plain", index=7)

    @contextlib.asynccontextmanager
    async def client(self) -> AsyncIterator[Client]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, limit=1 << 18)
        try:
            async with asyncio.timeout(20):
                yield Client(reader, writer)
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()


class Client:
    """Sends bytes, reads replies."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    def get(self, target: str, *lines: str) -> None:
        self.send("\r\n".join([f"GET {target} HTTP/1.1", "Host: x", *lines, "", ""]).encode())

    async def head(self) -> bytes:
        return await self.reader.readuntil(b"\r\n\r\n")

    async def reply(self) -> tuple[int, bytes]:
        head = await self.head()
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        return int(head.split()[1]), await self.reader.readexactly(length)

    async def rest(self) -> bytes:
        """All that still comes until the server closes."""
        return await self.reader.read()


@contextlib.asynccontextmanager
async def serving(limits: Limits, tick_s: float) -> AsyncIterator[Site]:
    site = Site()
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP) as listener:
        listener.bind(("127.0.0.1", 0))
        site.port = listener.getsockname()[1]
        async with listening(site, listener, limits=limits, tick_s=tick_s) as site.connections:
            yield site
    if not site.gate.done():
        site.gate.cancel()


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    async with serving(Limits(), 1.0) as found:
        yield found


@pytest.fixture
async def still() -> AsyncIterator[Site]:
    """A site whose clock only moves when its test says so."""
    async with serving(Limits(), 3600.0) as found:
        yield found


@pytest.fixture
async def hasty() -> AsyncIterator[Site]:
    """A site with no patience for anything."""
    limits = Limits(head_s=0.1, message_s=0.2, idle_s=0.4, stalled_s=0.2, linger_s=0.1, per_address=2)
    async with serving(limits, 0.02) as found:
        yield found
