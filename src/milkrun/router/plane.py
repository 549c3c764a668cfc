"""The port that every data plane fits: read what it does, change it, read again.

The contract suite in tests/contract/dataplane runs against the fake and against the real ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import msgspec

from milkrun.model import Figures, InstanceId, ServiceName, VersionName
from milkrun.router.desired import RoutingState
from milkrun.router.diff import Observed, Operation

EACH_AT_MOST = 64
"""Servers of a version, for each one's figures to be asked for: every other second."""


class InstanceCounted(msgspec.Struct, frozen=True, kw_only=True):
    """What was counted of one instance: how many requests were handed to it, how many of them ended and how many of
    those failed, and the mean of its last answers in milliseconds (0 unknown). `took_ms` is what all of them took
    together, of which only the growth says anything.
    """

    tried: int = 0
    requests: int = 0
    failures: int = 0
    mean_ms: float = 0.0
    took_ms: float = 0.0


class Counted(msgspec.Struct, frozen=True, kw_only=True):
    """What one place of a data plane's process counted for one version since that process started.

    `process` and `place` name the counter: it only grows while both stay. A process that was replaced ends all that it
    still has at `until` (seconds since 1970; 0: it was not). `version` is whose requests the place
    takes now, None when nobody's. `instances` are the place's own, None when each one's part is not known.
    """

    process: int
    place: str
    version: VersionName | None
    in_flight: int = 0
    figures: Figures = Figures()
    instances: dict[InstanceId, InstanceCounted] | None = None
    until: float = 0.0


class DataPlane(Protocol):
    """One service's traffic. Every call is bounded in time and raises DataPlaneError when it cannot be done."""

    async def observe(self) -> Observed:
        """What it does now, read back from it."""

    async def apply(self, operations: Sequence[Operation], wanted: RoutingState) -> None:
        """The operations are carried out, and a restart from disk would serve `wanted`."""

    async def traffic(self) -> list[Counted]:
        """What every place counted, also those of processes that end their requests after a reload."""


class Proxy(Protocol):
    """The process that carries the traffic of all services of a router. Bounded as the port of a service is."""

    @property
    def reloads(self) -> int:
        """How often it was reloaded since it was started, also by other routers."""

    @property
    def behind(self) -> str:
        """Why it does not follow its front yet (an address is taken, for example); empty when it does."""

    @property
    def alarms(self) -> list[str]:
        """What a person should know of it, while it does what it is told."""

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

    def release(self) -> None:
        """Nothing of it waits for this router: it is another's now."""

    async def stop(self) -> None:
        """It takes no new connection, has ended its requests or run into the limit, and is gone."""
