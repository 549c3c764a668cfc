"""One service on a running HAProxy: what it does is read back, what it should do is told."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import lru_cache

import msgspec
import structlog

from milkrun.errors import DataPlaneError
from milkrun.model import InstanceId, ServiceName, VersionName
from milkrun.router.desired import Mode, RoutingState
from milkrun.router.diff import Change, Observed, Operation, Remove, Seen, SetShares
from milkrun.router.haproxy import choice, commands, encode, parse, section
from milkrun.router.haproxy.section import Section
from milkrun.router.haproxy.socket import RuntimeSocket
from milkrun.router.placement import place, totals

Lanes = Mapping[VersionName, int]

_REMEMBERED = 65_536
COUNTED_AT_MOST = 500
"""Servers of a service, with those of its pool, of whom each one's requests in flight are read at each look."""


class Service:
    """Asks and tells HAProxy's socket about one service."""

    def __init__(self, name: ServiceName, admin: RuntimeSocket) -> None:
        self.name = name
        self._admin = admin
        self._map = choice.map_name(name)
        self._beside: Mapping[str, Mapping[InstanceId, Seen]] | None = None
        self._log = structlog.get_logger("haproxy")

    # Reading back

    async def observed(self, shape: Section, lanes: Lanes) -> tuple[Observed, dict[VersionName, int]]:
        """Lanes as versions, with the requests in flight in the lane and beside it; and the lanes in use.

        A lane that is used and that no version has gets a name that no version can have: so it is drained and
        freed like any other.
        """
        names = section.backends(self.name, shape)
        state, slots = await asyncio.gather(
            self._admin.batch(f"show servers state {name}" for name in names),
            self._admin.ask(f"show map {self._map}"),
        )
        backends, spans = parse.servers_state(state), parse.shares_map(slots)
        counted = self._to_count(backends, self._others(shape))
        requests = await self._requests(counted)
        self._beside = {name: backends.get(name, {}) for name in self._others(shape)}
        lanes = self._named(lanes, {*backends, *(span.version for span in spans)})
        by_lane = {encode.lane(self.name, number): version for version, number in lanes.items()}
        versions = self._versions(by_lane, backends, counted, requests, self._beside)
        placement = tuple(
            msgspec.structs.replace(span, version=by_lane.get(span.version, span.version)) for span in spans
        )
        return Observed(shares=totals(placement), placement=placement, versions=versions), lanes

    def _others(self, shape: Section) -> Collection[str]:
        """The backends beside the lanes."""
        return section.beside(self.name, shape.traffic, RoutingState()).keys()

    def _to_count(
        self, backends: Mapping[str, Mapping[InstanceId, Seen]], others: Collection[str]
    ) -> Collection[str]:
        """The backends whose requests in flight are read: all, or when there are many servers those where one waits
        for its last request, and those beside the lanes. `show stat` is what a look at a service costs.
        """
        if sum(map(len, backends.values())) <= COUNTED_AT_MOST:
            return backends.keys()
        drain = Mode.DRAIN
        waiting = {
            name
            for name, servers in backends.items()
            if any(seen.server.mode is drain for seen in servers.values())
        }
        return waiting | set(others) if waiting else waiting

    async def _requests(self, names: Collection[str]) -> dict[tuple[str, str], int]:
        if not names:
            return {}
        return parse.stat(await self._admin.batch(f"show stat {name} 4 -1" for name in names))

    def _versions(
        self,
        by_lane: Mapping[str, VersionName],
        backends: Mapping[str, Mapping[InstanceId, Seen]],
        asked: Collection[str],
        requests: Mapping[tuple[str, str], int],
        others: Mapping[str, Mapping[InstanceId, Seen]],
    ) -> dict[VersionName, dict[InstanceId, Seen]]:
        in_flight: dict[str, int] = {}
        for (_, name), count in requests.items():
            if count:
                in_flight[name] = in_flight.get(name, 0) + count
        serve = Mode.SERVE
        taking = {
            name for there in others.values() for name, seen in there.items() if seen.server.mode is serve
        }
        versions: dict[VersionName, dict[InstanceId, Seen]] = {}
        for lane, version in by_lane.items():
            servers = backends.get(lane, {})
            missing = [name for name in servers if (lane, name) not in requests] if lane in asked else []
            if missing:
                raise DataPlaneError(f"HAProxy has {missing[0]} in {lane} and does not count its requests")
            if servers:
                versions[version] = {
                    name: _seen(seen, in_flight.get(name, 0), name in taking)
                    for name, seen in servers.items()
                }
        return versions

    def _named(self, lanes: Lanes, seen: Iterable[str]) -> dict[VersionName, int]:
        found = dict(lanes)
        for number in range(encode.LANES_AT_MOST):
            lane = encode.lane(self.name, number)
            if lane in seen and number not in found.values():
                self._log.warning("a lane is used that no version has; freeing it", lane=lane)
                found[VersionName(f"unknown in {lane}")] = number
        return found

    # Telling

    async def apply(
        self, operations: Sequence[Operation], wanted: RoutingState, shape: Section, lanes: Lanes
    ) -> None:
        """The operations are told in their order, then the backends beside the lanes are brought in line.

        Before them, nobody reaches a version by name any more that should serve nobody.
        """
        if choice.by_name(shape.traffic):
            await self._name_versions(choice.versions(wanted, lanes, self.name))
        options = section.server_options(shape.traffic, wanted.size)
        others = section.beside(self.name, shape.traffic, wanted)
        before: list[Operation] = []
        for operation in operations:
            if isinstance(operation, SetShares):
                await self._tell(before, lanes, options, others.keys())
                before = []
                placement = place(operation.placement, operation.shares)
                await self._swap(self._map, encode.ranges(self.name, placement, lanes))
            else:
                before.append(operation)
        await self._tell(before, lanes, options, others.keys())
        there, self._beside = self._beside, None
        if there is None or any(isinstance(operation, Change | Remove) for operation in operations):
            there = parse.servers_state(
                await self._admin.batch(f"show servers state {name}" for name in others)
            )
        await self._admin.batch(
            command
            for name, each in others.items()
            for command in commands.brought(name, each, there.get(name, {}))
        )

    async def _tell(
        self, operations: Sequence[Operation], lanes: Lanes, options: str, others: Collection[str]
    ) -> None:
        await self._admin.batch(
            command
            for operation in operations
            for command in commands.told(self.name, lanes, operation, options, others)
        )

    async def _name_versions(self, lanes: Mapping[str, str]) -> None:
        name = choice.versions_name(self.name)
        if parse.pairs(await self._admin.ask(f"show map {name}")) != lanes:
            await self._swap(name, list(lanes.items()))

    async def _swap(self, name: str, entries: Sequence[tuple[str, str]]) -> None:
        """The map has these entries: no request ever sees half of them."""
        if not entries:
            await self._admin.ask(f"clear map {name}")
            return
        reply = await self._admin.ask(f"prepare map {name}")
        number = re.search(r"New version created: (\d+)", reply)
        if not number:
            raise DataPlaneError(f"HAProxy would not prepare a new map: {reply.strip()[:200]}")
        draft = f"@{number[1]} {name}"
        await self._admin.batch(
            [*(f"add map {draft} {key} {value}" for key, value in entries), f"commit map {draft}"]
        )


@lru_cache(_REMEMBERED)
def _seen(lane: Seen, in_flight: int, pooled: bool) -> Seen:
    """A server as its lane and the backends beside it have it together."""
    return msgspec.structs.replace(lane, in_flight=in_flight, pooled=pooled)
