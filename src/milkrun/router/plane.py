"""The port that every data plane fits: read what it does, change it, read again.

The contract suite in tests/contract/dataplane runs against the fake and against the real ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import msgspec

from milkrun.model import InstanceId, ServiceName
from milkrun.router.desired import RoutingState
from milkrun.router.diff import Observed, Operation


class Counters(msgspec.Struct, frozen=True, kw_only=True):
    """What one server answered since the data plane started it. `mean_ms` is over its last 1024 requests."""

    requests: int = 0
    failures: int = 0
    mean_ms: float = 0.0


class DataPlane(Protocol):
    """One service's traffic. Every call is bounded in time and raises DataPlaneError when it cannot be done."""

    async def observe(self) -> Observed:
        """What it does now, read back from it."""

    async def apply(self, operations: Sequence[Operation], wanted: RoutingState) -> None:
        """The operations are carried out, and a restart from disk would serve `wanted`."""

    async def traffic(self) -> dict[InstanceId, Counters]:
        """What each server answered."""


class Proxy(Protocol):
    """The process that carries the traffic of all services of a router. Bounded as the port of a service is."""

    @property
    def reloads(self) -> int:
        """How often it was reloaded since this process watches it."""

    @property
    def behind(self) -> str:
        """Why it does not follow its front yet (an address is taken, for example); empty when it does."""

    @property
    def name(self) -> str:
        """What it is, with its version, for people."""

    def of(self, service: ServiceName) -> DataPlane:
        """The port on one of its services."""

    async def start(self, wanted: Mapping[ServiceName, RoutingState]) -> None:
        """It serves: the running one taken over as it is, or a new one serving `wanted`."""

    async def former_workers(self) -> int:
        """How many processes from before a reload still end their requests."""

    async def alive(self) -> bool:
        """Whether it runs."""

    async def stop(self) -> None:
        """It takes no new connection, has ended its requests or run into the limit, and is gone."""
