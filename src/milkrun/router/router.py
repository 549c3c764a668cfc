"""A router at work: its place in the registry, its HAProxy kept alive, and a `Serving` for each of its services."""

from __future__ import annotations

import asyncio
import ipaddress
import random
from pathlib import Path

import structlog

from milkrun.consul import Registry, keys
from milkrun.consul.presence import Presence, component
from milkrun.errors import MilkrunError
from milkrun.model import RouterId, ServiceName
from milkrun.router.front import Front
from milkrun.router.plane import Proxy
from milkrun.router.reconcile import Reconciler
from milkrun.router.serving import Serving

GUARD_S = 0.1


class Router:
    """Stands where its front says until it is cancelled; `run` never returns by itself."""

    def __init__(
        self,
        registry: Registry,
        proxy: Proxy,
        front: Front,
        *,
        host: str,
        state_dir: Path,
        accept_older: bool = False,
    ) -> None:
        self._proxy = proxy
        self._front = front
        self._host = host
        address, port = front.listen
        if ipaddress.ip_address(address).is_unspecified:
            address = ""  # it listens on every address: callers are given the node's
        registration = component(front.name, host, address, port)
        self._id = RouterId(registration.id)
        registration.meta |= {"router": self._id, "service": " ".join(sorted(front.services))[:512]}
        reports = [keys.router_report(service, self._id) for service in front.services]
        self.presence = Presence(registry, registration, reports, state_dir)
        self._reconcilers = {
            service: Reconciler(service, proxy.of(service), state_dir, accept_older=accept_older)
            for service in front.services
        }
        self._changed: dict[ServiceName, asyncio.Event] = {
            service: asyncio.Event() for service in front.services
        }
        self._services = {
            service: Serving(service, registry, proxy, reconciler, self._changed[service])
            for service, reconciler in self._reconcilers.items()
        }
        self._log = structlog.get_logger("router")

    async def start(self) -> None:
        """The data plane serves what was served last, until the registry says more."""
        await self._proxy.start(
            {service: reconciler.known.state for service, reconciler in self._reconcilers.items()}
        )

    async def run(self) -> None:
        """Never returns. Ends by cancellation."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.presence.run())
            tasks.create_task(self._guard())
            for service, serving in self._services.items():
                tasks.create_task(serving.run())
                tasks.create_task(self._publish(service, serving))

    async def _guard(self) -> None:
        """A dead data plane is started again at once, from the file on disk."""
        while True:
            await asyncio.sleep(GUARD_S)
            if await self._proxy.alive():
                continue
            self._log.error("HAProxy is gone; starting it again from the file on disk")
            try:
                await self.start()
            except MilkrunError as error:
                self._log.error("HAProxy does not start", why=str(error))
                await asyncio.sleep(1 + random.random())
            for serving in self._services.values():
                serving.look_again()

    async def _publish(self, service: ServiceName, serving: Serving) -> None:
        while True:
            await self._changed[service].wait()
            self._changed[service].clear()
            if report := await serving.report(self._id, self._host, self._front):
                self.presence.publish(keys.router_report(service, self._id), report)
