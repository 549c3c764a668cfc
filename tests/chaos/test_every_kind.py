"""The router's proof: every kind of caller, while HAProxy is reloaded, shares move, instances come, go and are killed.

Each id is written down by the client and, before it answers, by the instance that took it; the router counts them.
MILKRUN_SOAK=1 is the long form. An instance that leaves is killed (SIGKILL) the moment the router calls it drained.
"""

from __future__ import annotations

import asyncio
import contextlib
import csv
import os
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import aiohttp
import kinds_app
import msgspec
import pytest
from fleet import GOAT, Fleet, a_fleet
from kinds import Asked, Book, clients
from ports import free_ports

from milkrun.agent.drain import blockers
from milkrun.load import generator
from milkrun.load.figures import Figures
from milkrun.model import InstanceId
from milkrun.testing.registry import embedded_registry

SOAK = os.environ.get("MILKRUN_SOAK") == "1"
RATES = {"http2": 40.0, "socket": 4.0, "post": 4.0}
HTTP1 = 60.0
STAYING = {"a1": "v1", "a2": "v1", "b1": "v2"}
"""When the only one of v2 is killed, others must take what it cannot."""
COMING = {"a3": "v1", "a4": "v1", "b2": "v2", "b3": "v2"}
WITHIN_S = 60.0
RELOADS_AT_MOST = 5
"""What began so many reloads ago has ended before the next: HAProxy ends a worker after 8 (mworker-max-reloads)."""
REPEATABLE = {"get", "socket"}
"""What may be sent again when an instance dies; in the instances' ledgers HTTP/2's requests are get, too."""


class Life(msgspec.Struct):
    """One process of an instance: from its start to its end. `killed`: without having been drained."""

    name: str
    process: subprocess.Popen[bytes]
    killed: bool = False


class Instance(msgspec.Struct):
    """An instance in the registry; its processes come one after the other."""

    name: str
    version: str
    port: int


class Pasture:
    """The instances behind a fleet's router, and their ledgers."""

    def __init__(self, fleet: Fleet, folder: Path) -> None:
        self.fleet = fleet
        self.ledgers = folder / "ledgers"
        self.ledgers.mkdir()
        self.instances: dict[str, Instance] = {}
        self.now: dict[str, Life] = {}
        self.lives: dict[str, Life] = {}
        self.kills: list[float] = []
        self.generation = 1

    async def start(self, name: str) -> Life:
        """A process of the instance listens, with a name and a ledger of its own."""
        one = self.instances[name]
        life = f"{name}.{sum(known.partition('.')[0] == name for known in self.lives)}"
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", kinds_app.__file__, life, str(one.port), str(self.ledger(life))],
            stdout=subprocess.PIPE,
        )
        assert process.stdout
        self.lives[life] = self.now[name] = Life(life, process)
        assert await asyncio.to_thread(process.stdout.readline) == b"listens\n"
        return self.lives[life]

    def ledger(self, life: str) -> Path:
        return self.ledgers / f"{life}.log"

    async def joins(self, name: str, version: str) -> None:
        """The instance serves."""
        if name not in self.instances:
            (port,) = free_ports(1)
            self.instances[name] = Instance(name, version, port)
        await self.start(name)
        await self.fleet.join(self.instances[name])  # type: ignore[arg-type]
        await self.fleet.reported(
            lambda report: (seen := report.instances.get(InstanceId(name))) and seen.state == "serving"
        )

    async def leaves(self, name: str) -> None:
        """The instance was drained as an agent does it, and is no more."""
        registry = self.fleet.registry
        await registry.maintenance(name, enable=True, reason="it leaves")
        _, index = await registry.health(GOAT)
        await self.fleet.reported(
            lambda report: not blockers(InstanceId(name), index, {"lb-goat": report}, [])
        )
        await self.end(self.now[name])
        await registry.deregister(name)

    async def is_killed(self, name: str) -> None:
        """Its process is gone at once, and another one took its place and has answered somebody."""
        life = self.now[name]
        life.killed = True
        self.kills.append(time.monotonic())
        await self.end(life)
        again = await self.start(name)
        async with asyncio.timeout(WITHIN_S):
            while not (file := self.ledger(again.name)).exists() or not file.stat().st_size:
                await asyncio.sleep(0.01)

    @staticmethod
    async def end(life: Life) -> None:
        life.process.kill()
        await asyncio.to_thread(life.process.wait)
        assert life.process.stdout
        life.process.stdout.close()

    async def weighs(self, **weights: float) -> None:
        """The router serves these weights."""
        self.generation += 1
        commit = await self.fleet.weigh(self.generation, weights)
        await self.fleet.reported(lambda report: report.commit == commit and not report.drift)

    def written(self) -> dict[tuple[str, str], list[str]]:
        """Which lives wrote down each id, by its kind and itself, as often as they did."""
        found: dict[tuple[str, str], list[str]] = defaultdict(list)
        for file in self.ledgers.glob("*.log"):
            for line in file.read_text().splitlines():
                kind, _, request = line.partition(" ")
                found[kind, request].append(file.stem)
        return found


@pytest.fixture
async def pasture(tmp_path: Path) -> AsyncIterator[Pasture]:
    """Two versions, with two instances and one, behind a router."""
    async with (
        embedded_registry(tmp_path / "registry") as address,
        a_fleet(tmp_path, address) as fleet,
        fleet.router(),
    ):
        found = Pasture(fleet, tmp_path)
        try:
            for name, version in STAYING.items():
                await found.joins(name, version)
            await found.weighs(v1=80, v2=20)
            yield found
        finally:
            for life in found.lives.values():
                if life.process.returncode is None:
                    await found.end(life)


class Load(msgspec.Struct):
    """Everybody who asks, and what `milkrun load` says in the end."""

    book: Book
    figures: list[Figures]


@contextlib.asynccontextmanager
async def load(pasture: Pasture) -> AsyncIterator[Load]:
    """All kinds ask meanwhile: HTTP/1.1 by `milkrun load`'s own generator, the others by tests/kinds.py."""
    host, port = pasture.fleet.listen
    found = Load(Book(), [])

    async def http1() -> None:
        found.figures.append(
            await generator.run(f"http://{host}:{port}/", rate=HTTP1, duration_s=36_000, timeout_s=20)
        )

    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(http1())
        try:
            async with clients((host, port), RATES) as found.book:
                yield found
        finally:
            task.cancel()


Change = Callable[[Pasture, Load, int], Awaitable[None]]


async def change_weights(pasture: Pasture, _: Load, number: int) -> None:
    share = 1 + (number * 37) % 99
    await pasture.weighs(v1=100 - share, v2=share)


async def add_or_remove_an_instance(pasture: Pasture, _: Load, number: int) -> None:
    """Four at a time: the names take turns, and each comes and goes in turn."""
    name = list(COMING)[number % len(COMING)]
    if number // len(COMING) % 2 == 0:
        await pasture.joins(name, COMING[name])
    else:
        await pasture.leaves(name)


async def kill_an_instance(pasture: Pasture, _: Load, number: int) -> None:
    await pasture.is_killed(list(STAYING)[number % len(STAYING)])


class Reload:
    """Another address for the stats page is what only a reload can change."""

    __name__ = "reload_haproxy"

    def __init__(self) -> None:
        self._begun: list[float] = []
        self._ports: list[int] = []

    async def __call__(self, pasture: Pasture, load: Load, number: int) -> None:
        self._ports = self._ports or free_ports(2)
        self._begun.append(time.monotonic())
        async with asyncio.timeout(WITHIN_S):
            while load.book.under_way(self._begun[max(0, number - RELOADS_AT_MOST)]):
                await asyncio.sleep(0.02)
        stats = f"127.0.0.1:{self._ports[number % 2]}"
        await pasture.fleet.settle(stats=stats)
        await pasture.fleet.reported(lambda report: stats in report.stats and not report.drift)


@pytest.mark.timeout(7200 if SOAK else 300)
@pytest.mark.parametrize(
    ("change", "times", "at_once"),
    [
        (change_weights, 2_000 if SOAK else 20, 1),
        (add_or_remove_an_instance, 2_000 if SOAK else 8, len(COMING)),
        (kill_an_instance, 500 if SOAK else 4, 1),
        (Reload(), 1_000 if SOAK else 4, 1),
    ],
    ids=["weights", "instances", "kills", "reloads"],
)
async def test_no_kind_of_caller_loses_anything(
    pasture: Pasture, change: Change, times: int, at_once: int
) -> None:
    async with load(pasture) as found:
        for first in range(0, times, at_once):
            async with asyncio.TaskGroup() as tasks:
                for number in range(first, min(times, first + at_once)):
                    tasks.create_task(change(pasture, found, number))
    print(f"\n{change.__name__}: {times} times; {said(found)}")
    proved(pasture, found)
    if not isinstance(change, Reload):  # each worker counts for itself
        await the_router_counted_them(pasture, found)


def said(load: Load) -> str:
    figures, counts = load.figures[0], load.book.counts()
    failed = sum(bool(asked.why) for asked in load.book.asked.values())
    return (
        f"{figures.sent:,} keep-alive and one-shot, {counts['http2']:,} HTTP/2 on {load.book.connections} connections"
        f" ({load.book.unprocessed} sent again after GOAWAY), {counts['socket']:,} sessions with {counts['word']:,}"
        f" words, {counts['post']:,} uploads in {figures.elapsed_s:.0f} s; not answered: {figures.failed + failed};"
        f" longest {figures.latency.max_ms:.0f} ms, HTTP/2 {load.book.longest_s('http2') * 1000:.0f} ms"
    )


def proved(pasture: Pasture, load: Load) -> None:
    """Nothing failed but what only a killed process had, and nothing was done twice that must not be."""
    figures, written = load.figures[0], pasture.written()
    assert (figures.failures, figures.duplicated) == ({}, 0)
    assert figures.answered + figures.in_flight == figures.sent
    assert [
        asked for asked in load.book.asked.values() if asked.why and not excused(pasture, asked, written)
    ] == []
    assert min(load.book.counts()[kind] for kind in (*RATES, "word")) > 0
    for asked in load.book.asked.values():
        if not asked.why:
            assert asked.by in written[ledger_kind(asked), asked.id], asked
    assert {key: names for key, names in written.items() if not once(pasture, key[0], names)} == {}
    strangers = {request for kind, request in written if kind != "get"} - load.book.asked.keys()
    assert strangers == set()
    ours = {request for kind, request in written if kind == "get"} - load.book.asked.keys()
    assert figures.answered <= len(ours) <= figures.sent


async def the_router_counted_them(pasture: Pasture, load: Load) -> None:
    """HAProxy had each request once, and no other: those that `milkrun load` gave up at its end may be missing."""
    async with aiohttp.ClientSession() as session:
        url = "http://{}:{}/monitor;csv".format(*pasture.fleet.stats)
        async with session.get(url) as answer:
            rows = csv.DictReader((await answer.text()).removeprefix("# ").splitlines())
    (had,) = (
        int(row["req_tot"]) for row in rows if (row["pxname"], row["svname"]) == ("lb-goat", "FRONTEND")
    )
    figures, others = load.figures[0], sum(load.book.counts()[kind] for kind in RATES)
    assert figures.sent - figures.in_flight <= had - others <= figures.sent


def ledger_kind(asked: Asked) -> str:
    return "get" if asked.kind == "http2" else asked.kind


def once(pasture: Pasture, kind: str, names: list[str]) -> bool:
    """Whether an id was done once; one that may be repeated was so only because a process was killed with it."""
    if kind not in REPEATABLE:
        return len(names) == 1
    return len(set(names)) == len(names) and sum(not pasture.lives[name].killed for name in names) <= 1


def excused(pasture: Pasture, asked: Asked, written: dict[tuple[str, str], list[str]]) -> bool:
    """Whether it ended because a process that had it was killed: what is under way on it cannot be done again.

    A session that was open, and a POST that was sent; one that its process had not read yet is in no ledger, and was
    under way when some process was killed.
    """
    match asked.kind:
        case "word":
            return pasture.lives[asked.by].killed
        case "socket":
            return asked.taken and all(pasture.lives[name].killed for name in written["socket", asked.id])
        case "post":
            if takers := written.get(("post", asked.id), []):
                return pasture.lives[takers[0]].killed
            return any(asked.begun <= kill <= asked.ended for kill in pasture.kills)
        case _:
            return False
