"""A router's daemon at work in this process: a real HAProxy, a real registry behind a proxy that can lie, tiny apps."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import aiohttp
import msgspec
from aiohttp import web
from ports import free_port

from milkrun.consul import Address, Registry, keys, wire
from milkrun.consul.client import decode, kv_delete, kv_set
from milkrun.consul.watch import watch_prefix
from milkrun.host.process import Identity
from milkrun.model import CommitId, CommitMark, RouterReport, ServiceName, VersionName
from milkrun.router import daemon
from milkrun.settings.environment import Environment, PublishedEnvironment, RouterSettings

GOAT = ServiceName("goat")
WITHIN_S = 30.0

Lie = Callable[[web.Request], web.StreamResponse | None]


class Go(msgspec.Struct):
    """A tiny HTTP/1.1 server that says its name; it answers while its gate is open."""

    name: str
    version: str
    port: int = 0
    seen: int = 0
    gate: asyncio.Event = msgspec.field(default_factory=asyncio.Event)
    entered: asyncio.Event = msgspec.field(default_factory=asyncio.Event)

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                await reader.readuntil(b"\r\n\r\n")
                self.seen += 1
                self.entered.set()
                await self.gate.wait()
                body = self.name.encode()
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
                await writer.drain()
        writer.close()


class Between:
    """A proxy between the router and the registry. It passes on, lies, or is down; `log` has what passed."""

    def __init__(self, upstream: str) -> None:
        self._upstream = upstream
        self._port = free_port()
        self._lie: Lie = lambda _: None
        self._site: web.TCPSite | None = None
        self._runner: web.AppRunner | None = None
        self.url = f"http://127.0.0.1:{self._port}"
        self.log: list[tuple[str, str]] = []
        self.lies = 0
        self.lied = asyncio.Event()

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        app = web.Application(client_max_size=1 << 26)
        app.router.add_route("*", "/{path:.*}", self._pass)
        self._runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
        await self._runner.setup()
        timeout = aiohttp.ClientTimeout(total=None)
        async with aiohttp.ClientSession(
            timeout=timeout, connector=aiohttp.TCPConnector(limit=0)
        ) as self._http:
            await self.up()
            try:
                yield
            finally:
                await self._runner.cleanup()

    async def up(self) -> None:
        assert self._runner
        self._site = web.TCPSite(self._runner, "127.0.0.1", self._port, reuse_address=True)
        await self._site.start()

    async def down(self) -> None:
        """Nobody listens, and every connection is cut."""
        assert self._site
        await self._site.stop()
        self._cut()

    def tell(self, lie: Lie) -> None:
        """From now on the answers are the lie's, where it gives one; parked questions are cut."""
        self._lie = lie
        self.lies = 0
        self.lied.clear()
        self._cut()

    def truth(self) -> None:
        self.tell(lambda _: None)

    def _cut(self) -> None:
        assert self._runner
        assert self._runner.server
        for connection in list(self._runner.server.connections):
            if connection.transport:
                connection.transport.abort()

    async def _pass(self, request: web.Request) -> web.StreamResponse:
        self.log.append((request.method, request.path))
        if lie := self._lie(request):
            self.lies += 1
            if self.lies >= 3:
                self.lied.set()
            return lie
        sent = await request.read()
        async with self._http.request(
            request.method, self._upstream + request.raw_path, data=sent, headers=_passed(request.headers)
        ) as reply:
            data = await reply.read()
            return web.Response(status=reply.status, body=data, headers=_passed(reply.headers))


def _passed(headers) -> dict[str, str]:
    return {
        name: value
        for name, value in headers.items()
        if name.lower().startswith(("x-consul", "content-type"))
    }


class Fleet:
    """Goats, a registry, and one router `lb-goat` before them."""

    def __init__(self, folder: Path, registry: Registry, between: Between, tasks: asyncio.TaskGroup) -> None:
        self.state = folder / "router"
        self.registry = registry
        self.between = between
        self.listen = ("127.0.0.1", free_port())
        self.stats = ("127.0.0.1", free_port())
        self._tasks = tasks
        self._servers: dict[str, asyncio.Server] = {}
        self._goats: list[Go] = []
        self._last: RouterReport | None = None

    # What the others say

    async def goat(self, name: str, version: str, health: str = "passing") -> Go:
        """An app that listens and is registered with this health (empty: not registered)."""
        goat = Go(name=name, version=version)
        goat.gate.set()
        server = await asyncio.start_server(goat.answer, "127.0.0.1", 0)
        goat.port = server.sockets[0].getsockname()[1]
        self._servers[name] = server
        self._goats.append(goat)
        if health:
            await self.join(goat, health)
        return goat

    async def join(self, goat: Go, health: str = "passing", **fields) -> None:
        check = wire.TtlCheck(check_id=f"service:{goat.name}", name="alive", ttl="600s")
        values = {"address": "127.0.0.1", "port": goat.port, "tags": [f"version={goat.version}"]}
        await self.registry.register(
            wire.Registration(id=goat.name, name=GOAT, check=check, **(values | fields))
        )
        await self.registry.report(check.check_id, health, f"said the test: {health}")

    def dies(self, goat: Go) -> None:
        self._servers.pop(goat.name).close()

    async def weigh(self, generation: int, weights: dict[str, float]) -> str:
        """The weights with the mark of their commit, in one transaction; returns the commit."""
        commit = CommitId(f"{generation:040x}")
        mark = CommitMark(commit=commit, generation=generation)
        old = [pair.key for pair in await self.registry.entries(keys.wish_prefix(GOAT))]
        fresh = {keys.weight(GOAT, VersionName(name)): str(weight) for name, weight in weights.items()}
        operations = [kv_delete(key) for key in old if key not in fresh and key != keys.commit(GOAT)]
        operations += [kv_set(key, value.encode()) for key, value in fresh.items()]
        answer = await self.registry.txn([*operations, kv_set(keys.commit(GOAT), msgspec.json.encode(mark))])
        assert not answer.errors
        return commit

    async def settle(self, **fields) -> None:
        """The environment's settings are in the registry."""
        values = {
            "service": GOAT,
            "listen": "{}:{}".format(*self.listen),
            "stats": "{}:{}".format(*self.stats),
        }
        settings = Environment(name="test", routers={"lb-goat": RouterSettings(**(values | fields))})
        mark = CommitMark(commit=CommitId("0" * 40), generation=1)
        await self.registry.put(
            keys.ENVIRONMENT, msgspec.json.encode(PublishedEnvironment(mark=mark, settings=settings))
        )

    # The router

    @contextlib.asynccontextmanager
    async def router(self, *, accept_older: bool = False, hand_over: bool = False) -> AsyncIterator[None]:
        """The daemon runs meanwhile; then it is stopped with its HAProxy, or hands over."""
        handover = asyncio.Event()
        body = daemon.run(
            Address(url=self.between.url),
            name="lb-goat",
            host="shed",
            state_dir=self.state,
            handover=handover,
            accept_older=accept_older,
        )
        task = self._tasks.create_task(body)
        try:
            yield
        except BaseException:
            for goat in self._goats:
                goat.gate.set()  # a test that failed must not wait for requests that it holds back
            raise
        finally:
            if hand_over:
                handover.set()
            else:
                task.cancel()
            await asyncio.wait([task])

    def master(self) -> int:
        return msgspec.json.decode((self.state / "process.json").read_bytes(), type=Identity).pid

    async def reported(self, fact: Callable[[RouterReport], object]) -> RouterReport:
        """The first report of which the fact is true, among all routers of the service."""
        try:
            async with asyncio.timeout(WITHIN_S):
                async for answer in watch_prefix(self.registry, f"{keys.ROUTER_REPORTS}{GOAT}/"):
                    for pair in decode(answer.body, list[wire.Pair]) if answer.status == 200 else []:
                        self._last = msgspec.json.decode(pair.data, type=RouterReport)
                        if fact(self._last):
                            return self._last
        except TimeoutError:
            raise AssertionError(f"never reported; the last report was {self._last}") from None
        raise AssertionError("a watch does not end")

    async def serves(self, *names: str) -> RouterReport:
        """The report says that exactly these instances serve, and that nothing is left to do."""
        wanted = set(names)
        return await self.reported(
            lambda report: (
                not report.drift
                and wanted == {name for name, seen in report.instances.items() if seen.state == "serving"}
            )
        )

    async def gone(self, router: str, service: str = "") -> None:
        """The router's report is gone, and (when no service is named) its entry in the catalog too."""
        async with asyncio.timeout(WITHIN_S):
            while await self.registry.get(f"{keys.ROUTER_REPORTS}{service or GOAT}/{router}") or (
                not service and router in await self._balancers()
            ):
                await asyncio.sleep(0.01)

    async def _balancers(self) -> list[str]:
        entries, _ = await self.registry.health(ServiceName("lb-goat"))
        return [entry.service.id for entry in entries]

    async def has_session(self) -> None:
        """The router has kept its session for a restart."""
        async with asyncio.timeout(WITHIN_S):
            while not (self.state / "session").exists():
                await asyncio.sleep(0.01)

    # Callers

    async def ask(self, port: int = 0) -> str:
        """Who answered one request on a connection of its own; a status that is not 200 instead."""
        reader, writer = await asyncio.open_connection(self.listen[0], port or self.listen[1])
        try:
            writer.write(b"GET / HTTP/1.1\r\nHost: goat\r\nConnection: close\r\n\r\n")
            head, _, body = (await asyncio.wait_for(reader.read(), 20)).decode().partition("\r\n\r\n")
        finally:
            writer.close()
        status = head.split()[1] if head else "closed"
        return body if status == "200" else status

    def when_refused(self, tasks: asyncio.TaskGroup, then: Callable[[], None]) -> None:
        """`then` is called as soon as nobody listens for requests any more."""

        async def look() -> None:
            while True:
                try:
                    _, writer = await asyncio.open_connection(*self.listen)
                except OSError:
                    return then()
                writer.close()
                await asyncio.sleep(0.02)

        tasks.create_task(look())

    async def answers(self, times: int = 40) -> Counter[str]:
        return Counter([await self.ask() for _ in range(times)])


@contextlib.asynccontextmanager
async def a_fleet(folder: Path, address: Address) -> AsyncIterator[Fleet]:
    """A fleet with its settings in the registry, and no router yet."""
    async with contextlib.AsyncExitStack() as stack:
        between = Between(address.url)
        await stack.enter_async_context(between.running())
        registry = await stack.enter_async_context(Registry(address))
        tasks = await stack.enter_async_context(asyncio.TaskGroup())
        found = Fleet(folder, registry, between, tasks)
        stack.callback(lambda: [server.close() for server in found._servers.values()])
        await found.settle()
        yield found
