"""A registry in this loop, and services of every kind of ill will for it to look at."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import uvloop

from milkrun.registry.nouns import Check
from milkrun.registry.server import running

PATIENCE_S = 20.0


def pytest_asyncio_loop_factories(config: pytest.Config, item: pytest.Item) -> dict[str, Any]:
    """gRPC probes read their own bytes, and each loop speaks TLS in its own way: they are tested on both."""
    daemons = {"uvloop": uvloop.new_event_loop} if "grpc" in item.path.name else {}
    return {"asyncio": asyncio.new_event_loop, **daemons}


Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Target:
    """A listener that counts: `hits` connections came, `requests` heads were read, `open` are held now."""

    def __init__(self, serve: Serve) -> None:
        self._serve = serve
        self.port = 0
        self.hits = 0
        self.open = 0
        self.most_open = 0
        self.requests: list[str] = []
        self.moved = asyncio.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/"

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.hits += 1
        self.open += 1
        self.most_open = max(self.open, self.most_open)
        self.moved.set()
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            self.requests.append(head.decode("latin-1"))
            self.moved.set()
            await self._serve(reader, writer)
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            self.open -= 1
            self.moved.set()
            writer.close()

    async def until(self, holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while not holds():
                self.moved.clear()
                await self.moved.wait()


@asynccontextmanager
async def serving(serve: Serve, *, host: str = "127.0.0.1", **options: Any) -> AsyncIterator[Target]:
    target = Target(serve)
    server = await asyncio.start_server(target.handle, host, 0, **options)
    target.port = server.sockets[0].getsockname()[1]
    try:
        yield target
    finally:
        server.close()


class Asked:
    """A registry, and how its checks stand."""

    def __init__(self, engine: Any, address: tuple[str, int], http: aiohttp.ClientSession) -> None:
        self.engine = engine
        self.port = address[1]
        self._http = http
        self._moved = asyncio.Event()
        engine.listeners.append(lambda _: self._moved.set())

    async def put(self, path: str, body: Any) -> tuple[int, str]:
        async with self._http.put(f"http://127.0.0.1:{self.port}{path}", json=body) as reply:
            return reply.status, await reply.text()

    async def register(self, name: str, address: str = "", **check: Any) -> None:
        body = {"Name": name, "Address": address, "Check": {"Interval": "50ms", **check}}
        assert await self.put("/v1/agent/service/register", body) == (200, "")

    def check(self, name: str) -> Check:
        found: Check = self.engine.machine.catalog.checks["n1"][f"service:{name}"]
        return found

    async def until(self, name: str, holds: Callable[[Check], bool]) -> Check:
        """The check, once it stands so."""
        async with asyncio.timeout(PATIENCE_S):
            while not holds(self.check(name)):
                self._moved.clear()
                await self._moved.wait()
        return self.check(name)


@asynccontextmanager
async def asked(folder: Path, **options: Any) -> AsyncIterator[Asked]:
    async with (
        running(("127.0.0.1", 0), folder, node="n1", **options) as (engine, address),
        aiohttp.ClientSession() as http,
    ):
        yield Asked(engine, address, http)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Checks run twenty times a second here; that they do not elsewhere is a unit test's business."""
    monkeypatch.setattr("milkrun.registry.checks.definition.INTERVAL_S_AT_LEAST", 0.05)


@pytest.fixture
async def registry(tmp_path: Path) -> AsyncIterator[Asked]:
    async with asked(tmp_path) as found:
        yield found


@pytest.fixture
def start(tmp_path: Path) -> Callable[..., contextlib.AbstractAsyncContextManager[Asked]]:
    """Starts a registry; each time on the same folder."""
    return lambda **options: asked(tmp_path, **options)


@pytest.fixture
def serve() -> Callable[..., contextlib.AbstractAsyncContextManager[Target]]:
    return serving


@pytest.fixture
def says() -> Callable[[bytes], Serve]:
    """A service that answers with this."""

    def make(text: bytes) -> Serve:
        async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(text)
            await writer.drain()

        return answer

    return make


@pytest.fixture
def hangs() -> Serve:
    """A service that holds the connection until the client lets go."""

    async def hang(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await reader.read()

    return hang
