"""A data plane in memory. The contract suite runs on it as on a real HAProxy, so what it does is what they do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import assert_never

import msgspec

from milkrun.errors import DataPlaneError
from milkrun.model import InstanceId, VersionName
from milkrun.router.desired import Mode, RoutingState
from milkrun.router.diff import Add, Change, Observed, Operation, Remove, Seen, SetShares
from milkrun.router.placement import Placement
from milkrun.router.plane import Counted


class FakeDataPlane:
    """Does what it is told, and lets a test say what its servers would: `busy` requests in flight, `down`.

    `deaf` makes it answer yes and do nothing, `broken` makes it raise; both as real ones have done. `told` and
    `written` are what it was asked to do and to be able to restart from.
    """

    def __init__(self) -> None:
        self.name = "fake"
        self.reloads = 0
        self.behind = ""
        self.alarms: list[str] = []
        self.busy: dict[InstanceId, int] = {}
        self.down: set[InstanceId] = set()
        self.counted: list[Counted] = []
        self.deaf = False
        self.broken = False
        self.running = False
        self.told: list[Operation] = []
        self.written: RoutingState | None = None
        self._shares: dict[VersionName, int] = {}
        self._placement: Placement = ()
        self._servers: dict[VersionName, dict[InstanceId, Seen]] = {}

    async def start(self, wanted: RoutingState) -> None:
        """Serves `wanted`, unless it runs already."""
        if self.running:
            return
        self.running = True
        self._shares = dict(wanted.shares)
        self._placement = wanted.placement
        self._servers = {
            version: {name: Seen(server=server) for name, server in servers.items()}
            for version, servers in wanted.versions.items()
            if servers
        }

    async def observe(self) -> Observed:
        """What it does now."""
        self._answer()
        return Observed(
            shares=dict(self._shares),
            placement=self._placement,
            versions={
                version: {
                    name: msgspec.structs.replace(
                        seen, up=name not in self.down, in_flight=self.busy.get(name, 0)
                    )
                    for name, seen in servers.items()
                }
                for version, servers in self._servers.items()
                if servers
            },
        )

    async def apply(self, operations: Sequence[Operation], wanted: RoutingState) -> None:
        """The operations are carried out, or nothing is when it is deaf."""
        self._answer()
        self.written = wanted
        self.told.extend(operations)
        if not self.deaf:
            for operation in operations:
                self._do(operation)

    async def traffic(self) -> list[Counted]:
        """What a test says that it counted."""
        self._answer()
        return list(self.counted)

    async def former_workers(self) -> int:
        """There are none."""
        return 0

    async def alive(self) -> bool:
        """Whether it was started and not stopped."""
        return self.running

    def release(self) -> None:
        """Nothing waits."""

    async def stop(self) -> None:
        """It is gone."""
        self.running = False

    def _answer(self) -> None:
        if self.broken:
            raise DataPlaneError("the fake does not answer")

    def _do(self, operation: Operation) -> None:
        match operation:
            case Add(version, server) | Change(version, server):
                servers = self._servers.setdefault(version, {})
                if isinstance(operation, Add) == (server.id not in servers):
                    servers[server.id] = Seen(server=server)
            case Remove(version, instance):
                servers = self._servers.get(version, {})
                seen = servers.get(instance)
                if seen and seen.server.mode is Mode.DRAIN and not self.busy.get(instance):
                    del servers[instance]
            case SetShares(shares, placement):
                self._shares = dict(shares)
                self._placement = placement
            case _:
                assert_never(operation)
