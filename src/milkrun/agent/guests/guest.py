"""One guest: in the catalog while it is well, in maintenance once it is told to end, and gone when it has."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable

import msgspec
import structlog

from milkrun.agent import health
from milkrun.agent.drain import ATTEMPT_S, AWAY_S_AT_MOST, Drain
from milkrun.agent.guests.labels import Offer
from milkrun.agent.health import State
from milkrun.agent.probes import Prober
from milkrun.agent.registration import Entry, registration
from milkrun.consul import Registry
from milkrun.errors import MilkrunError
from milkrun.model import InstanceId, instance_id
from milkrun.settings.service import HealthSettings, StopSettings

RETRY_S = 1.0
HURRY_S = 10.0
"""So long an agent that ends waits for the routers: its guests run on whatever they say."""
UNSEEN_S = 30.0
"""So long a container that nobody can see just now is taken to run on."""


class House(msgspec.Struct, frozen=True, kw_only=True):
    """What all guests of one host share. `router_news` gives an event that is set when some router reports."""

    host: str
    registry: Registry
    prober: Prober
    router_news: Callable[[], asyncio.Event]


def name_of(offer: Offer, host: str) -> InstanceId:
    """The instance's id: the same scheme as that of an agent's own."""
    return instance_id(f"{offer.service}-{offer.version}-{host}-{offer.port}".replace("+", "_"))


class Guest:
    """`listed`: an earlier agent registered this very container. `run` ends when the catalog knows it no more."""

    def __init__(self, house: House, container: str, offer: Offer, *, listed: bool) -> None:
        self.container = container
        self.offer = offer
        self.instance = name_of(offer, house.host)
        self.unseen_since: float | None = None
        self._house = house
        template = registration(
            self.instance,
            offer.service,
            offer.version,
            address=offer.address,
            port=offer.port,
            meta={"host": house.host, "container": container[:12]},
            status="critical",
        )
        template.tags += offer.tags
        self._entry = Entry(house.registry, template, listed=listed)
        self._gauge = health.adopted(time.monotonic(), rise=1) if listed else health.fresh(time.monotonic())
        self._leaving = asyncio.Event()
        self._gone = asyncio.Event()
        self._over = asyncio.Event()
        self._hurry = asyncio.Event()
        self._reason = ""
        self._log = structlog.get_logger("guest").bind(instance=self.instance)

    def leave(self, reason: str, *, hurry: bool = False) -> None:
        """It leaves the traffic; there is no way back. `hurry`: it runs on, and the catalog is to forget it."""
        if hurry:
            self._hurry.set()
            self._over.set()
        if not self._leaving.is_set():
            self._reason = reason
            self._leaving.set()
            self._log.info("leaves the traffic", reason=reason)

    def end(self, reason: str) -> None:
        """It runs no more."""
        self._gone.set()
        self._over.set()
        self.leave(reason)

    async def run(self) -> bool:
        """As long as it is in the catalog; False when the registry could not be told of its end."""
        async with asyncio.TaskGroup() as tasks:
            background = [tasks.create_task(self._entry.keep()), tasks.create_task(self._look())]
            await self._leaving.wait()
            drain = Drain(
                registry=self._house.registry,
                entry=self._entry,
                service=self.offer.service,
                instance=self.instance,
                hurry=self._hurry,
                gone=self._gone,
                news=self._house.router_news,
            )
            limit_s = HURRY_S if self._hurry.is_set() else StopSettings().drain_limit_s
            if left := await drain.run(self._reason, limit_s):
                self._log.warning("requests may still be sent to it", left=left)
            await self._over.wait()
            background[1].cancel()
            removed = await self._remove()
            background[0].cancel()
        return removed

    async def _look(self) -> None:
        settings = HealthSettings(path=self.offer.health or "/")
        while True:
            if self.offer.health:
                probe = await self._house.prober.probe(self.offer.address, self.offer.port, settings)
                fall, rise = settings.fall, settings.rise
            else:
                probe = self._by_running()
                fall = rise = 1
            self._gauge = health.judge(self._gauge, probe, time.monotonic(), rise=rise, fall=fall)
            if self._gauge.state is not State.STARTING:
                well = self._gauge.state is State.HEALTHY
                self._entry.say("passing" if well else "critical", probe.reason)
            await asyncio.sleep(settings.interval_s * (0.9 + random.random() / 10))

    def _by_running(self) -> health.Probe:
        unseen_s = 0.0 if self.unseen_since is None else time.monotonic() - self.unseen_since
        if unseen_s > UNSEEN_S:
            return health.Probe(ok=False, reason="the Docker engine does not say whether it runs")
        return health.Probe(ok=True, reason="the container runs")

    async def _remove(self) -> bool:
        began = time.monotonic()
        while True:
            try:
                async with asyncio.timeout(ATTEMPT_S):
                    await self._entry.remove()
            except (MilkrunError, TimeoutError) as error:
                if self._hurry.is_set() and time.monotonic() - began >= AWAY_S_AT_MOST:
                    self._log.warning(
                        "the registry could not be told; the next agent here will", why=str(error)
                    )
                    return False
                await asyncio.sleep(RETRY_S * (0.25 + random.random() * 0.75))
            else:
                return True
