"""How a rollout begins: from what somebody asked for and what git says, or with the reason why not."""

from __future__ import annotations

import time

import msgspec

from milkrun.errors import Conflict, MilkrunError
from milkrun.model import ServiceName, version_name
from milkrun.rollout.pilot import Site
from milkrun.rollout.plan import Plan, plan
from milkrun.rollout.receipt import Receipt
from milkrun.rollout.state import Entry, Intent, State
from milkrun.rollout.store import Shelf


async def opened(site: Site, service: ServiceName) -> Shelf:
    """The service's shelf with the first rollout that waits for its beginning; those that cannot begin are refused."""
    shelf = await site.store.read(service)
    if shelf.state and not shelf.state.over:
        return shelf
    for key, intent in shelf.intents.items():
        if intent.verb != "start":
            await site.store.save(service, state=None, journal=None, taken=[key])  # it came too late
            continue
        try:
            drawn = await _plan(site, service, intent)
        except MilkrunError as error:
            shelf = await _refused(site, service, shelf, key=key, intent=intent, error=error)
            continue
        state = begun(drawn, intent, site.epoch, time.time())
        journal = [Entry(state.started, "fact", "", f"asked for by {intent.by}; digest {drawn.digest}")]
        await site.store.save(service, state=state, journal=journal, taken=[key])
        return msgspec.structs.replace(shelf, state=state, journal=journal)
    return shelf


def begun(drawn: Plan, intent: Intent, epoch: int, now: float) -> State:
    """The rollout before its first step."""
    return State(
        plan=drawn, by=intent.by, started=now, since=now, steps=drawn.steps, wish=drawn.wish, epoch=epoch
    )


async def _plan(site: Site, service: ServiceName, intent: Intent) -> Plan:
    base, settings = await site.git.files(service)
    drawn = plan(
        intent.rollout,
        service,
        version_name(intent.version),
        base,
        settings.rollout,
        strategy=intent.strategy,
        replicas=intent.replicas,
    )
    if intent.digest and intent.digest != drawn.digest:
        raise Conflict(
            f"the plan is no longer the one that was looked at: its digest is {drawn.digest}, not {intent.digest}",
            remedy=f"milkrun rollout plan {service} {intent.version}",
        )
    return drawn


async def _refused(
    site: Site, service: ServiceName, shelf: Shelf, *, key: str, intent: Intent, error: MilkrunError
) -> Shelf:
    now = time.time()
    note = Receipt(
        rollout=intent.rollout,
        service=service,
        version=version_name(intent.version),
        old=[],
        strategy=intent.strategy or "canary",
        by=intent.by,
        outcome="refused",
        reason=error.message,
        started=now,
        ended=now,
    )
    history = [*shelf.history, note]
    await site.store.save(service, state=None, journal=None, taken=[key], history=history)
    return msgspec.structs.replace(shelf, history=history)
