"""The data plane port on a real Envoy: one process with all services of a router, told by its discovery server."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec
import structlog

from milkrun.errors import DataPlaneError, InputRefused
from milkrun.model import ServiceName
from milkrun.router import disk
from milkrun.router.desired import RoutingState
from milkrun.router.diff import Observed, Operation
from milkrun.router.envoy import clusters, counting, readback
from milkrun.router.envoy.admin import Shared
from milkrun.router.envoy.ads import Ads
from milkrun.router.envoy.binary import Binary
from milkrun.router.envoy.files import Files
from milkrun.router.envoy.listeners import tcp_service
from milkrun.router.envoy.outside import kept
from milkrun.router.envoy.process import Process
from milkrun.router.envoy.resources import Kind, Snapshot, snapshot, snapshot_for
from milkrun.router.envoy.strangers import Asked
from milkrun.router.envoy.told import after, steps
from milkrun.router.front import Front
from milkrun.router.plane import EACH_AT_MOST, Counted
from milkrun.router.ports import in_the_way

MEMORY_FILE = "envoy.plane.json"


class Memory(msgspec.Struct, frozen=True, kw_only=True):
    """What Envoy was told last: where it stands, and each service's state. A router that takes Envoy over tells it
    the same, so nothing changes by a restart. `certificates` are the copies that it listens with, by their names.
    """

    front: Front
    told: dict[ServiceName, RoutingState] = {}
    certificates: tuple[str, ...] = ()


class Envoy:
    """The Envoy of a router in `folder`. See the port for what each call promises."""

    def __init__(self, folder: Path, binary: Binary, front: Front) -> None:
        self._folder = folder
        self._process = Process(folder, binary)
        self._splits = Shared(self._process.admin)
        self._ads = Ads(folder, front.name)
        self._outside = kept(folder)
        self._files = Files(folder)
        self._front = front
        self._memory = Memory(front=front)
        self._changing = asyncio.Lock()
        self._epoch = f"{time.time_ns() // 1_000_000:x}"
        self._versions = itertools.count(1)
        self._log = structlog.get_logger("envoy")
        self.name = f"envoy {binary.version_text}"
        self.reloads = 0
        self._late = ""

    @property
    def behind(self) -> str:
        """Why it does not follow its front yet, or other Envoys cannot ask."""
        return "; ".join(filter(None, [self._late, self._ads.closed]))

    @property
    def alarms(self) -> list[str]:
        """Who carries traffic that nobody counts."""
        silent = self._ads.silent
        if not silent:
            return []
        some = ", ".join(silent[:3]) + (", ..." if len(silent) > 3 else "")
        many = f"{len(silent)} Envoy{'s' * (len(silent) > 1)} elsewhere ({some})"
        return [f"nobody counts what {many} carry: no figures have it, and no drain waits for it"]

    async def start(self, wanted: Mapping[ServiceName, RoutingState]) -> None:
        """Envoy serves: the one a former router left, as it is, or a new one serving `wanted`.

        One that runs already goes on serving also when it cannot take over new addresses: `behind` says why.
        """
        async with self._changing:
            known = disk.load(self._folder / MEMORY_FILE, Memory)
            certificates = self._files.certificates() if self._front.certificates else ()
            now = Memory(front=self._front, told=dict(wanted), certificates=certificates)
            if self._process.adopt():
                await self._taken_over(known or now, now)
            else:
                await self._started(now)
            self._files.tidy(self._memory.certificates)

    def adopt(self) -> bool:
        """True when the Envoy that a former router started runs: it is this one's now, untouched."""
        return self._process.adopt()

    async def stand(self, front: Front) -> None:
        """From the next start on, it stands as this front says."""
        async with self._changing:
            self._front = front

    async def _started(self, memory: Memory) -> None:
        self._keep(self._sound(memory))
        await self._listen()
        await self._process.start(self._front.name, [self._front.listen, self._front.stats])
        if refused := await self._ads.settled():
            raise DataPlaneError(_refusal(refused))

    def _sound(self, memory: Memory) -> Memory:
        """The memory without the states that cannot be told: one poisoned service keeps no other from its start."""
        told = {}
        for service, state in memory.told.items():
            try:
                self._snapshot(msgspec.structs.replace(memory, told={service: state}))
            except DataPlaneError as error:
                self._log.error("a service begins with nobody", service=service, why=str(error))
            else:
                told[service] = state
        return msgspec.structs.replace(memory, told=told)

    async def _taken_over(self, known: Memory, wanted: Memory) -> None:
        self._memory = self._sound(known)
        await self._listen()
        await self._ads.settled()
        told = {
            service: known.told.get(service, wanted.told.get(service, RoutingState()))
            for service in self._front.services
        }
        now = msgspec.structs.replace(wanted, told=told)
        if now == known:
            self._log.info("took over the running Envoy as it is")
            return
        self._late = in_the_way(
            "Envoy", [self._front.listen, self._front.stats], [known.front.listen, known.front.stats]
        )
        if self._late:
            there = msgspec.structs.replace(self._front, listen=known.front.listen, stats=known.front.stats)
            now = msgspec.structs.replace(now, front=there)
        try:
            await self._tell(now)
        except DataPlaneError as error:
            self._late = str(error)
            self._log.error("took over the running Envoy, which does not follow yet", why=str(error))

    def of(self, service: ServiceName) -> ServicePlane:
        """The port on one of its services."""
        return ServicePlane(self, service)

    async def alive(self) -> bool:
        """Whether it runs."""
        return self._process.running()

    async def former_workers(self) -> int:
        """None: Envoy changes in place, and what drains is still counted."""
        return 0

    def release(self) -> None:
        """Nothing of it waits."""

    async def leave(self) -> None:
        """The router tells it nothing any more; it serves on as it is."""
        await self._ads.stop()

    async def stop(self) -> None:
        """Envoy has ended its requests and is gone, also one that a former router left and this one never told."""
        self._process.adopt()
        await self._process.stop()
        await self.leave()

    # What each service's port is made of

    async def observed(self, service: ServiceName) -> Observed:
        """What Envoy does now for the service."""
        await self._open()
        tcp = self._tcp(service)
        hosts = await self._process.admin.get(readback.question(service))
        split = await self._splits.read(readback.LISTENERS if tcp else readback.ROUTES)
        told = self._memory.told.get(service, RoutingState())
        there, placed = readback.clusters(hosts, service), readback.placement(split, service)
        elsewhere = self._ads.loads.in_flight(service)
        return readback.observed(told, there, placed, tcp=tcp, elsewhere=elsewhere)

    async def apply(self, service: ServiceName, operations: Sequence[Operation]) -> None:
        """Envoy has taken the operations. What it refuses is taken back, and raised with Envoy's own words."""
        async with self._changing:
            self._process.trim_log()
            for step in steps(operations):
                before = self._memory.told.get(service, RoutingState())
                told = {**self._memory.told, service: after(before, step)}
                await self._tell(msgspec.structs.replace(self._memory, told=told))

    async def traffic(self, service: ServiceName) -> list[Counted]:
        """What each version's cluster counted, here and elsewhere, and of a version with few servers each of them."""
        told, tcp = self._memory.told.get(service, RoutingState()), self._tcp(service)
        body = await self._process.admin.get(counting.question(service))
        found = counting.counted(body, service, clusters.names(told), self._process.pid, tcp=tcp)
        few = {version for version, servers in told.versions.items() if len(servers) <= EACH_AT_MOST}
        if few:
            hosts = await self._process.admin.get(readback.question(service))
            found = counting.with_each(found, readback.clusters(hosts, service), few, tcp=tcp)
        return [*found, *self._ads.loads.counted(service, told, few)]

    def _tcp(self, service: ServiceName) -> bool:
        return tcp_service(self._memory.front) == service

    # Telling

    async def _listen(self) -> None:
        """The discovery server answers with what is remembered."""
        now = self._snapshot(self._memory)
        await self._ads.start(now)
        self._publish(now)
        await self._open()

    async def _open(self) -> None:
        """Other Envoys may ask, where the router was told so."""
        await self._ads.open(self._outside, self._snapshot_for)

    async def _tell(self, memory: Memory) -> None:
        """Envoy has what is in `memory`, and its new clusters were probed; or it has what it had, and why is raised."""
        before = self._memory
        now = self._snapshot(memory)
        self._keep(memory)
        self._publish(now)
        refused = await self._ads.settled()
        if not refused:
            return
        self._keep(before)
        self._publish(self._snapshot(before))
        await self._ads.settled()
        raise DataPlaneError(_refusal(refused))

    def _publish(self, now: Snapshot) -> None:
        """Every Envoy should have this, which is what is remembered."""
        number = self._ads.publish(now)
        if self._outside:
            self._ads.loads.told(self._memory.told, number)

    def _snapshot(self, memory: Memory) -> Snapshot:
        try:
            secrets = self._files.secrets(memory.front, memory.certificates)
            return snapshot(self._version(), memory.front, memory.told, secrets)
        except InputRefused as error:
            raise DataPlaneError(f"not told to Envoy: {error}") from error

    def _snapshot_for(self, asked: Asked) -> Snapshot:
        return snapshot_for(asked, self._version(), self._memory.front, self._memory.told)

    def _version(self) -> str:
        return f"{self._epoch}.{next(self._versions)}"

    def _keep(self, memory: Memory) -> None:
        disk.write(self._folder / MEMORY_FILE, msgspec.json.encode(memory))
        self._memory = memory


class ServicePlane:
    """The port on one service of an Envoy."""

    def __init__(self, envoy: Envoy, service: ServiceName) -> None:
        self._envoy, self._service = envoy, service

    async def observe(self) -> Observed:
        """Its clusters as versions, with the requests in flight in all of them."""
        return await self._envoy.observed(self._service)

    async def apply(self, operations: Sequence[Operation], wanted: RoutingState) -> None:  # noqa: ARG002
        """Envoy has taken the operations, and a router that starts again would tell it the same."""
        await self._envoy.apply(self._service, operations)

    async def traffic(self) -> list[Counted]:
        """What each version's cluster counted."""
        return await self._envoy.traffic(self._service)


def _refusal(refused: Mapping[Kind, str]) -> str:
    return "; ".join(f"Envoy refuses its {kind.name.lower()}: {why}" for kind, why in refused.items())
