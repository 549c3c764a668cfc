"""The data plane port on a real HAProxy: one process with all services of a router, one `Lanes` for each of them."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec
import structlog

from milkrun.errors import DataPlaneError, PortTaken
from milkrun.model import InstanceId, ServiceName, VersionName
from milkrun.router import disk
from milkrun.router.desired import RoutingState
from milkrun.router.diff import Observed, Operation
from milkrun.router.front import Front
from milkrun.router.haproxy import choice, config, section
from milkrun.router.haproxy.binary import Binary
from milkrun.router.haproxy.memory import Memory, planned
from milkrun.router.haproxy.process import Process, refuse_taken
from milkrun.router.haproxy.service import Service
from milkrun.router.plane import Counters


class HAProxy:
    """The HAProxy of a router in `folder`. See the port for what each call promises."""

    def __init__(self, folder: Path, binary: Binary, front: Front, *, override_key: bytes = b"") -> None:
        self._folder = folder
        self._process = Process(folder, binary)
        self._front = front
        self._memory = Memory()
        self._wanted: dict[ServiceName, RoutingState] = {}
        self._occupied: dict[ServiceName, frozenset[VersionName]] = {}
        self._former = True
        self._changing = asyncio.Lock()
        self._log = structlog.get_logger("haproxy")
        self.name = f"haproxy {binary.version_text}"
        self.reloads = 0
        self.behind = ""
        self._override_key = override_key

    async def start(self, wanted: Mapping[ServiceName, RoutingState]) -> None:
        """HAProxy serves: the one a former router left, as it is, or a new one serving `wanted`.

        One that runs already goes on serving also when it cannot take over new addresses: `behind` says why.
        """
        async with self._changing:
            self._wanted = dict(wanted)
            known = disk.load(self._folder / "plane.json", Memory)
            self._memory = known or Memory()
            self._occupied = {}
            if not self._process.adopt():
                self._memory = msgspec.structs.replace(self._memory, running=None)
                await self._started()
                return
            await self._tell_key()
            plan = self._planned()
            if not plan.due:
                self._log.info("took over the running HAProxy without a reload")
                return
            try:
                await self._reload(plan)
            except DataPlaneError as error:
                if known is None:
                    raise  # it runs, but what it does cannot be known
                self._log.error("took over the running HAProxy, which does not follow yet", why=str(error))

    async def _tell_key(self) -> None:
        """A HAProxy that was taken over has this router's key for override cookies."""
        running = self._memory.running
        if running and choice.needs_key(each.traffic for each in running.sections.values()):
            text = choice.key_text(self._override_key)
            await self._process.admin.batch(
                [f"clear map {choice.KEY_MAP}", *([f"add map {choice.KEY_MAP} key {text}"] if text else [])]
            )

    async def _started(self) -> None:
        plan = self._planned()
        self._keep(plan)
        self._render(plan)
        await self._process.start([plan.layout.listen, plan.layout.stats])
        self._keep(msgspec.structs.replace(plan, running=plan.layout))

    def of(self, service: ServiceName) -> ServicePlane:
        """The port on one of its services."""
        return ServicePlane(self, Service(service, self._process.admin))

    async def alive(self) -> bool:
        """Whether the master runs."""
        return self._process.running()

    async def former_workers(self) -> int:
        """How many workers from before a reload still end their requests; only a reload can leave any."""
        if not self._former:
            return 0
        before = self.reloads
        count = await self._process.former_workers()
        if self.reloads == before and not self._changing.locked():
            self._former = count > 0  # else a reload came in between: its worker may not be among them
        return count

    async def stop(self) -> None:
        """HAProxy has ended its requests and is gone."""
        await self._process.stop()

    # What each service's port is made of

    async def observed(self, service: Service) -> Observed:
        """What HAProxy does now for the service."""
        running = self._memory.running
        if running is None or service.name not in running.sections:
            return Observed()
        lanes = self._memory.lanes.get(service.name, {})
        found, lanes = await service.observed(running.sections[service.name], lanes)
        if lanes.keys() - self._memory.lanes.get(service.name, {}).keys():
            everyone = {**self._memory.lanes, service.name: lanes}
            self._memory = msgspec.structs.replace(self._memory, lanes=everyone)
        self._occupied[service.name] = frozenset(found.versions.keys() | found.shares.keys()) & lanes.keys()
        return found

    async def apply(self, service: Service, operations: Sequence[Operation], wanted: RoutingState) -> None:
        """The files hold `wanted`, then HAProxy is told; what needs more lanes than there are takes a reload."""
        async with self._changing:
            self._process.trim_log()
            self._wanted[service.name] = wanted
            plan = self._planned()
            if plan.due:
                await self._reload(plan)
                return
            self._keep(plan)
            self._render(plan)
            shape = plan.layout.sections[service.name]
            await service.apply(operations, wanted, shape, plan.lanes.get(service.name, {}))

    async def traffic(self, service: Service) -> dict[InstanceId, Counters]:
        """What each server of the service answered."""
        running = self._memory.running
        if running is None or service.name not in running.sections:
            return {}
        return await service.traffic(running.sections[service.name])

    # The files

    def _planned(self) -> Memory:
        now = self._memory
        plan = planned(now, self._front, self._wanted, self._occupied)
        self.behind = "" if now.running is None else _taken(plan.layout, now.running)
        if now.running and self.behind:
            there = {"listen": now.running.listen, "stats": now.running.stats}
            plan = msgspec.structs.replace(plan, layout=msgspec.structs.replace(plan.layout, **there))
        return plan

    def _keep(self, memory: Memory) -> None:
        disk.write(self._folder / "plane.json", msgspec.json.encode(memory))
        self._memory = memory

    def _render(self, memory: Memory) -> None:
        text = config.render(memory.layout, memory.lanes, self._wanted)
        disk.write(self._folder / config.CONFIG_FILE, text.encode())
        for service in memory.layout.sections:
            state = self._wanted.get(service, RoutingState())
            slots = section.render_map(service, state, memory.lanes.get(service, {}))
            disk.write(self._folder / choice.map_name(service), slots.encode())
        services = {service: each.traffic for service, each in memory.layout.sections.items()}
        for name, content in choice.files(services, self._wanted, memory.lanes, self._override_key).items():
            disk.write(self._folder / name, content.encode())

    async def _reload(self, plan: Memory) -> None:
        """HAProxy serves what is wanted from new files. What it has now is remembered until it does."""
        self._render(plan)
        self._former = True
        await self._process.reload()
        self._keep(msgspec.structs.replace(plan, running=plan.layout))
        self.reloads += 1
        self._log.info("reloaded HAProxy", services=len(plan.layout.sections), reloads=self.reloads)


class ServicePlane:
    """The port on one service of a HAProxy."""

    def __init__(self, haproxy: HAProxy, service: Service) -> None:
        self._haproxy, self._service = haproxy, service

    async def observe(self) -> Observed:
        """Lanes as versions, with the requests in flight in the lane and in the service's pool."""
        return await self._haproxy.observed(self._service)

    async def apply(self, operations: Sequence[Operation], wanted: RoutingState) -> None:
        """The files hold `wanted`, then HAProxy is told."""
        await self._haproxy.apply(self._service, operations, wanted)

    async def traffic(self) -> dict[InstanceId, Counters]:
        """Each server's answers, in its lane and in the service's pool together."""
        return await self._haproxy.traffic(self._service)


def _taken(layout: config.Layout, running: config.Layout) -> str:
    """Why HAProxy cannot take over the layout's addresses from the ones it has; empty when it can."""
    ours = {running.listen[1], running.stats[1]}
    for host, port in (layout.listen, layout.stats):
        if port not in ours:
            try:
                refuse_taken(host, port)
            except PortTaken as error:
                return f"{error.message}; HAProxy goes on at its former addresses"
    return ""
