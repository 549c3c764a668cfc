"""What all workers of a HAProxy counted, the one that serves and those that end their requests after a reload."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Collection, Mapping

import structlog

from milkrun.errors import DataPlaneError
from milkrun.model import InstanceId, ServiceName, VersionName
from milkrun.router.desired import RoutingState
from milkrun.router.haproxy import config, counting
from milkrun.router.haproxy.counting import Reading
from milkrun.router.haproxy.former import Former
from milkrun.router.haproxy.memory import Memory
from milkrun.router.haproxy.socket import RuntimeSocket
from milkrun.router.plane import EACH_AT_MOST, Counted

Lanes = Mapping[VersionName, int]

LOOK_S = 0.5
"""Former workers are not asked more often: a sidecar's are asked for each of its services."""


class Tally:
    """Reads counters on the runtime socket; `across_reload` keeps what the worker of before has still to count."""

    def __init__(self, admin: RuntimeSocket) -> None:
        self._admin = admin
        self._formers: list[Former] = []
        self._taken: dict[Former, set[ServiceName]] = {}
        self._looking = asyncio.Lock()
        self._again_at = 0.0
        self.ended: set[int] = set()
        """The former workers that have ended their last request and were read: they are about to be gone."""
        self._whose: dict[ServiceName, dict[InstanceId, VersionName]] = {}
        self._log = structlog.get_logger("haproxy")

    async def read(
        self, service: ServiceName, count: int, lanes: Lanes, wanted: RoutingState
    ) -> list[Counted]:
        """Every place's counters of one service, which has `count` lanes now."""
        each = _each(count, lanes, wanted)
        found = await self._reading(service, count, pool=False, each=each)
        if counting.pooled(found, service):
            found = await self._reading(service, count, pool=True, each=each)
        there = {InstanceId(row.name) for row in found.rows} | _versions(wanted).keys()
        whose = {**self._whose.get(service, {}), **_versions(wanted)}
        self._whose[service] = {name: version for name, version in whose.items() if name in there}
        places = self._teller(service, count, lanes, wanted, each)(found)
        await self.look()
        for former in list(self._formers):
            places += former.counted.get(service, [])
            self._took(former, service)
        return places

    async def look(self) -> None:
        """The former workers that have nothing left to do are read to the end and let go."""
        async with self._looking:  # several services ask, and each former worker answers one after the other
            now = asyncio.get_running_loop().time()
            if now < self._again_at:
                return
            self._again_at = now + LOOK_S
            for former in [one for one in self._formers if not one.over]:
                if await former.read():
                    self.ended.add(former.process)
                elif former.over and former.in_flight:
                    self._log.warning(
                        "a worker from before a reload is gone with requests that it had",
                        requests=former.in_flight,
                    )

    async def _reading(
        self, service: ServiceName, count: int, *, pool: bool, each: Collection[int]
    ) -> Reading:
        """On one connection, so that one worker says all of it."""
        questions = counting.questions(service, count, pool=pool, each=each)
        return counting.reading(await self._admin.ask(";".join(questions)))

    def _teller(
        self,
        service: ServiceName,
        count: int,
        lanes: Lanes,
        wanted: RoutingState,
        each: Collection[int],
    ) -> Callable[[Reading], list[Counted]]:
        """From what a worker says to its counters: its lanes and instances are those of now."""
        whose = {**self._whose.get(service, {}), **_versions(wanted)}
        versions = {number: version for version, number in lanes.items()}
        return lambda found: counting.counted(found, service, count, versions, whose, each=each)

    def _took(self, former: Former, service: ServiceName) -> None:
        """What a worker that is over said last was taken once by each of its services: it is forgotten then."""
        if not former.over:
            return
        taken = self._taken.setdefault(former, set())
        taken.add(service)
        if taken >= former.lanes.keys():
            self._formers.remove(former)
            del self._taken[former]

    @contextlib.asynccontextmanager
    async def across_reload(
        self, memory: Memory, wanted: Mapping[ServiceName, RoutingState]
    ) -> AsyncIterator[None]:
        """A reload in here leaves a worker whose counters are read to the end. A reload matters more than that."""
        sections = memory.running.sections if memory.running else {}
        counts = {service: section.lanes for service, section in sections.items()}
        lanes = {service: memory.lanes.get(service, {}) for service in counts}
        states = {service: wanted.get(service, RoutingState()) for service in counts}
        each = {service: _each(count, lanes[service], states[service]) for service, count in counts.items()}
        tellers = {
            service: self._teller(service, count, lanes[service], states[service], each[service])
            for service, count in counts.items()
        }
        until = time.time() + (config.reload_limit_s(memory.running) if memory.running else 0.0)
        former = None
        try:
            former = await Former.held(self._admin, counts, tellers, each, until=until)
        except DataPlaneError as error:
            self._log.warning("what the former worker counts from now on is lost", why=str(error))
        try:
            yield
        except BaseException:
            if former:
                former.release()
            raise
        if former:
            self._formers.append(former)
            self._again_at = (
                0.0  # a reading without it would take its counters for new ones when they come back
            )

    def release(self) -> None:
        """No worker is held any more."""
        for former in self._formers:
            former.release()
        self._formers.clear()
        self._taken.clear()


def _each(count: int, lanes: Lanes, wanted: RoutingState) -> frozenset[int]:
    """The lanes of which each server is asked for: not those with many, or with who knows how many that leave."""
    sizes = {version: len(servers) for version, servers in wanted.versions.items()}
    return frozenset(range(count)) - frozenset(
        number for version, number in lanes.items() if sizes.get(version, EACH_AT_MOST + 1) > EACH_AT_MOST
    )


def _versions(state: RoutingState) -> dict[InstanceId, VersionName]:
    return {name: version for version, servers in state.versions.items() for name in servers}
