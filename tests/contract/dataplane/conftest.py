from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest
from aiohttp import web
from alone import Alone
from haproxies import OTHERS
from ports import free_port

from milkrun.model import InstanceId
from milkrun.router.desired import Mode, Server
from milkrun.router.plane import DataPlane
from milkrun.testing.plane import FakeDataPlane


class App:
    """A real HTTP server that says who it is; `gate` holds its answers back while it is cleared."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.port = 0
        self.gate = asyncio.Event()
        self.gate.set()
        self.entered = asyncio.Event()
        self.seen: list[str] = []
        self.status = 200
        self.hangs_up = False

    async def answer(self, request: web.Request) -> web.Response:
        self.seen.append(request.headers.get("X-Request-Id", ""))
        self.entered.set()
        await self.gate.wait()
        if self.hangs_up and request.transport:
            request.transport.abort()
        return web.Response(text=self.name, status=self.status)

    def server(self, mode: Mode = Mode.SERVE) -> Server:
        return Server(id=InstanceId(self.name), address="127.0.0.1", port=self.port, mode=mode)


@pytest.fixture
async def apps() -> AsyncIterator[dict[str, App]]:
    """Six apps, a1 to c2, on ports of their own."""
    async with AsyncExitStack() as stack:
        found = {}
        for name in ("a1", "a2", "b1", "b2", "c1", "c2"):
            app = App(name)
            site = web.Application()
            site.router.add_route("*", "/{path:.*}", app.answer)
            runner = web.AppRunner(site, shutdown_timeout=0.1)
            await runner.setup()
            stack.push_async_callback(runner.cleanup)
            listener = socket.socket()
            listener.bind(("127.0.0.1", 0))
            app.port = listener.getsockname()[1]
            await web.SockSite(runner, listener).start()
            found[name] = app
        yield found


@pytest.fixture
def listen() -> tuple[str, int]:
    return "127.0.0.1", free_port()


HERE, ENVOY = "haproxy", pytest.param("envoy", marks=pytest.mark.needs("envoy"))
REAL = [HERE, *OTHERS, ENVOY]
real = pytest.mark.parametrize("plane", REAL, indirect=True)


@pytest.fixture(params=["fake", *REAL])
async def plane(request: pytest.FixtureRequest, tmp_path, listen, monkeypatch) -> AsyncIterator[DataPlane]:
    if request.param == "fake":
        yield FakeDataPlane()
        return
    if request.param.startswith("/"):
        monkeypatch.setenv("MILKRUN_HAPROXY", request.param)
    envoy = request.param == "envoy"
    found = Alone(tmp_path, "goat", listen=listen, stats=("127.0.0.1", free_port()), envoy=envoy)
    yield found
    await found.stop()
