"""One instance's entry in the catalog, kept true whatever the registry forgets meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import random

import structlog

from milkrun.consul import Registry, wire
from milkrun.consul.session import TTL_S
from milkrun.errors import MilkrunError, RegistryRefused
from milkrun.model import InstanceId, ServiceName, VersionName

RETRY_S = 0.5


def registration(
    instance: InstanceId,
    service: ServiceName,
    version: VersionName,
    *,
    address: str,
    port: int,
    meta: dict[str, str],
    status: str,
) -> wire.Registration:
    """The instance as the catalog is told of it, with the one check that the agent reports to."""
    return wire.Registration(
        id=instance,
        name=service,
        address=address,
        port=port,
        tags=[f"version={version}"],
        meta={"version": version, **meta},
        check=wire.TtlCheck(
            check_id=f"service:{instance}",
            name="milkrun agent",
            ttl=f"{TTL_S}s",
            status=status,
            deregister_after="10m",
        ),
    )


class Entry:
    """What the registry is told of one instance. It hears of it first when it is passing.

    `listed` says that an earlier agent has registered it already.
    """

    def __init__(self, registry: Registry, template: wire.Registration, *, listed: bool) -> None:
        self._registry = registry
        self._template = template
        self._listed = listed
        self._found = listed
        self._withdrawn = False
        self._status = ""
        self._output = ""
        self._news = asyncio.Event()
        self._turn = asyncio.Lock()
        self._log = structlog.get_logger("registration")

    def say(self, status: str, output: str) -> None:
        """The registry hears this at once if the status is new, else with the next report."""
        if status != "passing" and not self._listed:
            return
        self._listed = True
        changed = status != self._status
        self._status, self._output = status, output
        if changed:
            self._news.set()

    async def keep(self) -> None:
        """Never returns: reports each change at once, and at least each third of the TTL."""
        while True:
            self._news.clear()
            pause_s = TTL_S / 3 * (0.7 + 0.3 * random.random())
            if self._status:
                try:
                    async with self._turn:
                        await self._tell()
                except RegistryRefused as error:
                    # An emptied registry does not know the check: it gets all of it again.
                    self._found = False
                    pause_s = RETRY_S * random.random()
                    self._log.info(
                        "the registry refuses a report", instance=self._template.id, why=error.message
                    )
                except MilkrunError:
                    pause_s = RETRY_S * (0.5 + random.random() / 2)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await self._news.wait()

    async def withdraw(self, reason: str) -> int:
        """The instance is in maintenance and not registered anew; answers from this index on say so."""
        async with self._turn:
            self._withdrawn = True
            try:
                await self._registry.maintenance(self._template.id, enable=True, reason=reason)
            except RegistryRefused as error:
                self._log.warning(
                    "the registry does not put an instance in maintenance",
                    instance=self._template.id,
                    why=error.message,
                )
            _, index = await self._registry.health(ServiceName(self._template.name))
            return index

    async def remove(self) -> None:
        """The instance is not in the catalog and will not be put there again."""
        async with self._turn:
            self._withdrawn = True
            self._status = ""
            await self._registry.deregister(self._template.id)

    async def _tell(self) -> None:
        status, output = self._status, self._output
        if not status or (self._withdrawn and not self._found):
            return
        if not self._found:
            check = self._template.check
            if check is not None:
                check.status = status
            await self._registry.register(self._template)
            # What stood under this id before may have left its maintenance mark.
            await self._registry.maintenance(self._template.id, enable=False)
            self._found = True
        await self._registry.report(f"service:{self._template.id}", status, output)
