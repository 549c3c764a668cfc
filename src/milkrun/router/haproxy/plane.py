"""The data plane port on a real HAProxy."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import assert_never

import msgspec
import structlog

from milkrun.errors import DataPlaneError, PortTaken
from milkrun.model import InstanceId, ServiceName, VersionName, instance_id
from milkrun.router import disk
from milkrun.router.desired import Mode, RoutingState, Server
from milkrun.router.diff import Add, Change, Observed, Operation, Remove, Seen, SetShares
from milkrun.router.haproxy import config, encode, lanes, parse
from milkrun.router.haproxy.binary import Binary
from milkrun.router.haproxy.process import Process, refuse_taken
from milkrun.router.plane import Counters


class Memory(msgspec.Struct, frozen=True, kw_only=True):
    """What HAProxy itself cannot say: its layout, and which version has which lane.

    `layout` is what the file has and `running` what HAProxy was last (re)loaded with; they differ while a
    reload is due.
    """

    layout: config.Layout
    running: config.Layout | None = None
    lanes: dict[VersionName, int] = {}


class HAProxy:
    """One service's HAProxy in `folder`. See the port for what each call promises."""

    def __init__(
        self,
        folder: Path,
        binary: Binary,
        *,
        service: ServiceName,
        listen: tuple[str, int],
        stats: tuple[str, int],
    ) -> None:
        self._folder = folder
        self._process = Process(folder, binary)
        self._service = service
        self._map = config.map_name(service)
        self._pool = config.pool_name(service)
        self._asked = config.Layout(service=service, listen=listen, stats=stats, lanes=lanes.FIRST_LANES)
        self._memory = Memory(layout=self._asked)
        self._occupied: frozenset[VersionName] = frozenset()
        self._former = True
        self._changing = asyncio.Lock()
        self._log = structlog.get_logger("haproxy")
        self.name = f"haproxy {binary.version_text}"
        self.reloads = 0
        self.behind = ""

    async def start(self, wanted: RoutingState) -> None:
        """HAProxy serves: the one a former router left, as it is, or a new one serving `wanted`.

        One that runs already goes on serving also when it cannot take over new addresses: `behind` says why.
        """
        async with self._changing:
            known = disk.load(self._folder / "plane.json", Memory)
            if known:
                ours = known.layout.service == self._service
                self._memory = msgspec.structs.replace(known, lanes=known.lanes if ours else {})
            self._occupied = frozenset()
            if not self._process.adopt():
                self._memory = msgspec.structs.replace(self._memory, running=None)
                await self._started(wanted)
                return
            planned = self._planned(wanted)
            if planned.layout == planned.running:
                self._log.info("took over the running HAProxy without a reload")
                return
            try:
                await self._reload(planned, wanted)
            except DataPlaneError as error:
                if known is None:
                    raise  # it runs, but what it does cannot be known
                self._log.error("took over the running HAProxy, which does not follow yet", why=str(error))

    async def _started(self, wanted: RoutingState) -> None:
        planned = self._planned(wanted)
        self._keep(planned)
        self._render(planned, wanted)
        await self._process.start([planned.layout.listen, planned.layout.stats])
        self._keep(msgspec.structs.replace(planned, running=planned.layout))

    async def alive(self) -> bool:
        """Whether the master runs."""
        return self._process.running()

    async def former_workers(self) -> int:
        """How many workers from before a reload still end their requests; only a reload can leave any."""
        if not self._former:
            return 0
        count = await self._process.former_workers()
        self._former = count > 0
        return count

    async def stop(self) -> None:
        """HAProxy has ended its requests and is gone."""
        await self._process.stop()

    # Reading back

    async def observe(self) -> Observed:
        """Lanes as versions, with the requests in flight in the lane and in the service's pool."""
        backends, slots, rows = await self._read()
        in_flight: Counter[str] = Counter()
        for row in rows:
            in_flight[row.name] += row.in_flight
        known = {(row.backend, row.name) for row in rows}
        pool = backends.get(self._pool, {})
        versions: dict[VersionName, dict[InstanceId, Seen]] = {}
        for lane, version in self._versions({*backends, *slots}).items():
            servers = backends.get(lane, {})
            if missing := [name for name in servers if (lane, name) not in known]:
                raise DataPlaneError(f"HAProxy has {missing[0]} in {lane} and does not count its requests")
            if servers:
                versions[version] = {
                    name: msgspec.structs.replace(
                        seen,
                        in_flight=in_flight[name],
                        pooled=name in pool and pool[name].server.mode is Mode.SERVE,
                    )
                    for name, seen in servers.items()
                }
        by_lane = self._versions(slots)
        shares = {by_lane.get(lane, VersionName(lane)): share for lane, share in slots.items()}
        self._occupied = frozenset(versions.keys() | shares.keys()) & self._memory.lanes.keys()
        return Observed(shares=shares, versions=versions)

    async def traffic(self) -> dict[InstanceId, Counters]:
        """Each server's answers, in its lane and in the service's pool together."""
        found: dict[InstanceId, Counters] = {}
        for row in parse.stat(await self._process.admin.ask("show stat -1 4 -1")):
            before = found.get(InstanceId(row.name), Counters())
            found[InstanceId(row.name)] = Counters(
                requests=before.requests + row.counters.requests,
                failures=before.failures + row.counters.failures,
                mean_ms=max(before.mean_ms, row.counters.mean_ms),
            )
        found.pop(InstanceId("spill"), None)
        return found

    async def _read(self) -> tuple[dict[str, dict[InstanceId, Seen]], dict[str, int], list[parse.Row]]:
        ask = self._process.admin.ask
        state, slots, stat = await asyncio.gather(
            ask("show servers state"), ask(f"show map {self._map}"), ask("show stat -1 4 -1")
        )
        return parse.servers_state(state), parse.shares_map(slots), parse.stat(stat)

    # Changing

    async def apply(self, operations: Sequence[Operation], wanted: RoutingState) -> None:
        """The files hold `wanted`, then HAProxy is told; what needs more lanes than there are takes a reload."""
        async with self._changing:
            self._process.trim_log()
            planned = self._planned(wanted)
            if planned.layout != planned.running:
                await self._reload(planned, wanted)
                return
            self._keep(planned)
            self._render(planned, wanted)
            steps = list(operations)
            swap = next(
                (place for place, step in enumerate(steps) if isinstance(step, SetShares)), len(steps)
            )
            await self._tell(steps[:swap])
            for step in steps[swap : swap + 1]:
                if isinstance(step, SetShares):
                    await self._swap(step.shares)
            await self._tell(steps[swap + 1 :])
            await self._align_pool(wanted)

    def _planned(self, wanted: RoutingState) -> Memory:
        """What the files should hold for `wanted`. A reload is due when its layout is not the running one."""
        now = self._memory
        needed = {version for version, servers in wanted.versions.items() if servers}
        running = now.running
        if len(needed | self._occupied) <= encode.LANES_AT_MOST:
            assigned = lanes.assign(now.lanes, needed | self._occupied)
        else:  # what still drains keeps its lanes in the former worker
            assigned, running = lanes.assign({}, needed), None
        count = lanes.count(assigned, max(now.layout.lanes, self._asked.lanes))
        layout = msgspec.structs.replace(self._asked, lanes=count)
        self.behind = "" if now.running is None else _taken(layout, now.running)
        if now.running and self.behind:
            layout = msgspec.structs.replace(layout, listen=now.running.listen, stats=now.running.stats)
        return Memory(layout=layout, running=running, lanes=assigned)

    def _keep(self, memory: Memory) -> None:
        disk.write(self._folder / "plane.json", msgspec.json.encode(memory))
        self._memory = memory

    def _render(self, memory: Memory, wanted: RoutingState) -> None:
        map_file = config.render_map(self._service, wanted, memory.lanes)
        disk.write(
            self._folder / config.CONFIG_FILE, config.render(memory.layout, memory.lanes, wanted).encode()
        )
        disk.write(self._folder / self._map, map_file.encode())

    async def _reload(self, planned: Memory, wanted: RoutingState) -> None:
        """HAProxy serves `wanted` from new files. What it has now is remembered until it does."""
        self._render(planned, wanted)
        self._former = True
        await self._process.reload()
        self._keep(msgspec.structs.replace(planned, running=planned.layout))
        self.reloads += 1
        self._log.info("reloaded HAProxy", lanes=planned.layout.lanes, reloads=self.reloads)

    async def _tell(self, operations: Sequence[Operation]) -> None:
        """The commands are sent. Their replies have no status: whether they were obeyed is read back."""
        await self._process.admin.batch(
            command for operation in operations for command in self._commands(operation)
        )

    def _commands(self, operation: Operation) -> Iterator[str]:
        match operation:
            case Add(version, server):
                yield from _added(self._lane(version), server)
            case Change(version, server):
                yield from self._changed(version, server)
            case Remove(version, instance):
                yield from _removed(self._pool, instance)
                yield from _removed(self._lane(version), instance)
            case SetShares():
                raise DataPlaneError("shares are swapped in a transaction of their own")
            case _:
                assert_never(operation)

    def _changed(self, version: VersionName, server: Server) -> Iterator[str]:
        name, _, weight = encode.server(server)
        lane = self._lane(version)
        if server.mode is Mode.DRAIN:
            yield f"set server {self._pool}/{name} state drain"
            yield f"set server {lane}/{name} state drain"
        else:
            yield f"set server {lane}/{name} weight {weight}"
            yield f"enable health {lane}/{name}"
            yield f"set server {lane}/{name} state ready"

    async def _swap(self, shares: Mapping[VersionName, int]) -> None:
        """The map has these shares: no request ever sees half of them."""
        entries = encode.ranges(self._service, shares, self._memory.lanes)
        if not entries:
            await self._process.admin.ask(f"clear map {self._map}")
            return
        reply = await self._process.admin.ask(f"prepare map {self._map}")
        number = re.search(r"New version created: (\d+)", reply)
        if not number:
            raise DataPlaneError(f"HAProxy would not prepare a new map: {reply.strip()[:200]}")
        draft = f"@{number[1]} {self._map}"
        await self._process.admin.batch(
            [*(f"add map {draft} {slots} {lane}" for slots, lane in entries), f"commit map {draft}"]
        )

    async def _align_pool(self, wanted: RoutingState) -> None:
        """The service's pool has the servers that may catch what a lane cannot serve, and soon no others."""
        target = config.pool(wanted)
        state = parse.servers_state(await self._process.admin.ask(f"show servers state {self._pool}"))
        there = state.get(self._pool, {})
        commands: list[str] = []
        for name, server in target.items():
            have = there.get(InstanceId(name))
            if have is None:
                commands += _added(self._pool, server)
            elif have.server.mode is Mode.DRAIN:
                commands.append(f"set server {self._pool}/{encode.server(server)[0]} state ready")
            if have and have.server.weight != server.weight:
                commands.append("set server {}/{} weight {}".format(self._pool, *encode.server(server)[::2]))
        for name, have in there.items():
            if name in target and (have.server.address, have.server.port) == (
                target[name].address,
                target[name].port,
            ):
                continue
            if have.server.mode is Mode.SERVE:
                commands.append(f"set server {self._pool}/{instance_id(name)} state drain")
            else:
                commands += _removed(self._pool, name)
        await self._process.admin.batch(commands)

    # Lanes

    def _lane(self, version: VersionName) -> str:
        return encode.lane(self._service, self._memory.lanes[version])

    def _versions(self, seen: Iterable[str]) -> dict[str, VersionName]:
        """Versions by lane. A lane that is used and that no version has gets a name that no version can have:
        so it is drained and freed like any other.
        """
        found = {self._lane(version): version for version in self._memory.lanes}
        for number in range(encode.LANES_AT_MOST):
            lane = encode.lane(self._service, number)
            if lane in seen and lane not in found:
                self._log.warning("a lane is used that no version has; freeing it", lane=lane)
                found[lane] = VersionName(f"unknown in {lane}")
                taken = self._memory.lanes | {found[lane]: number}
                self._memory = msgspec.structs.replace(self._memory, lanes=taken)
        return found


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


def _added(backend: str, server: Server) -> Iterator[str]:
    name, address, weight = encode.server(server)
    yield f"add server {backend}/{name} {address} {config.CHECK} weight {weight}"
    yield f"enable health {backend}/{name}"
    yield f"set server {backend}/{name} state {'ready' if server.mode is Mode.SERVE else 'drain'}"


def _removed(backend: str, instance: InstanceId) -> Iterator[str]:
    name = instance_id(instance)
    yield f"set server {backend}/{name} state maint"
    yield f"del server {backend}/{name}"
