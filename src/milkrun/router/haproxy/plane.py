"""The data plane port on a real HAProxy."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import assert_never

import msgspec
import structlog

from milkrun.errors import DataPlaneError
from milkrun.model import InstanceId, ServiceName, VersionName, instance_id
from milkrun.router import disk
from milkrun.router.desired import Mode, RoutingState, Server
from milkrun.router.diff import Add, Change, Observed, Operation, Remove, Seen, SetShares
from milkrun.router.haproxy import config, encode, lanes, parse
from milkrun.router.haproxy.binary import Binary
from milkrun.router.haproxy.process import Process
from milkrun.router.plane import Counters


class Memory(msgspec.Struct, frozen=True, kw_only=True):
    """What HAProxy itself cannot say: its layout, and which version has which lane."""

    layout: config.Layout
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
        first = config.Layout(service=service, listen=listen, stats=stats, lanes=lanes.FIRST_LANES)
        self._wanted_layout = first
        self._memory = Memory(layout=first)
        self._occupied: frozenset[VersionName] = frozenset()
        self._log = structlog.get_logger("haproxy")
        self.name = f"haproxy {binary.version_text}"
        self.reloads = 0

    async def start(self, wanted: RoutingState) -> None:
        """HAProxy serves: the one a former router left, as it is, or a new one serving `wanted`."""
        data = disk.read(self._folder / "plane.json")
        known = msgspec.json.decode(data, type=Memory) if data else None
        if known:
            self._memory = known
            grown = max(known.layout.lanes, self._wanted_layout.lanes)
            self._wanted_layout = msgspec.structs.replace(self._wanted_layout, lanes=grown)
        if self._process.adopt():
            if known and known.layout == self._wanted_layout:
                self._log.info("took over the running HAProxy without a reload")
                return
            self._write(wanted, forget=known is None)
            await self._reload()
            return
        self._write(wanted)
        await self._process.start([self._wanted_layout.listen, self._wanted_layout.stats])

    async def alive(self) -> bool:
        """Whether the master runs."""
        return self._process.running()

    async def former_workers(self) -> int:
        """How many workers from before a reload still end their requests; only a reload can leave any."""
        return await self._process.former_workers()

    async def stop(self) -> None:
        """HAProxy has ended its requests and is gone."""
        await self._process.stop([self._service, f"{self._service}.stats"])

    # Reading back

    async def observe(self) -> Observed:
        """Lanes as versions, with the requests in flight in the lane and in the service's pool."""
        backends, slots, rows = await self._read()
        in_flight: dict[str, int] = {}
        for row in rows:
            in_flight[row.name] = in_flight.get(row.name, 0) + row.in_flight
        versions: dict[VersionName, dict[InstanceId, Seen]] = {}
        shares: dict[VersionName, int] = {}
        for lane, version in self._versions().items():
            if servers := backends.pop(lane, {}):
                versions[version] = {
                    name: msgspec.structs.replace(seen, in_flight=in_flight.get(name, 0))
                    for name, seen in servers.items()
                }
            if lane in slots:
                shares[version] = slots.pop(lane)
        backends.pop(self._pool, None)
        strange = {name for name, servers in backends.items() if servers} | slots.keys()
        if strange:
            raise DataPlaneError(
                f"HAProxy has servers or shares in lanes that no version has: {sorted(strange)}"
            )
        self._occupied = frozenset(versions)
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
        if self._write(wanted):
            await self._reload()
            return
        steps = list(operations)
        swap = next((place for place, step in enumerate(steps) if isinstance(step, SetShares)), len(steps))
        await self._tell(steps[:swap])
        for step in steps[swap : swap + 1]:
            if isinstance(step, SetShares):
                await self._swap(step.shares)
        await self._tell(steps[swap + 1 :])
        await self._align_pool(wanted)

    def _write(self, wanted: RoutingState, *, forget: bool = False) -> bool:
        """The files hold `wanted`. True when HAProxy must be reloaded to follow them."""
        before = self._memory
        needed = {version for version, servers in wanted.versions.items() if servers} | self._occupied
        assigned = lanes.assign({} if forget else before.lanes, needed)
        layout = msgspec.structs.replace(
            self._wanted_layout, lanes=lanes.count(assigned, self._wanted_layout.lanes)
        )
        self._wanted_layout = layout
        self._memory = Memory(layout=layout, lanes=assigned)
        disk.write(self._folder / "plane.json", msgspec.json.encode(self._memory))
        disk.write(self._folder / config.CONFIG_FILE, config.render(layout, assigned, wanted).encode())
        disk.write(self._folder / self._map, config.render_map(self._service, wanted, assigned).encode())
        return layout != before.layout

    async def _reload(self) -> None:
        await self._process.reload()
        self.reloads += 1
        self._log.info("reloaded HAProxy", lanes=self._memory.layout.lanes, reloads=self.reloads)

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

    def _versions(self) -> dict[str, VersionName]:
        return {self._lane(version): version for version in self._memory.lanes}


def _added(backend: str, server: Server) -> Iterator[str]:
    name, address, weight = encode.server(server)
    yield f"add server {backend}/{name} {address} {config.CHECK} weight {weight}"
    yield f"enable health {backend}/{name}"
    yield f"set server {backend}/{name} state {'ready' if server.mode is Mode.SERVE else 'drain'}"


def _removed(backend: str, instance: InstanceId) -> Iterator[str]:
    name = instance_id(instance)
    yield f"set server {backend}/{name} state maint"
    yield f"del server {backend}/{name}"
