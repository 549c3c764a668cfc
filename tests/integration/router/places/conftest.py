"""A router's real HAProxy where its settings say that it stands, before instances that tell what they were asked."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

import msgspec
import pytest
from ports import free_ports

from milkrun.model import InstanceId, ServiceName, VersionName
from milkrun.router.certificates import Certificates
from milkrun.router.desired import RoutingState, Server
from milkrun.router.diff import diff
from milkrun.router.front import front
from milkrun.router.haproxy import binary
from milkrun.router.haproxy.plane import HAProxy
from milkrun.settings.environment import RouterSettings, RouteSettings
from milkrun.settings.service import ServiceSettings, TrafficSettings

WITHIN_S = 20.0


class Asked(msgspec.Struct):
    """A request as the instance saw it; its headers by name in lower case, each with all its values."""

    who: str
    method: str
    path: str
    headers: dict[str, list[str]]

    def said(self, name: str) -> list[str]:
        return self.headers.get(name, [])


class Instance:
    """An HTTP/1.1 server that answers with the request that it saw; it answers while its gate is open."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.port = 0
        self.gate = asyncio.Event()
        self.gate.set()
        self.entered = asyncio.Event()
        self.server: asyncio.Server | None = None

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
                method, path, _ = head[0].split(" ")
                headers: dict[str, list[str]] = {}
                for line in filter(None, head[1:]):
                    name, _, value = line.partition(":")
                    headers.setdefault(name.lower(), []).append(value.strip())
                await reader.readexactly(int(headers.get("content-length", ["0"])[0]))
                self.entered.set()
                await self.gate.wait()
                body = msgspec.json.encode(Asked(who=self.name, method=method, path=path, headers=headers))
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
                await writer.drain()
        writer.close()


class Stand:
    """A router in its place. `serve` makes HAProxy serve these instances, one version a service."""

    def __init__(self, folder, settings: RouterSettings, services: dict[str, TrafficSettings]) -> None:
        self.folder = folder
        self.settings = settings
        self.traffic = services
        self.certificates: Certificates | None = None
        self.wanted: dict[ServiceName, RoutingState] = {}
        self.proxy = self.plane()

    @property
    def port(self) -> int:
        return int(self.settings.listen.rpartition(":")[2])

    def plane(self) -> HAProxy:
        """The router's hold on HAProxy, as one that starts with these settings has it."""
        known = {
            ServiceName(name): ServiceSettings(command=["x"], traffic=traffic)
            for name, traffic in self.traffic.items()
        }
        self.proxy = HAProxy(
            self.folder, binary.find(), front("router", self.settings, known), self.certificates
        )
        return self.proxy

    async def start(self, **servers: list[tuple[str, int]]) -> None:
        """HAProxy serves; each service's instances by name and port."""
        self.wanted = {
            ServiceName(service): state({"v1": [a_server(*one) for one in each]})
            for service, each in servers.items()
        }
        await self.proxy.start(self.wanted)

    async def wish(self, service: str, wanted: RoutingState) -> None:
        """HAProxy serves the service so, without or with a reload."""
        self.wanted[ServiceName(service)] = wanted
        plane = self.proxy.of(ServiceName(service))
        for _ in range(6):
            operations = diff(await plane.observe(), wanted)
            await plane.apply(operations, wanted)
            if not operations:
                return
        raise AssertionError(f"{service} does not settle")

    async def raw(self, request: str | bytes) -> tuple[int, str]:
        """The status and the body that one request on a connection of its own brings."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            writer.write(request if isinstance(request, bytes) else request.encode("latin-1"))
            reply = await asyncio.wait_for(reader.read(), WITHIN_S)
        finally:
            writer.close()
        head, _, body = reply.decode("latin-1").partition("\r\n\r\n")
        return int(head.split(" ")[1]) if head else 0, body

    async def get(self, path: str, *headers: str, host: str = "farm", method: str = "GET") -> Asked | int:
        """What the instance saw; the status when no instance did."""
        lines = [f"{method} {path} HTTP/1.1", f"Host: {host}", *headers]
        if not any(line.lower().startswith("connection:") for line in headers):
            lines.append("Connection: close")
        status, body = await self.raw("\r\n".join([*lines, "", ""]))
        return msgspec.json.decode(body, type=Asked) if status == 200 else status

    async def who(self, path: str, *headers: str, host: str = "farm", method: str = "GET") -> str | int:
        """Which instance answers."""
        found = await self.get(path, *headers, host=host, method=method)
        return found if isinstance(found, int) else found.who


def a_server(name: str, port: int) -> Server:
    return Server(id=InstanceId(name), address="127.0.0.1", port=port)


def state(versions: dict[str, list[Server]], shares: dict[str, int] | None = None) -> RoutingState:
    """The versions with these shares, or the first one with all."""
    found = {VersionName(name): {one.id: one for one in each} for name, each in versions.items()}
    first = next(iter(found), None)
    given = {VersionName(name): share for name, share in (shares or {}).items()}
    return RoutingState(shares=given or ({first: 10_000} if first and found[first] else {}), versions=found)


@pytest.fixture
async def stack() -> AsyncIterator[contextlib.AsyncExitStack]:
    async with contextlib.AsyncExitStack() as found:
        yield found


@pytest.fixture
def instance(stack) -> Callable:
    """Makes an instance that listens."""

    async def make(name: str) -> Instance:
        found = Instance(name)
        found.server = await asyncio.start_server(found.answer, "127.0.0.1", 0)
        stack.callback(found.server.close)
        stack.callback(found.gate.set)
        found.port = found.server.sockets[0].getsockname()[1]
        return found

    return make


@pytest.fixture
def stand(tmp_path, stack) -> Callable[..., Stand]:
    """Makes a router with these settings before services with this traffic; HAProxy ends with the test."""

    def make(services: dict[str, TrafficSettings] | None = None, **settings) -> Stand:
        listen, stats = free_ports(2)
        folder = tmp_path / "router"
        folder.mkdir(mode=0o700, exist_ok=True)
        values = {"listen": f"127.0.0.1:{listen}", "stats": f"127.0.0.1:{stats}"} | settings
        known = services or {"goat": TrafficSettings(), "farmer": TrafficSettings()}
        found = Stand(folder, RouterSettings(**values), known)

        async def stop() -> None:
            await found.proxy.stop()

        stack.push_async_callback(stop)
        return found

    return make


@pytest.fixture
async def edge(stand, instance) -> Callable:
    """Makes an edge with these routes, each to a service whose one instance has its name."""

    async def make(*routes: RouteSettings, **settings) -> Stand:
        names = sorted({route.service for route in routes})
        found = stand({name: TrafficSettings() for name in names}, routes=list(routes), **settings)
        await found.start(**{name: [(name, (await instance(name)).port)] for name in names})
        return found

    return make


@pytest.fixture
async def sidecar(stand, instance) -> Stand:
    """A sidecar before goat and farmer."""
    found = stand(sidecar=True)
    await found.start(
        goat=[("goat", (await instance("goat")).port)], farmer=[("farmer", (await instance("farmer")).port)]
    )
    return found
