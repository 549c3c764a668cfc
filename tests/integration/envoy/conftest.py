from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from ports import free_ports
from yarl import URL

from milkrun.model import InstanceId, ServiceName
from milkrun.router.desired import Mode, RoutingState, Server
from milkrun.router.diff import diff
from milkrun.router.envoy.binary import find
from milkrun.router.envoy.plane import Envoy
from milkrun.router.front import Front, Route
from milkrun.settings.service import TrafficSettings

GOAT = ServiceName("goat")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.needs("envoy"))


class App:
    """An instance that says who it is and what it was asked; `gate` holds its answers back while it is cleared."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.port = 0
        self.gate = asyncio.Event()
        self.gate.set()
        self.entered = asyncio.Event()
        self.asked: list[str] = []
        self.breaks = False
        self.slow_s = 0.0
        self._runner: web.AppRunner | None = None

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(f"{request.method} {request.path_qs}")
        self.entered.set()
        await self.gate.wait()
        await asyncio.sleep(self.slow_s)
        if request.method == "PATCH":
            return web.Response(status=500)
        if self.breaks and request.transport:
            request.transport.abort()
        if request.headers.get("Upgrade") == "websocket":
            socket = web.WebSocketResponse()
            await socket.prepare(request)
            async for message in socket:
                await socket.send_str(f"{self.name} {message.data}")
            return socket
        headers = {
            name: request.headers.get(name, "")
            for name in ("Host", "X-Request-Id", "X-Forwarded-For", "X-Forwarded-Prefix")
        }
        return web.json_response(
            {"who": self.name, "path": request.raw_path, "all": dict(request.headers), **headers}
        )

    async def start(self) -> None:
        site = web.Application()
        site.router.add_route("*", "/{path:.*}", self.answer)
        self._runner = web.AppRunner(site, shutdown_timeout=0.1)
        await self._runner.setup()
        self.port = self.port or free_ports(1)[0]
        await web.TCPSite(self._runner, "127.0.0.1", self.port, reuse_address=True).start()

    async def kill(self) -> None:
        """It is gone at once, with what it had in hand."""
        runner, self._runner = self._runner, None
        if runner:
            for connection in list(runner.server.connections) if runner.server else []:
                if connection.transport:
                    connection.transport.abort()
            await runner.cleanup()

    def server(self, mode: Mode = Mode.SERVE) -> Server:
        return Server(id=InstanceId(self.name), address="127.0.0.1", port=self.port, mode=mode)


@pytest.fixture
async def apps() -> AsyncIterator[dict[str, App]]:
    """Four apps, a1 to b2, on ports of their own."""
    async with AsyncExitStack() as stack:
        found = {}
        for name in ("a1", "a2", "b1", "b2"):
            found[name] = App(name)
            await found[name].start()
            stack.push_async_callback(found[name].kill)
        yield found


def state(shares, **versions) -> RoutingState:
    """`state({"a": 10_000}, a=[server])`: shares and servers by version."""
    return RoutingState(
        shares=shares,
        versions={name: {server.id: server for server in servers} for name, servers in versions.items()},
    )


def of(app):
    """All of the service is this one app."""
    return state({"1": 10_000}, **{"1": [app.server()]})


async def asked(session, url, path, method="GET", **headers):
    """The status, who answered, and the path that it saw."""
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    async with session.request(method, URL(f"{url}{path}", encoded=True), headers=names) as answer:
        seen = await answer.json() if answer.status == 200 else {}
        return answer.status, seen.get("who"), seen.get("path")


@pytest.fixture
async def session():
    async with aiohttp.ClientSession() as found:
        yield found


class Stand:
    """A front on ports of its own, and an Envoy that stands there; `again` is what the next router makes of it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        listen, stats = free_ports(2)
        self.front = Front(
            name="lb-goat",
            listen=("127.0.0.1", listen),
            stats=("127.0.0.1", stats),
            routes=(Route(service=GOAT),),
            services={GOAT: TrafficSettings()},
        )
        self.envoys: list[Envoy] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.front.listen[1]}"

    @property
    def page(self) -> str:
        return f"http://127.0.0.1:{self.front.stats[1]}"

    async def start(self, wanted, front: Front | None = None) -> Envoy:
        """An Envoy of a new router, which begins with this state of the goats, or of each service."""
        self.front = front or self.front
        await self.leave()
        self.envoys.append(Envoy(self.folder, find(), self.front))
        await self.envoys[-1].start({GOAT: wanted} if isinstance(wanted, RoutingState) else wanted)
        return self.envoys[-1]

    async def leave(self) -> None:
        """The last router is gone."""
        if self.envoys:
            await self.envoys[-1].leave()

    async def end(self) -> None:
        envoy = self.envoys[-1] if self.envoys else Envoy(self.folder, find(), self.front)
        await envoy.stop()


@pytest.fixture
async def stand(tmp_path) -> AsyncIterator[Stand]:
    found = Stand(tmp_path)
    yield found
    await found.end()


async def converge(envoy: Envoy, wanted: RoutingState, service: ServiceName = GOAT, passes: int = 600):
    """Envoy does what is wanted: as the reconciler asks, until there is nothing left to do."""
    plane = envoy.of(service)
    for _ in range(passes):
        observed = await plane.observe()
        operations = diff(observed, wanted)
        await plane.apply(operations, wanted)
        if not operations and not _leaving(observed, wanted):
            return observed
        if not operations:
            await asyncio.sleep(0.02)  # who drains has requests, or other Envoys have not reported yet
    raise AssertionError(f"still to do: {diff(await plane.observe(), wanted)}")


def _leaving(observed, wanted: RoutingState) -> bool:
    return any(
        name not in wanted.versions.get(version, {})
        for version, servers in observed.versions.items()
        for name in servers
    )


class Load:
    """Callers that ask one after the other until told to end. `answers` counts who answered, `failed` the rest."""

    def __init__(self, url: str, *, method: str = "GET", keep: bool = True) -> None:
        self.answers: Counter[str] = Counter()
        self.failed: Counter[str] = Counter()
        self.sent = 0
        self._url, self._method, self._keep = url, method, keep
        self._end = asyncio.Event()
        self._progress = asyncio.Condition()

    async def run(self, session: aiohttp.ClientSession) -> None:
        while not self._end.is_set():
            self.sent += 1
            try:
                async with session.request(self._method, f"{self._url}/{self.sent}") as answer:
                    text = await answer.text()
                    if answer.status == 200:
                        self.answers[(await answer.json())["who"]] += 1
                    else:
                        self.failed[f"{answer.status} {text[:80]}"] += 1
            except aiohttp.ClientError as error:
                self.failed[repr(error)[:80]] += 1
            async with self._progress:
                self._progress.notify_all()

    async def more(self, count: int) -> None:
        """So many more requests have ended."""
        end = self.sent + count
        async with self._progress:
            await self._progress.wait_for(lambda: self.sent >= end)

    def end(self) -> None:
        self._end.set()


@contextlib.asynccontextmanager
async def load(url: str, *, method: str = "GET", keep: bool = True, callers: int = 4) -> AsyncIterator[Load]:
    """Callers at work, with connections that they keep or with one for each request."""
    found = Load(url, method=method, keep=keep)
    connector = aiohttp.TCPConnector(force_close=not keep, limit=callers)
    async with aiohttp.ClientSession(connector=connector) as session, asyncio.TaskGroup() as tasks:
        for _ in range(callers):
            tasks.create_task(found.run(session))
        try:
            yield found
        finally:
            found.end()
