"""A fleet under load with a book: each request has an id, and each goat writes down which ones it was asked."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path

from fleet import Between, Fleet

from milkrun.consul import Address, Registry
from milkrun.load import generator
from milkrun.load.figures import Figures
from milkrun.model import RouterReport

WITHIN_S = 60.0
RATE = 200.0


class Goat:
    """An app that says who it is and what it was asked, until it is told to lie, to hang or to die.

    `status` is what it answers, `health` what `/health` answers, `slow_s` how long it takes; while `gate` is cleared it
    holds its answers back.
    """

    def __init__(self, name: str, version: str) -> None:
        self.name = name
        self.version = version
        self.port = 0
        self.status = 200
        self.health = 200
        self.slow_s = 0.0
        self.killed = False
        self.asked: list[str] = []
        self.held = 0
        self.gate = asyncio.Event()
        self.gate.set()
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()

    async def start(self) -> None:
        """It listens, at the port that it had before."""
        self._server = await asyncio.start_server(self._answer, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    def kill(self) -> None:
        """It is gone, with whatever it had in hand."""
        self.killed = True
        self.stop()
        for writer in self._open:
            writer.transport.abort()

    def stop(self) -> None:
        if self._server:
            self._server.close()

    async def end(self) -> None:
        """It has stopped, and so has what it had in hand."""
        self.kill()
        while self._open:
            await asyncio.sleep(0.01)

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open.add(writer)
        try:
            with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
                while True:
                    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                    status, request = self.health, ""
                    if not head.startswith("GET /health "):
                        status, request = self.status, _request(head)
                        self.asked.append(request)
                        self.held += 1
                        try:
                            await self.gate.wait()
                            await asyncio.sleep(self.slow_s)
                        finally:
                            self.held -= 1
                    said = {
                        "request": request,
                        "service": "goat",
                        "version": self.version,
                        "instance": self.name,
                    }
                    body = json.dumps(said).encode()
                    writer.write(
                        b"HTTP/1.1 %d Said\r\nContent-Length: %d\r\n\r\n%b" % (status, len(body), body)
                    )
                    await writer.drain()
        finally:
            self._open.discard(writer)
            writer.close()


def _request(head: str) -> str:
    """The request's id, empty when it has none (the load's all have one)."""
    for line in head.split("\r\n"):
        if line.lower().startswith("x-request-id: "):
            return line[14:]
    return ""


class Herd(Fleet):
    """A fleet whose goats keep a book of requests, and the load before them."""

    def __init__(self, folder: Path, registry: Registry, between: Between, tasks: asyncio.TaskGroup) -> None:
        super().__init__(folder, registry, between, tasks)
        self.goats: dict[str, Goat] = {}
        self.figures: Figures | None = None

    async def goat(self, name: str, version: str, health: str = "passing") -> Goat:
        goat = Goat(name, version)
        await goat.start()
        self.goats[name] = goat
        self._goats.append(goat)
        if health:
            await self.join(goat, health)
        return goat

    async def end(self) -> None:
        """No goat is left."""
        for goat in self.goats.values():
            await goat.end()

    async def three(self) -> dict[str, Goat]:
        """Goats a and b of 0.0.1 with three quarters of the requests, c of 0.0.2 with the rest."""
        for name, version in (("a", "0.0.1"), ("b", "0.0.1"), ("c", "0.0.2")):
            await self.goat(name, version)
        await self.weigh(1, {"0.0.1": 75, "0.0.2": 25})
        return self.goats

    @property
    def url(self) -> str:
        return "http://{}:{}/milk".format(*self.listen)

    @contextlib.asynccontextmanager
    async def load(self, *, rate: float = RATE) -> AsyncIterator[None]:
        """Requests leave on schedule meanwhile, on kept connections and on new ones; none is repeated.

        They begin when the router serves somebody.
        """
        await self.answering()

        async def run() -> None:
            self.figures = await generator.run(self.url, rate=rate, duration_s=3600, timeout_s=30)

        async with asyncio.TaskGroup() as tasks:
            task = tasks.create_task(run())
            try:
                await self.more(10)
                yield
            finally:
                for goat in self.goats.values():
                    goat.gate.set()
                task.cancel()

    def proved(self) -> Figures:
        """No request failed, none was answered twice, and none was done twice, but for those that a killed goat had."""
        figures = self.figures
        assert figures
        assert figures.failures == {}, figures.failures
        assert figures.duplicated == 0, figures
        assert figures.answered + figures.in_flight == figures.sent
        assert figures.answered > 0
        assert self.done_twice() == {}, self.done_twice()
        return figures

    def done_twice(self) -> dict[str, set[str]]:
        """The requests that more than one goat was asked; one that a killed goat had is rightly asked again."""
        seen: dict[str, list[str]] = {}
        for goat in self.goats.values():
            for request in goat.asked:
                if request:
                    seen.setdefault(request, []).append(goat.name)
        killed = {name for name, goat in self.goats.items() if goat.killed}
        return {
            request: set(names)
            for request, names in seen.items()
            if len([name for name in names if name not in killed]) > 1
        }

    async def more(self, count: int, *names: str) -> None:
        """So many more requests reached the goats with these names, or all of them."""
        goats = [self.goats[name] for name in names] or list(self.goats.values())
        end = sum(len(goat.asked) for goat in goats) + count
        await self.until(lambda: sum(len(goat.asked) for goat in goats) >= end)

    async def until(self, fact: Callable[[], object]) -> None:
        """The fact has come true."""
        async with asyncio.timeout(WITHIN_S):
            while not fact():
                await asyncio.sleep(0.01)

    async def answering(self) -> None:
        """Somebody answers the service's callers."""
        async with asyncio.timeout(WITHIN_S):
            while True:
                with contextlib.suppress(OSError):
                    if (await self.ask()).startswith("{"):
                        return
                await asyncio.sleep(0.02)

    async def report(self) -> RouterReport:
        """The newest report of the router, as it stands in the registry."""
        return await self.reported(lambda _: True)

    async def follows(self, generation: int, *names: str) -> RouterReport:
        """The router serves this generation by exactly these goats: nothing is left to do, held or alarming."""
        wanted = set(names) or set(self.goats)
        return await self.reported(
            lambda report: (
                report.generation == generation
                and not (report.drift or report.held or report.alarms)
                and wanted == {name for name, seen in report.instances.items() if seen.state == "serving"}
            )
        )


@contextlib.asynccontextmanager
async def a_herd(folder: Path, address: Address, **settings) -> AsyncIterator[Herd]:
    """A herd with its settings in the registry, and no router yet."""
    async with contextlib.AsyncExitStack() as stack:
        between = Between(address.url)
        await stack.enter_async_context(between.running())
        registry = await stack.enter_async_context(Registry(address))
        tasks = await stack.enter_async_context(asyncio.TaskGroup())
        found = Herd(folder, registry, between, tasks)
        stack.push_async_callback(found.end)
        await found.settle(**settings)
        yield found


def worker_of(master: int) -> int:
    """The process that carries the traffic of a HAProxy: a reload makes another one."""
    return int(Path(f"/proc/{master}/task/{master}/children").read_text().split()[0])
