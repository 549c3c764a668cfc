"""The agent as a whole: its presence in the registry, its facts, its units, and how it ends."""

from __future__ import annotations

import asyncio
import random
import time
from pathlib import Path

import structlog

from milkrun.agent.adoption import recover, strays
from milkrun.agent.facts import Facts
from milkrun.agent.guests.guest import House
from milkrun.agent.guests.hall import Hall
from milkrun.agent.guests.known import Known
from milkrun.agent.plan import Slot
from milkrun.agent.probes import Prober
from milkrun.agent.reconcile import Reconciler
from milkrun.agent.records import Records
from milkrun.agent.unit import Site, Unit
from milkrun.agent.units.containers import Containers
from milkrun.agent.units.docker import Engine, socket_path
from milkrun.agent.units.process import Process
from milkrun.agent.units.processes import Processes
from milkrun.consul import Address, Registry, keys
from milkrun.consul.presence import Presence, component
from milkrun.errors import InputRefused, MilkrunError
from milkrun.host.process import Identity
from milkrun.model import AgentReport, service_name
from milkrun.settings.needs import stopping_waves

LOCK_DELAY_S = 10
"""So long a dead host's slots stay free before another host may take them."""
STRAY_STOP_S = 10.0
FIRST_STRAYS_S = 2.0
STRAYS_S = 60.0


async def run(address: Address, *, host: str, state_dir: Path, folder: Path, handover: asyncio.Event) -> None:
    """This host runs what git asks of it, until cancelled; then its instances are drained and stopped.

    When `handover` is set it returns at once and leaves them running and registered for the next agent.
    No other agent may work in the same `state_dir` meanwhile: who starts this process sees to that.
    """
    _judge(host)
    # One spelling of the folder: the processes carry it as their mark.
    state = state_dir.resolve()
    state.mkdir(parents=True, exist_ok=True, mode=0o700)
    async with Registry(address) as registry, Prober() as prober, Engine(socket_path()) as engine:
        await _Agent(registry, prober, engine, host=host, state_dir=state, folder=folder).run(handover)


def _judge(host: str) -> None:
    """Raises InputRefused for what cannot be a host's name: it becomes a part of the instances' ids."""
    try:
        service_name(host)
    except InputRefused as error:
        raise InputRefused(
            f"{host[:80]!r} cannot be the name of a host",
            remedy="name it with --host: lower-case letters, digits and inner hyphens, 63 at most",
        ) from error


class _Agent:
    def __init__(
        self,
        registry: Registry,
        prober: Prober,
        engine: Engine,
        *,
        host: str,
        state_dir: Path,
        folder: Path,
    ) -> None:
        self._host = host
        self._since = time.time()
        self._state = str(state_dir)
        self._facts = Facts(registry)
        self._records = Records(state_dir)
        self._presence = Presence(
            registry,
            component("milkrun-agent", host, "", 0),
            [keys.agent_report(host)],
            state_dir,
            lock_delay_s=LOCK_DELAY_S,
        )
        self._containers = Containers(engine, folder, state_dir, registry.address.url)
        self._site = Site(
            host=host,
            state_dir=state_dir,
            processes=Processes(folder, state_dir, registry.address.url),
            containers=self._containers,
            registry=registry,
            session=self._presence.session,
            named=self._presence.reported.is_set,
            prober=prober,
            records=self._records,
            settings=self._facts.services.get,
            router_news=lambda: self._facts.router_news,
            changed=self._changed,
        )
        house = House(host=host, registry=registry, prober=prober, router_news=self._site.router_news)
        self._guests = Hall(engine, house, Known(state_dir), self._changed)
        self._units: dict[Slot, Unit] = {}
        self._reconciler = Reconciler(self._site, self._facts, self._units, self._begin)
        self._tasks = asyncio.TaskGroup()
        self._reconciling: asyncio.Task[None] | None = None
        self._log = structlog.get_logger("agent").bind(host=host)

    async def run(self, handover: asyncio.Event) -> None:
        """As `daemon.run`."""
        async with asyncio.TaskGroup() as outer:
            work = outer.create_task(self._work())
            try:
                await handover.wait()
            except asyncio.CancelledError:
                # A crash of the work cancels this task too: then there is nothing to stop in order with.
                if work.done() or handover.is_set():
                    raise
                await self._stop_all()
                work.cancel()
                await asyncio.wait([work])
                await self._presence.end()
                raise
            self._log.info("the instances are left to the next agent", units=len(self._units))
            work.cancel()

    async def _work(self) -> None:
        async with self._tasks as tasks:
            for record in recover(self._records, self._state):
                self._begin(Unit(self._site, record, found=True))
            self._changed()
            tasks.create_task(self._presence.run())
            tasks.create_task(self._facts.follow(lambda: {slot.service for slot in self._units}))
            tasks.create_task(self._tell_news())
            tasks.create_task(self._stop_strays())
            tasks.create_task(self._guests.run(self._guests_address, lambda: self._facts.news))
            self._reconciling = tasks.create_task(self._reconciler.run())

    def _guests_address(self) -> str | None:
        place = self._facts.agent
        return place.address if place and place.docker else None

    def _begin(self, unit: Unit) -> None:
        self._units[unit.record.slot] = unit
        self._tasks.create_task(self._supervise(unit))
        self._changed()

    async def _supervise(self, unit: Unit) -> None:
        await unit.run()
        del self._units[unit.record.slot]
        self._changed()

    def _changed(self) -> None:
        self._tell()
        self._facts.changed()

    def _tell(self) -> None:
        units = [unit.report for _, unit in sorted(self._units.items())]
        alarms = [*sorted(self._facts.older.values()), *self._guests.alarms]
        report = AgentReport(host=self._host, since=self._since, units=units, alarms=alarms)
        self._presence.publish(keys.agent_report(self._host), report)

    async def _tell_news(self) -> None:
        """Never returns: what the registry says may change where this agent is, and what it warns of."""
        while True:
            news = self._facts.news
            if self._facts.agent:
                self._presence.move(self._facts.agent.address)
            self._tell()
            await news.wait()

    async def _stop_all(self) -> None:
        if self._reconciling:
            self._reconciling.cancel()
        needs = {name: settings.needs for name, settings in self._facts.services.items()}
        needs |= {unit.record.slot.service: unit.record.settings.needs for unit in self._units.values()}
        self._log.info("stopping all instances", units=len(self._units))
        self._guests.leave()
        for wave in stopping_waves(needs):
            units = [unit for slot, unit in self._units.items() if slot.service in wave]
            for unit in units:
                unit.stop("the agent stops", hurry=True)
            for unit in units:
                await unit.done.wait()
        await self._guests.left()

    async def _stop_strays(self) -> None:
        """Never returns. A process that was just being started when the last agent died shows only later."""
        pause_s = FIRST_STRAYS_S
        async with asyncio.TaskGroup() as stopping:
            while True:
                for known in strays(self._state, self._instances()):
                    stopping.create_task(self._stop_stray(known))
                for container in await self._containers.strays(self._instances):
                    stopping.create_task(self._containers.stop_stray(container, STRAY_STOP_S))
                await asyncio.sleep(pause_s * (0.75 + random.random() / 4))
                pause_s = STRAYS_S

    def _instances(self) -> set[str]:
        return {unit.record.instance for unit in self._units.values()}

    async def _stop_stray(self, known: Identity) -> None:
        if process := Process.adopt(known, lambda _: None):
            self._log.warning("a process of no known unit is stopped", pid=known.pid)
            try:
                await process.stop(STRAY_STOP_S)
            except MilkrunError as error:
                self._log.error("a stray process stays", why=error.message, next=error.remedy)
            finally:
                process.leave()
