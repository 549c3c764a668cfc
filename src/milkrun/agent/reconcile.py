"""The loop that makes this host run what it should: look, plan, do one thing after another, look again."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import Awaitable, Callable

import structlog

from milkrun.agent import ports, slots
from milkrun.agent.facts import Facts
from milkrun.agent.plan import Claim, Decision, Hold, Holder, Own, Release, Slot, Stop, View, plan
from milkrun.agent.records import Record
from milkrun.agent.unit import Site, Unit
from milkrun.errors import Conflict, MilkrunError
from milkrun.model import InstanceId, instance_id

CLAIM_STEP_S = 0.02
"""Each unit that runs here lets another host's claim go first by so much, up to the limit."""
CLAIM_WAIT_S_AT_MOST = 0.2
RETRY_S = 1.0
LOOK_S = 1.0
LOOK_WITHOUT_SESSION_S = 0.05


class Reconciler:
    """`units` are those of this host by slot; `begin` puts one there and runs it."""

    def __init__(
        self, site: Site, facts: Facts, units: dict[Slot, Unit], begin: Callable[[Unit], None]
    ) -> None:
        self._site = site
        self._facts = facts
        self._units = units
        self._begin = begin
        self._not_before: dict[Slot, float] = {}
        self._claim_due: float | None = None
        self._told: dict[Slot, str] = {}
        self._log = structlog.get_logger("agent")

    async def run(self) -> None:
        """Never returns."""
        while True:
            news = self._facts.news
            pause_s = await self._do(plan(self._view()))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await news.wait()

    def _view(self) -> View:
        facts = self._facts
        return View(
            host=self._site.host,
            session=self._session(),
            services=facts.services if facts.agent else {},
            wishes=facts.wishes,
            slots=facts.slots,
            own={
                slot: Own(instance=unit.record.instance, draining=unit.draining)
                for slot, unit in self._units.items()
            },
        )

    def _session(self) -> str:
        """The session to claim under. None while it may be dead, or while another agent has this host's name: the
        instances of both would have the same ids.
        """
        session = self._site.session
        return session.id if session.safe and self._site.named() else ""

    async def _do(self, decisions: list[Decision]) -> float:
        """All is done but the claims: of these one at most. How long to wait before the next look."""
        now = time.monotonic()
        claims = []
        for decision in decisions:
            if now < self._not_before.get(decision.slot, 0.0):
                continue
            match decision:
                case Stop(slot, reason):
                    self._units[slot].stop(reason)
                case Claim(slot):
                    claims.append(slot)
                case Hold(slot, instance):
                    await self._try(slot, self._hold(slot, instance))
                case Release(slot):
                    session = self._site.session.id
                    await self._try(slot, slots.give_back(self._site.registry, session, slot))
        self._not_before = {slot: until for slot, until in self._not_before.items() if until > now}
        if claims:
            return await self._claim_in_turn(claims[0])
        self._claim_due = None
        return (LOOK_S if self._session() else LOOK_WITHOUT_SESSION_S) * (0.5 + random.random() / 2)

    async def _claim_in_turn(self, slot: Slot) -> float:
        now = time.monotonic()
        if self._claim_due is None:
            wait_s = min(CLAIM_WAIT_S_AT_MOST, CLAIM_STEP_S * len(self._units))
            self._claim_due = now + wait_s + CLAIM_STEP_S * random.random()
        if now < self._claim_due:
            return self._claim_due - now
        # The next claim waits anew, and longer: another host with fewer units comes first then.
        self._claim_due = None
        await self._try(slot, self._claim(slot))
        return 0.0

    async def _try(self, slot: Slot, doing: Awaitable[None]) -> None:
        """It is done, or told once why not and tried again later."""
        try:
            await doing
        except MilkrunError as error:
            if self._told.get(slot) != error.message:
                self._log.warning("a slot must wait", slot=_name(slot), why=error.message, next=error.remedy)
                self._told[slot] = error.message
            self._not_before[slot] = time.monotonic() + RETRY_S * (0.5 + random.random() / 2)
        else:
            self._told.pop(slot, None)

    async def _claim(self, slot: Slot) -> None:
        settings, place = self._facts.services[slot.service], self._facts.agent
        if place is None:
            return
        taken = {unit.record.port for unit in self._units.values()}
        port = ports.choose(place.address, place.ports[0], place.ports[1], taken)
        name = f"{slot.service}-{slot.version}-{self._site.host}-{port}".replace("+", "_")
        instance = instance_id(name)
        await self._hold(slot, instance)
        log = self._site.state_dir / "logs" / f"{instance}.log"
        record = Record(
            instance=instance, slot=slot, address=place.address, port=port, log=str(log), settings=settings
        )
        self._log.info("slot claimed", slot=_name(slot), instance=instance)
        self._begin(Unit(self._site, record))

    async def _hold(self, slot: Slot, instance: InstanceId) -> None:
        site, session = self._site, self._site.session.id
        if not session or not await slots.take(site.registry, session, slot, site.host, instance):
            raise Conflict("another agent holds it, or held it until just now")
        if self._facts.slots is not None:
            self._facts.slots[slot] = Holder(session=session, host=site.host, instance=instance)


def _name(slot: Slot) -> str:
    return f"{slot.service}/{slot.version}/{slot.number}"
