"""The one path by which an instance leaves the traffic: maintenance, then wait for what every router says."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import Callable, Iterable, Mapping

import msgspec
import structlog

from milkrun.agent.registration import Entry
from milkrun.consul import Registry, keys, wire
from milkrun.errors import MilkrunError, RegistryUnreachable
from milkrun.model import InstanceId, RouterReport, ServiceName

ATTEMPT_S = 3.0
LOOK_AGAIN_S = 0.5
AWAY_S_AT_MOST = 5.0
"""So long a clean stop waits for a registry that does not answer."""


def blockers(
    instance: InstanceId,
    index: int,
    reports: Mapping[str, RouterReport | None],
    listed: Iterable[wire.HealthEntry],
) -> list[str]:
    """Why a request could still be sent to the instance; empty when none can.

    `index` is the health index from which on it is in maintenance, `reports` the routers' reports by router
    (None: one that cannot be read), `listed` the routers in the catalog: one that does not report may be
    dead while its data plane still routes.
    """
    found = []
    for router, report in sorted(reports.items()):
        if report is None:
            found.append(f"the report of router {router} cannot be read")
        elif report.catalog_index < index:
            found.append(f"router {router} has not seen it yet (at {report.catalog_index}, not {index})")
        else:
            seen = report.instances.get(instance)
            if seen is not None and seen.state != "drained":
                found.append(f"router {router} says {seen.state}, {seen.in_flight} in flight")
    for entry in listed:
        router = (entry.service.meta or {}).get("router", "")
        if router and router not in reports:
            found.append(f"router {router} does not report; its data plane may still route")
    return found


class Drain(msgspec.Struct, kw_only=True):
    """One drain. `hurry` is set when the whole agent stops, `gone` when the process has ended by itself.

    `news` gives an event that is set when some router reports.
    """

    registry: Registry
    entry: Entry
    service: ServiceName
    instance: InstanceId
    hurry: asyncio.Event
    gone: asyncio.Event
    news: Callable[[], asyncio.Event]

    async def run(self, reason: str, limit_s: float) -> list[str]:
        """Empty when no router sends anything to the instance any more, else why that is not known."""
        deadline = time.monotonic() + limit_s
        index: int | None = None
        away_since: float | None = None
        told: list[str] = []
        while True:
            news = self.news()
            try:
                async with asyncio.timeout(ATTEMPT_S):
                    if index is None:
                        index = await self.entry.withdraw(reason)
                    left = await self._left(index)
                away_since = None
            except (RegistryUnreachable, TimeoutError):
                away_since = away_since or time.monotonic()
                left = ["the registry does not answer"]
            except MilkrunError as error:
                left = [error.message]
            if not left or self.gone.is_set():
                return []
            if _over(deadline, away_since if self.hurry.is_set() else None):
                return left
            if left != told:
                self._log(left)
                told = left
            await self._wait(news, deadline)

    async def _left(self, index: int) -> list[str]:
        prefix = f"{keys.ROUTER_REPORTS}{self.service}/"
        reports: dict[str, RouterReport | None] = {}
        for pair in await self.registry.entries(prefix):
            try:
                report = msgspec.json.decode(pair.data, type=RouterReport)
            except wire.UNREADABLE:
                report = None
            reports[pair.key.removeprefix(prefix)] = report
        listed, _ = await self.registry.health(ServiceName(f"lb-{self.service}"))
        return blockers(self.instance, index, reports, listed)

    async def _wait(self, news: asyncio.Event, deadline: float) -> None:
        pause_s = min(LOOK_AGAIN_S * (0.5 + random.random() / 2), deadline - time.monotonic())
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(pause_s):
                await news.wait()

    def _log(self, left: list[str]) -> None:
        structlog.get_logger("drain").info("waiting for the routers", instance=self.instance, left=left)


def _over(deadline: float, away_since: float | None) -> bool:
    now = time.monotonic()
    return now >= deadline or (away_since is not None and now - away_since >= AWAY_S_AT_MOST)
