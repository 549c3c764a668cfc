"""The router's tasks: watch the registry, reconcile on each change, keep HAProxy alive, report."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import random
from pathlib import Path

import structlog

from milkrun.consul import Registry, catalog, keys, wire
from milkrun.consul.client import decode
from milkrun.consul.presence import Presence, component
from milkrun.consul.watch import watch_health, watch_prefix
from milkrun.errors import DataPlaneError, MilkrunError
from milkrun.model import Instance, RouterId, RouterReport, Wish, host_port, service_name
from milkrun.router.plane import DataPlane
from milkrun.router.reconcile import Facts, Reconciler
from milkrun.settings.environment import RouterSettings

BUSY_S = 0.05
VERIFY_S = 2.0
GUARD_S = 0.1


class Router:
    """One service's router at work: `run` never returns by itself."""

    def __init__(
        self,
        registry: Registry,
        plane: DataPlane,
        reconciler: Reconciler,
        settings: RouterSettings,
        *,
        name: str,
        host: str,
        state_dir: Path,
    ) -> None:
        self._registry = registry
        self._plane = plane
        self._reconciler = reconciler
        self._settings = settings
        self._host = host
        self._service = service_name(settings.service)
        address, port = host_port(settings.listen)
        if ipaddress.ip_address(address).is_unspecified:
            address = ""  # it listens on every address: callers are given the node's
        registration = component(name, host, address, port)
        self._id = RouterId(registration.id)
        registration.meta |= {"router": self._id, "service": self._service}
        self.presence = Presence(
            registry, registration, keys.router_report(self._service, self._id), state_dir
        )
        self._instances: list[Instance] | None = None
        self._index = 0
        self._wish: Wish | None = None
        self._changed = asyncio.Event()
        self._trouble = ""
        self._log = structlog.get_logger("router")

    async def run(self) -> None:
        """Never returns. Ends by cancellation."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.presence.run())
            tasks.create_task(self._watch_health())
            tasks.create_task(self._watch_wish())
            tasks.create_task(self._guard())
            tasks.create_task(self._reconcile())

    async def _watch_health(self) -> None:
        async for answer in watch_health(self._registry, self._service):
            if answer.status == 200:
                self._instances = catalog.instances(decode(answer.body, list[wire.HealthEntry]))
                self._index = answer.index
                self._changed.set()

    async def _watch_wish(self) -> None:
        async for answer in watch_prefix(self._registry, keys.wish_prefix(self._service)):
            pairs = decode(answer.body, list[wire.Pair]) if answer.status == 200 else []
            self._wish = catalog.wish(self._service, pairs)
            self._changed.set()

    async def _reconcile(self) -> None:
        pause = VERIFY_S
        turns = 0
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._changed.wait()
                    turns = 0  # news is looked at closely again
            self._changed.clear()
            if self._instances is None or self._wish is None:
                continue  # half of the facts are no facts
            facts = Facts(instances=self._instances, wish=self._wish, index=self._index)
            try:
                served = await self._reconciler.reconcile(facts)
                self._troubled("")
                waiting = served.busy
            except DataPlaneError as error:
                self._troubled(str(error))
                waiting = True
            turns = turns + 1 if waiting else 0
            pause = min(VERIFY_S, BUSY_S * 1.25 ** min(turns - 1, 30)) if waiting else VERIFY_S
            pause *= 0.75 + random.random() / 4
            await self._publish()

    def _troubled(self, why: str) -> None:
        if why != self._trouble:
            self._trouble = why
            if why:
                self._log.error("the data plane does not follow; it serves what it has", why=why)
            else:
                self._log.info("the data plane follows again")

    async def _guard(self) -> None:
        """A dead HAProxy is started again at once, from the file on disk."""
        while True:
            await asyncio.sleep(GUARD_S)
            if await self._plane.alive():
                continue
            self._log.error("HAProxy is gone; starting it again from the file on disk")
            try:
                await self._plane.start(self._reconciler.known.state)
            except MilkrunError as error:
                self._log.error("HAProxy does not start", why=str(error))
                await asyncio.sleep(1 + random.random())
            self._changed.set()

    async def _publish(self) -> None:
        served = self._reconciler.served
        if served is None:
            return  # nothing was served yet that could be told
        try:
            former = await self._plane.former_workers()
            await self._reconciler.count()
        except DataPlaneError as error:
            self._troubled(str(error))
            former = 1  # who cannot be asked may still have requests: nobody is called drained
        known = served.decision.known
        behind = [self._plane.behind] if self._plane.behind else []
        self.presence.publish(
            RouterReport(
                router=self._id,
                service=self._service,
                host=self._host,
                listen=self._settings.listen,
                stats=f"http://{self._settings.stats}/monitor",
                commit=known.commit,
                generation=known.generation,
                applied_at=served.applied_at,
                catalog_index=served.index,
                reloads=self._plane.reloads,
                drift=[self._trouble] if self._trouble else served.drift,
                held=served.decision.held,
                alarms=behind + served.decision.alarms,
                versions=self._reconciler.traffic(),
                instances=served.instances(former),
                data_plane=self._plane.name,
            )
        )
