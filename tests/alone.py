"""A HAProxy or an Envoy with one service, as a load balancer has it: the process and the service's port in one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from milkrun.model import ServiceName
from milkrun.router.desired import RoutingState
from milkrun.router.diff import Observed, Operation
from milkrun.router.front import Front, Route
from milkrun.router.haproxy import binary
from milkrun.router.haproxy.plane import HAProxy
from milkrun.router.plane import Counted
from milkrun.settings.service import TrafficSettings


class Alone:
    """Both ports, of a router with one service."""

    def __init__(
        self,
        folder: Path,
        service: str,
        *,
        listen: tuple[str, int],
        stats: tuple[str, int],
        traffic: TrafficSettings | None = None,
        envoy: bool = False,
        override_key: bytes = b"",
    ) -> None:
        name = ServiceName(service)
        front = Front(
            name=f"lb-{service}",
            listen=listen,
            stats=stats,
            routes=(Route(service=name),),
            services={name: traffic or TrafficSettings()},
        )
        self.proxy = (
            _envoy(folder, front)
            if envoy
            else HAProxy(folder, binary.find(), front, override_key=override_key)
        )
        self._service = name
        self._plane = self.proxy.of(name)

    @property
    def reloads(self) -> int:
        return self.proxy.reloads

    @property
    def behind(self) -> str:
        return self.proxy.behind

    @property
    def name(self) -> str:
        return self.proxy.name

    def __getattr__(self, name: str):
        return getattr(self.proxy, name)

    async def start(self, wanted: RoutingState) -> None:
        await self.proxy.start({self._service: wanted})

    async def observe(self) -> Observed:
        return await self._plane.observe()

    async def apply(self, operations: Sequence[Operation], wanted: RoutingState) -> None:
        await self._plane.apply(operations, wanted)

    async def traffic(self) -> list[Counted]:
        return await self._plane.traffic()

    async def former_workers(self) -> int:
        return await self.proxy.former_workers()

    async def alive(self) -> bool:
        return await self.proxy.alive()

    async def stop(self) -> None:
        await self.proxy.stop()


def _envoy(folder: Path, front: Front):
    from milkrun.router.envoy.binary import find
    from milkrun.router.envoy.plane import Envoy

    return Envoy(folder, find(), front)
