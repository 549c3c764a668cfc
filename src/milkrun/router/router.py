"""A router at work: its place in the registry, its HAProxy kept alive, and a `Serving` for each of its services."""

from __future__ import annotations

import asyncio
import ipaddress
import random
import time
from pathlib import Path

import structlog

from milkrun.consul import Registry, keys
from milkrun.consul.presence import Presence, component
from milkrun.errors import MilkrunError
from milkrun.model import RouterId, RouterReport, ServiceName
from milkrun.router import metrics, metrics_page
from milkrun.router.certificates import Certificates
from milkrun.router.front import Front
from milkrun.router.plane import Proxy
from milkrun.router.reconcile import Reconciler
from milkrun.router.serving import Place, Serving

GUARD_S = 0.1
CERTIFICATES_S = 1.0


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
        certificates: Certificates | None = None,
    ) -> None:
        self._registry = registry
        self._proxy = proxy
        self._certificates = certificates
        self._metrics = front.metrics
        self._last: dict[ServiceName, RouterReport] = {}
        address, port = front.listen
        if ipaddress.ip_address(address).is_unspecified:
            address = ""  # it listens on every address: callers are given the node's
        registration = component(front.name, host, address, port)
        self._id = RouterId(registration.id)
        registration.meta |= {"router": self._id, "service": " ".join(sorted(front.services))[:512]}
        reports = [keys.router_report(service, self._id) for service in front.services]
        self.presence = Presence(registry, registration, reports, state_dir)
        self._reconcilers = {
            service: Reconciler(
                service,
                proxy.of(service),
                state_dir,
                accept_older=accept_older,
                ejection=traffic.ejection,
            )
            for service, traffic in front.services.items()
        }
        place = Place(
            router=self._id,
            host=host,
            listen=_written(front.listen),
            stats=f"http://{_written(front.stats)}/monitor",
            since=time.time(),
        )
        self._services = [
            Serving(service, registry, proxy, reconciler, place=place, tell=self._told, alarms=self._alarms)
            for service, reconciler in self._reconcilers.items()
        ]
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
            if self._metrics:
                tasks.create_task(metrics_page.serve(self._metrics, self._page))
            if self._certificates:
                tasks.create_task(self._renew(self._certificates))
            for serving in self._services:
                tasks.create_task(serving.run())

    def release(self) -> None:
        """Nothing of the data plane waits for this router any more: the next one has it."""
        self._proxy.release()

    async def end(self) -> None:
        """The data plane has ended its requests and is gone, and so is the router's place in the registry."""
        await self._proxy.stop()
        await self.presence.end()

    async def _guard(self) -> None:
        """A dead data plane is started again at once, from the file on disk."""
        while True:
            await asyncio.sleep(GUARD_S)
            if await self._proxy.alive():
                continue
            self._log.error("the data plane is gone; starting it again", data_plane=self._proxy.name)
            try:
                await self.start()
            except MilkrunError as error:
                self._log.error("the data plane does not start", why=str(error))
                await asyncio.sleep(1 + random.random())
            for serving in self._services:
                serving.look_again()

    async def _renew(self, certificates: Certificates) -> None:
        """New certificates are taken over as they come, also while the registry is away."""
        while True:
            await asyncio.sleep(CERTIFICATES_S * (0.75 + random.random() / 4))
            told = certificates.troubles
            try:
                if await certificates.look():
                    await self.start()
            except MilkrunError as error:
                self._log.error("the new certificates are not taken over yet", why=str(error))
            if told != certificates.troubles:
                for serving in self._services:
                    serving.look_again()

    def _alarms(self) -> list[str]:
        own = self._certificates.alarms(time.time()) if self._certificates else []
        return [*own, *self._proxy.alarms]

    def _page(self) -> bytes:
        reports = [report for _, report in sorted(self._last.items())]
        return metrics.page(reports, time.time(), silent_s=self._registry.silent_s)

    def _told(self, report: RouterReport) -> None:
        self._last[report.service] = report
        self.presence.publish(keys.router_report(report.service, self._id), report)


def _written(place: tuple[str, int]) -> str:
    host, port = place
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
