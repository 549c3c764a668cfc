"""One service of a router: watch the registry, reconcile on each change, tell what is served. Alone: what goes
wrong with one service keeps no other from being served (I3).
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import Callable

import msgspec
import structlog

from milkrun.consul import Registry, catalog, keys, wire
from milkrun.consul.client import decode
from milkrun.consul.health import HealthReader
from milkrun.consul.watch import watch_health, watch_prefix
from milkrun.errors import DataPlaneError
from milkrun.model import Instance, RouterId, RouterReport, ServiceName, Wish
from milkrun.router.plane import Proxy
from milkrun.router.reconcile import Facts, Reconciler
from milkrun.router.traffic import Cadence

BUSY_S = 0.05
VERIFY_S = 2.0


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """Which router it is, and where and since when it listens and shows its stats, as its reports say it."""

    router: RouterId
    host: str
    listen: str
    stats: str
    since: float = 0.0


class Serving:
    """A service at work: `run` never returns by itself. `tell` is called with each report of what is served.

    `alarms` says what else a person should know of the router as a whole.
    """

    def __init__(
        self,
        service: ServiceName,
        registry: Registry,
        proxy: Proxy,
        reconciler: Reconciler,
        *,
        place: Place,
        tell: Callable[[RouterReport], None],
        alarms: Callable[[], list[str]] = list,
    ) -> None:
        self._service = service
        self._registry = registry
        self._proxy = proxy
        self._reconciler = reconciler
        self._place = place
        self._tell = tell
        self._alarms = alarms
        self._instances: list[Instance] | None = None
        self._index = 0
        self._wish: Wish | None = None
        self._changed = asyncio.Event()
        self._trouble = ""
        self._unequal_since = 0.0
        self._cadence = Cadence()
        self._log = structlog.get_logger("router")

    async def run(self) -> None:
        """Never returns. Ends by cancellation."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._watch_health())
            tasks.create_task(self._watch_wish())
            tasks.create_task(self._reconcile())

    def look_again(self) -> None:
        """What the data plane does is compared with the wish soon."""
        self._changed.set()

    async def _watch_health(self) -> None:
        reader = HealthReader()
        async for answer in watch_health(self._registry, self._service, reader):
            if answer.status == 200:
                self._instances = reader.read(answer.body)
                self._index = answer.index
                self._news()

    async def _watch_wish(self) -> None:
        async for answer in watch_prefix(self._registry, keys.wish_prefix(self._service)):
            pairs = decode(answer.body, list[wire.Pair]) if answer.status == 200 else []
            self._wish = catalog.wish(self._service, pairs)
            self._news()

    def _news(self) -> None:
        self._changed.set()
        self._reconciler.hurry()

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
                if served is None:
                    continue
                self._troubled("")
                waiting = served.busy
            except DataPlaneError as error:
                self._troubled(str(error))
                waiting = True
            turns = turns + 1 if waiting else 0
            pause = min(VERIFY_S, BUSY_S * 1.25 ** min(turns - 1, 30)) if waiting else VERIFY_S
            pause *= 0.75 + random.random() / 4
            if (report := await self._report()) and self._cadence.due(report, time.monotonic()):
                self._tell(report)
            if self._reconciler.restless and not self._trouble:
                self._changed.set()

    def _troubled(self, why: str) -> None:
        if why != self._trouble:
            self._trouble = why
            if why:
                self._log.error(
                    "the data plane does not follow; it serves what it has", service=self._service, why=why
                )
            else:
                self._log.info("the data plane follows again", service=self._service)

    async def _report(self) -> RouterReport | None:
        """What is served now; None while that is unknown. Counted by the loop that reconciles, and by no other."""
        served = self._reconciler.served
        if served is None:
            return None
        try:
            await self._reconciler.count()  # a former worker that was read to the end is let go
            former = await self._proxy.former_workers()
        except DataPlaneError as error:
            self._troubled(str(error))
            former = 1  # who cannot be asked may still have requests: nobody is called drained
        known = served.decision.known
        behind = [self._proxy.behind] if self._proxy.behind else []
        if not (self._trouble or served.drift or served.decision.held or behind):
            self._unequal_since = 0.0
        elif not self._unequal_since:
            self._unequal_since = time.time()
        return RouterReport(
            router=self._place.router,
            service=self._service,
            host=self._place.host,
            listen=self._place.listen,
            stats=self._place.stats,
            commit=known.commit,
            generation=known.generation,
            applied_at=served.applied_at,
            catalog_index=served.index,
            reloads=self._proxy.reloads,
            since=self._place.since,
            unequal_since=self._unequal_since,
            drift=[self._trouble] if self._trouble else served.drift,
            held=served.decision.held,
            alarms=[*behind, *self._alarms(), *served.decision.alarms, *self._reconciler.aside],
            former=self._reconciler.former,
            versions=self._reconciler.traffic(),
            instances=self._reconciler.instances(former),
            data_plane=self._proxy.name,
        )
