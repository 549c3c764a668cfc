"""One supervised instance: the shell around `life`, which starts, probes, registers, drains and stops."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import structlog

from milkrun.agent import health, ports, slots
from milkrun.agent.drain import ATTEMPT_S, AWAY_S_AT_MOST, Drain
from milkrun.agent.health import Probe
from milkrun.agent.life import Ended, Event, Failed, Life, Phase, Probed, Started, StopAsked, Waiting, step
from milkrun.agent.probes import Prober
from milkrun.agent.records import Record, Records
from milkrun.agent.registration import Entry, registration
from milkrun.agent.units import awaited, logfile
from milkrun.agent.units.program import Place
from milkrun.agent.units.running import Order, Runner, Running, Watcher
from milkrun.consul import Registry, Session
from milkrun.errors import MilkrunError
from milkrun.model import ServiceName, UnitReport
from milkrun.settings.service import ServiceSettings

STARTING_INTERVAL_S = 0.2
"""A starting instance is probed at least this often: a restart should not wait for a slow interval."""
INTERVAL_S_AT_LEAST = 0.05
WAIT_S_AT_MOST = 3600.0
LOG_LOOK_S = 10.0
AWAITED_S = 60.0
"""So long it waits for whom it needs, before that is a failed start."""
RETRY_S = 1.0


class Site(msgspec.Struct, frozen=True, kw_only=True):
    """What all units of one agent share. `settings` gives the newest ones, None while there are none; `named` says
    whether the host's name is this agent's own.
    """

    host: str
    state_dir: Path
    processes: Runner
    containers: Runner
    registry: Registry
    session: Session
    named: Callable[[], bool]
    prober: Prober
    records: Records
    settings: Callable[[ServiceName], ServiceSettings | None]
    router_news: Callable[[], asyncio.Event]
    changed: Callable[[], None]


class Unit:
    """One slot's instance. `run` returns when it has been stopped; cancelled, it leaves the instance running.

    `found`: the record is an earlier agent's, so what runs is adopted, never started by this unit first.
    """

    def __init__(self, site: Site, record: Record, *, found: bool = False) -> None:
        self.record = record
        self.life = Life(starts=record.starts)
        self.done = asyncio.Event()
        self._site = site
        self._found = found
        self._hurry = asyncio.Event()
        self._poke = asyncio.Event()
        self._running: Running | None = None
        self._over: Running | None = None
        self._waiting_since: float | None = None
        self._probing: asyncio.Task[None] | None = None
        self._tasks: asyncio.TaskGroup | None = None
        slot = record.slot
        template = registration(
            record.instance,
            slot.service,
            slot.version,
            address=record.address,
            port=record.port,
            meta={"host": site.host, "slot": str(slot.number)},
            status="critical",
        )
        self._entry = Entry(site.registry, template, listed=record.registered)
        self._log = structlog.get_logger("unit").bind(instance=record.instance)

    @property
    def draining(self) -> bool:
        """Whether it is on its way out; there is no way back."""
        return self.life.phase in (Phase.DRAINING, Phase.STOPPED)

    @property
    def report(self) -> UnitReport:
        """The unit as the agent reports it."""
        record, slot = self.record, self.record.slot
        return UnitReport(
            instance=record.instance,
            service=slot.service,
            version=slot.version,
            slot=slot.number,
            address=record.address,
            port=record.port,
            state=_state(self.life),
            pid=self._running.pid if self._running else 0,
            restarts=max(0, self.life.starts - 1),
            log=record.log,
            reason=(self._running.trouble if self._running else "") or self.life.reason,
            remedy=self.life.remedy,
        )

    def stop(self, reason: str, *, hurry: bool = False) -> None:
        """It drains and stops. `hurry`: a registry that does not answer is not waited for for long."""
        if hurry:
            self._hurry.set()
        self._take(StopAsked(reason))

    async def run(self) -> None:
        """The unit's whole life, from start or adoption to its end."""
        try:
            async with asyncio.TaskGroup() as tasks:
                self._tasks = tasks
                background = [tasks.create_task(self._entry.keep()), tasks.create_task(self._trim_log())]
                if self._found:
                    await self._adopt()
                while self.life.phase is not Phase.STOPPED:
                    await self._advance()
                for task in background:
                    task.cancel()
                self._leave()
        finally:
            self._leave()
            self.done.set()

    async def _advance(self) -> None:
        self._poke.clear()
        match self.life.phase:
            case Phase.DRAINING:
                await self._finish()
            case Phase.BACKOFF:
                wait_s = self.life.restart_at - time.monotonic()
                if wait_s <= 0:
                    await self._start()
                    return
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(wait_s):
                        await self._poke.wait()
            case _:
                await self._poke.wait()

    # What happens

    def _take(self, event: Event) -> None:
        before = self.life
        self.life = step(before, event, now=time.monotonic(), jitter=random.random())
        if self.life.phase is not before.phase:
            self._log.info(f"now {self.life.phase.value}", was=before.phase.value, reason=self.life.reason)
        match self.life.phase:
            case Phase.HEALTHY if isinstance(event, Probed) and event.probe.ok:
                if not self.record.registered:
                    self._save(registered=True)
                self._entry.say("passing", event.probe.reason)
            case Phase.UNHEALTHY | Phase.BACKOFF:
                self._entry.say("critical", self.life.reason)
            case _:
                pass
        self._poke.set()
        self._site.changed()

    def _exited(self, outcome: str) -> None:
        self._over, self._running = self._running, None
        if self._probing:
            self._probing.cancel()
        self._take(Failed(outcome))

    # Start

    async def _adopt(self) -> None:
        settings = self.record.settings
        running = await self._runner(settings).adopt(
            self._order(settings), self.record.identity, self._watcher()
        )
        self._running = running
        if running is None:
            self.stop(self.record.stopping or "its process ended while no agent watched it")
            return
        now, rise = time.monotonic(), settings.health.rise
        self.life = msgspec.structs.replace(self.life, starts=max(0, self.life.starts - 1))
        self._begin(running, health.adopted(now, rise=rise) if self.record.registered else health.fresh(now))
        self._log.info("adopted", pid=running.pid)
        if self.record.stopping:
            self.stop(self.record.stopping)

    async def _start(self) -> None:
        record = self.record
        settings = self._site.settings(record.slot.service) or record.settings
        try:
            await self._clear()
            if not await self._awaited(settings) or self.draining:
                return
            if not ports.free(record.address, record.port):
                self.stop(f"another program took its port {record.port}")
                return
            # The wish is on disk before the process is there: what comes between is found by its own marks.
            self.record = msgspec.structs.replace(
                record, settings=settings, identity=None, starts=self.life.starts + 1
            )
            self._site.records.save(self.record)
            running = await self._runner(settings).start(self._order(settings), self._watcher())
        except MilkrunError as error:
            self._take(Failed(error.message, error.remedy))
            return
        self._running = running
        self._save(identity=running.identity)
        self._begin(running, health.fresh(time.monotonic()))

    async def _awaited(self, settings: ServiceSettings) -> bool:
        """Whether all are there whom the service needs to start; if not, the unit says whom it waits for."""
        reason = await awaited.missing(settings.wait_for)
        now = time.monotonic()
        if not reason:
            self._waiting_since = None
            return True
        self._waiting_since = self._waiting_since or now
        if now - self._waiting_since < AWAITED_S:
            self._take(Waiting(f"waits for {reason}"))
        else:
            self._waiting_since = None
            self._take(
                Failed(f"not started: {reason}", "see to it, or correct the service's `wait_for` and commit")
            )
        return False

    def _runner(self, settings: ServiceSettings) -> Runner:
        return self._site.containers if settings.docker.image else self._site.processes

    def _order(self, settings: ServiceSettings) -> Order:
        record = self.record
        place = Place(
            service=record.slot.service,
            version=record.slot.version,
            instance=record.instance,
            address=record.address,
            port=record.port,
        )
        return Order(settings=settings, place=place, log=Path(record.log))

    def _watcher(self) -> Watcher:
        if self._tasks is None:
            raise RuntimeError("the unit does not run")
        return Watcher(on_exit=self._exited, on_news=self._site.changed, tasks=self._tasks)

    def _begin(self, running: Running, gauge: health.Gauge) -> None:
        self._take(Started(gauge))
        if self._tasks:
            self._probing = self._tasks.create_task(self._probe(running))

    async def _probe(self, running: Running) -> None:
        record = self.record
        settings = record.settings.health
        while not running.exited.is_set():
            probe = await self._site.prober.probe(record.address, record.port, settings)
            if probe.ok and self.life.phase is Phase.STARTING:
                probe = await self._own(running, probe)
            if not running.exited.is_set():
                self._take(Probed(probe, settings.rise, settings.fall))
            # The order of the arguments makes NaN the shortest time.
            interval_s = min(WAIT_S_AT_MOST, max(INTERVAL_S_AT_LEAST, settings.interval_s))
            if self.life.phase is Phase.STARTING:
                interval_s = min(interval_s, STARTING_INTERVAL_S)
            await asyncio.sleep(interval_s * (0.9 + random.random() / 10))

    async def _own(self, running: Running, probe: Probe) -> Probe:
        """The probe's result, unless another program gave it: one that took the port first."""
        if await running.stranger(self.record.port):
            return Probe(ok=False, reason=f"port {self.record.port} is answered by another program")
        return probe

    # Stop

    async def _finish(self) -> None:
        limits = self.record.settings.stop
        self._save(stopping=self.life.reason)
        running, patience_s = self._running, AWAY_S_AT_MOST
        if running and self.record.registered:
            drained = await self._drain(running, min(WAIT_S_AT_MOST, max(0.0, limits.drain_limit_s)))
            patience_s = AWAY_S_AT_MOST if drained else 0.0  # the drain had the patience already
        if await self._ended(running, min(WAIT_S_AT_MOST, max(0.0, limits.stop_limit_s))):
            await self._clear()
            await self._forget(patience_s)
        if self._probing:
            self._probing.cancel()
        self._take(Ended())

    async def _drain(self, running: Running, limit_s: float) -> bool:
        drain = Drain(
            registry=self._site.registry,
            entry=self._entry,
            service=self.record.slot.service,
            instance=self.record.instance,
            hurry=self._hurry,
            gone=running.exited,
            news=self._site.router_news,
        )
        left = await drain.run(self.life.reason, limit_s)
        if left:
            self._log.warning("stopped though requests may still be sent to it", left=left, limit_s=limit_s)
        elif running.exited.is_set():
            self._log.warning("its process ended by itself before it was drained")
        else:
            self._log.info("drained: no router sends anything to it")
        return not left

    async def _ended(self, running: Running | None, limit_s: float) -> bool:
        while running and not running.exited.is_set():
            try:
                if not await running.stop(limit_s):
                    self._log.warning("killed: it did not end by itself in time", limit_s=limit_s)
            except MilkrunError as error:
                self._log.error("cannot be stopped", why=error.message, next=error.remedy)
                if self._hurry.is_set():
                    return False
        return True

    async def _clear(self) -> None:
        """Nothing is left of what ran last and has ended."""
        if over := self._over:
            await over.clear()
            self._over = None

    def _leave(self) -> None:
        for one in (self._running, self._over):
            if one:
                one.leave()

    async def _forget(self, patience_s: float) -> None:
        """Catalog, slot and disk know the unit no more; if the registry cannot be told, the record stays."""
        began, told = time.monotonic(), ""
        while True:
            why = "the registry does not answer"
            try:
                async with asyncio.timeout(ATTEMPT_S):
                    if self.record.registered:
                        await self._entry.remove()
                    await slots.give_back(self._site.registry, self._site.session.id, self.record.slot)
                self._site.records.remove(self.record.instance)
            except TimeoutError:
                pass
            except MilkrunError as error:
                why = error.message
            else:
                return
            if why != told:
                self._log.warning("stopped, but the registry could not be told yet", why=why)
                told = why
            if self._hurry.is_set() and time.monotonic() - began >= patience_s:
                self._log.warning("stopped; the next agent here will tell the registry")
                return
            await asyncio.sleep(RETRY_S * (0.25 + random.random() * 0.75))

    # Beside it

    def _save(self, **changes: Any) -> None:
        self.record = msgspec.structs.replace(self.record, **changes)
        try:
            self._site.records.save(self.record)
        except MilkrunError as error:
            self._log.error("goes on without its record", why=error.message, next=error.remedy)

    async def _trim_log(self) -> None:
        while True:
            await asyncio.sleep(LOG_LOOK_S * (0.5 + random.random() / 2))
            try:
                rotated = await asyncio.to_thread(logfile.rotate, Path(self.record.log))
            except OSError as error:
                self._log.error("the log cannot be rotated", log=self.record.log, why=str(error))
            else:
                if rotated:
                    self._log.info("log rotated", log=self.record.log)


def _state(life: Life) -> str:
    """The phase as it is reported: what waits for its first start has not failed, it is starting."""
    first = life.phase is Phase.BACKOFF and not life.failures
    return (Phase.STARTING if first else life.phase).value
