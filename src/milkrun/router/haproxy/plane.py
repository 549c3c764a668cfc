"""The data plane port on a real HAProxy: one process with all services of a router, one `Lanes` for each of them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec
import structlog

from milkrun.errors import DataPlaneError
from milkrun.model import InstanceId, ServiceName, VersionName
from milkrun.router import disk
from milkrun.router.certificates import Certificates
from milkrun.router.desired import Mode, RoutingState
from milkrun.router.diff import Add, Observed, Operation, diff, said
from milkrun.router.front import Front
from milkrun.router.haproxy import choice, config, counting, entrance, guard, section
from milkrun.router.haproxy.binary import Binary
from milkrun.router.haproxy.memory import Memory, as_it_runs, planned, with_lanes
from milkrun.router.haproxy.process import Process, Refused
from milkrun.router.haproxy.service import Service
from milkrun.router.haproxy.tally import Tally
from milkrun.router.plane import Counted
from milkrun.router.ports import in_the_way

DRAFT = "draft"
ADDED_AT_MOST = 2000
"""Servers that are added at run time at once. Each stops all of HAProxy's threads for a moment, and takes longer the
more there are: ten thousand took half a minute on a busy machine, a reload with as many a few seconds.
"""


class _Refusal(msgspec.Struct, frozen=True, kw_only=True):
    """A layout that was refused, why, and from when on it is worth another try."""

    layout: config.Layout
    why: str
    again_at: float


class Objected(Refused):
    """Our own guard would not have the file. What it misses may be read in the next moment."""

    again_s = 0.0


class HAProxy:
    """The HAProxy of a router in `folder`. See the port for what each call promises."""

    def __init__(
        self,
        folder: Path,
        binary: Binary,
        front: Front,
        certificates: Certificates | None = None,
        *,
        override_key: bytes = b"",
    ) -> None:
        self._folder = folder
        self._process = Process(folder, binary)
        self._tally = Tally(self._process.admin)
        self._front = front
        self._form = config.form(front)
        self._memory = Memory()
        self._wanted: dict[ServiceName, RoutingState] = {}
        self._occupied: dict[ServiceName, frozenset[VersionName]] = {}
        self._former = True
        self._changing = asyncio.Lock()
        self._log = structlog.get_logger("haproxy")
        self.name = f"haproxy {binary.version_text}"
        self.alarms: list[str] = []
        if binary.weakness:
            self._log.warning(binary.weakness)
        self._certificates = certificates
        self._override_key = override_key
        self._decided: set[ServiceName] = set()
        self._in_the_way = ""
        self._refused: _Refusal | None = None

    @property
    def reloads(self) -> int:
        """How often it was reloaded since it was started."""
        return self._memory.reloads

    @property
    def behind(self) -> str:
        """Why it does not follow its front yet; empty when it does."""
        refused = self._refused.why if self._refused else ""
        return "; ".join(why for why in (self._in_the_way, refused) if why)

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
                last = self._memory.running
                self._memory = msgspec.structs.replace(self._memory, running=None, reloads=0)
                await self._started(last)
                return
            await self._tell_key()
            plan = self._planned()
            if not plan.due:
                self._log.info("took over the running HAProxy without a reload")
                return
            try:
                await self._reload(plan)
            except Refused as refused:
                if self._memory.running is None:
                    raise  # it runs, but what it does cannot be known
                self._put_off(plan, self._memory.running, refused)
            except DataPlaneError as error:
                if known is None:
                    raise
                self._log.error("took over the running HAProxy, which does not follow yet", why=str(error))

    async def _tell_key(self) -> None:
        """A HAProxy that was taken over has this router's key for override cookies."""
        running = self._memory.running
        if running and choice.needs_key(each.traffic for each in running.sections.values()):
            text = choice.key_text(self._override_key)
            await self._process.admin.batch(
                [f"clear map {choice.KEY_MAP}", *([f"add map {choice.KEY_MAP} key {text}"] if text else [])]
            )

    async def _started(self, last: config.Layout | None) -> None:
        """It serves in the planned layout; in the last one that ran when the planned one is refused."""
        plan = self._planned()
        try:
            await self._judged(plan)
        except Refused as refused:
            if last is None or last == plan.layout:
                raise
            plan = self._put_off(plan, last, refused)
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
        await self._tally.look()
        count = await self._process.former_workers(self._tally.ended)
        if self.reloads == before and not self._changing.locked():
            self._former = count > 0  # else a reload came in between: its worker may not be among them
        return count

    async def stop(self) -> None:
        """HAProxy has ended its requests and is gone."""
        self._tally.release()
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
        """HAProxy is told and the files hold `wanted`; what needs more lanes than there are, or brings thousands of
        servers at once, takes a reload.

        HAProxy first: traffic does not wait for the disk. A router that is killed in between has the decision on disk
        already, and its successor writes the files from it. While a reload is refused, what needs none is done all the
        same.
        """
        async with self._changing:
            self._process.trim_log()
            self._wanted[service.name] = wanted
            self._decided.add(service.name)
            plan = self._planned()
            if plan.due or sum(isinstance(operation, Add) for operation in operations) > ADDED_AT_MOST:
                try:
                    await self._reload(plan)
                except Refused as refused:
                    running = self._memory.running
                    if running is None:
                        raise
                    plan = self._put_off(plan, running, refused)
                    if service.name not in with_lanes(plan, self._wanted):
                        raise
                else:
                    return
            self._keep(plan)
            shape = plan.layout.sections[service.name]
            try:
                await service.apply(operations, wanted, shape, plan.lanes.get(service.name, {}))
            finally:  # also when HAProxy does not answer: when it is started again it serves what it should
                self._render(plan)

    def release(self) -> None:
        """No former worker waits for this router to read its counters."""
        self._tally.release()

    async def traffic(self, service: Service) -> list[Counted]:
        """What each lane of the service counted, and each server of its pool, in every worker."""
        running = self._memory.running
        if running is None or service.name not in running.sections:
            return []
        name, lanes = service.name, self._memory.lanes.get(service.name, {})
        wanted = self._wanted.get(name, RoutingState())
        return await self._tally.read(name, running.sections[name].lanes, lanes, wanted)

    # The files

    def _planned(self) -> Memory:
        now = self._memory
        certificates = tuple(one.digest for one in self._certificates.good) if self._certificates else ()
        plan = planned(
            now, self._front, self._wanted, self._occupied, certificates=certificates, form=self._form
        )
        self._in_the_way = ""
        if now.running:
            there = {"listen": now.running.listen, "stats": now.running.stats}
            self._in_the_way = in_the_way("HAProxy", [plan.layout.listen, plan.layout.stats], there.values())
            if self._in_the_way:
                plan = msgspec.structs.replace(plan, layout=msgspec.structs.replace(plan.layout, **there))
        if not plan.due:
            self._refused = None
        return plan

    def _put_off(self, plan: Memory, running: config.Layout, refused: Refused) -> Memory:
        """What can be done of the plan while its layout is refused; `behind` says why."""
        text = str(refused)
        if self._refused is None or self._refused.why != text:
            self._log.error("HAProxy goes on as it is: its new file is refused", why=text)
        now = time.monotonic()
        if self._refused is None or self._refused.layout != plan.layout or now >= self._refused.again_at:
            self._refused = _Refusal(layout=plan.layout, why=text, again_at=now + refused.again_s)
        return as_it_runs(self._memory, plan, running)

    def _keep(self, memory: Memory) -> None:
        disk.write(self._folder / "plane.json", msgspec.json.encode(memory))
        self._memory = memory

    def _maps(self, memory: Memory, states: Mapping[ServiceName, RoutingState]) -> dict[ServiceName, str]:
        return {
            service: section.render_map(
                service, states.get(service, RoutingState()), memory.lanes.get(service, {})
            )
            for service in memory.layout.sections
        }

    def _files(self, memory: Memory, states: Mapping[ServiceName, RoutingState]) -> dict[str, str]:
        services = {service: each.traffic for service, each in memory.layout.sections.items()}
        found = choice.files(services, states, memory.lanes, self._override_key)
        return {**found, counting.BUCKETS_FILE: counting.buckets()}

    def _render(self, memory: Memory) -> None:
        states = with_lanes(memory, self._wanted)
        text = config.render(memory.layout, memory.lanes, states)
        _write(self._folder, memory.layout, self._maps(memory, states), text, self._files(memory, states))

    async def _judged(self, plan: Memory) -> None:
        """Raises Refused when the planned file is not one to serve from. Nothing that serves is touched."""
        text = config.render(plan.layout, plan.lanes, self._wanted)
        maps = self._maps(plan, self._wanted)
        if found := guard.objections(text, maps, self._wanted, await self._undecided()):
            raise Objected(f"the new file is not what is wanted: {'; '.join(found[:3])}")
        draft = self._folder / DRAFT
        draft.mkdir(mode=0o700, exist_ok=True)
        copies = draft / entrance.CERTIFICATES_FOLDER
        if plan.layout.certificates and not copies.is_symlink():
            copies.symlink_to(Path("..") / entrance.CERTIFICATES_FOLDER)
        _write(draft, plan.layout, maps, text, self._files(plan, self._wanted))
        await self._process.check(draft)

    async def _undecided(self) -> dict[ServiceName, frozenset[InstanceId]]:
        """The instances that HAProxy has in service, of services whose wish this router has not read yet."""
        found: dict[ServiceName, frozenset[InstanceId]] = {}
        running = self._memory.running
        for name in running.sections if running else ():
            if name in self._front.services and name not in self._decided:
                observed = await self.observed(Service(name, self._process.admin))
                found[name] = frozenset(
                    server
                    for servers in observed.versions.values()
                    for server, seen in servers.items()
                    if seen.server.mode is Mode.SERVE
                )
        return found

    async def _reload(self, plan: Memory) -> None:
        """HAProxy serves what is wanted from new files, read back. What it has now is remembered until it does.

        Raises Refused when it would not, and then it has what it had, on the disk too.
        """
        known = self._refused
        if known and known.layout == plan.layout and time.monotonic() < known.again_at:
            raise Refused(known.why)
        await self._judged(plan)
        running = self._memory.running
        self._render(plan)
        self._former = True
        try:
            async with self._tally.across_reload(self._memory, self._wanted):
                await self._process.reload()
        except Refused:
            if running:
                self._render(as_it_runs(self._memory, plan, running))
            raise
        self._keep(msgspec.structs.replace(plan, running=plan.layout, reloads=plan.reloads + 1))
        self._refused = None
        self._log.info("reloaded HAProxy", services=len(plan.layout.sections), reloads=self.reloads)
        if self._certificates:
            self._certificates.tidy(plan.layout.certificates)
        await self._read_back(plan)

    async def _read_back(self, plan: Memory) -> None:
        """Raises DataPlaneError when a service is not what its file says; its own loop mends it."""
        for name in plan.layout.sections:
            observed = await self.observed(Service(name, self._process.admin))
            if left := diff(observed, self._wanted.get(name, RoutingState())):
                raise DataPlaneError(f"after the reload {name} is not as its file says: {said(left[0])}")


def _write(
    folder: Path,
    layout: config.Layout,
    maps: Mapping[ServiceName, str],
    text: str,
    files: Mapping[str, str],
) -> None:
    """The folder holds all that HAProxy reads, and the file that names the others last."""
    if layout.certificates:
        disk.write(folder / entrance.CERTIFICATES_FILE, entrance.certificates(layout.certificates).encode())
    for service, slots in maps.items():
        disk.write(folder / choice.map_name(service), slots.encode())
    for name, content in files.items():
        disk.write(folder / name, content.encode())
    disk.write(folder / config.CONFIG_FILE, text.encode())


class ServicePlane:
    """The port on one service of a HAProxy."""

    def __init__(self, haproxy: HAProxy, service: Service) -> None:
        self._haproxy, self._service = haproxy, service

    async def observe(self) -> Observed:
        """Lanes as versions, with the requests in flight in the lane and in the service's pool."""
        return await self._haproxy.observed(self._service)

    async def apply(self, operations: Sequence[Operation], wanted: RoutingState) -> None:
        """HAProxy is told, and the files hold `wanted`."""
        await self._haproxy.apply(self._service, operations, wanted)

    async def traffic(self) -> list[Counted]:
        """What each lane counted, and each server of the pool, in every worker."""
        return await self._haproxy.traffic(self._service)
