"""How a rollout begins: from what somebody asked for and what git says, or with the reason why not."""

from __future__ import annotations

import time

import msgspec

from milkrun.errors import Conflict, MilkrunError
from milkrun.model import ServiceName, version_name
from milkrun.rollout import queue
from milkrun.rollout.drawing import drawn
from milkrun.rollout.pilot import Site
from milkrun.rollout.plan import Plan
from milkrun.rollout.receipt import Receipt, refused
from milkrun.rollout.state import Entry, Intent, State
from milkrun.rollout.store import Shelf


async def opened(site: Site, service: ServiceName) -> Shelf:
    """The service's shelf with the first rollout that waits for its beginning; those that cannot begin are refused."""
    shelf = await site.store.read(service)
    if shelf.state and not shelf.state.over:
        return shelf
    shelf = await _without_called_off(site, service, shelf)
    for key, intent in shelf.intents.items():
        if intent.verb != "start":
            await site.store.save(service, state=None, journal=None, taken=[key])  # it came too late
            continue
        try:
            found = await _plan(site, service, intent, shelf.history)
        except MilkrunError as error:
            shelf = await _refused(site, service, shelf, key=key, intent=intent, error=error)
            continue
        state = begun(found, intent, site.epoch, time.time())
        journal = [Entry(state.started, "fact", "", f"asked for by {intent.by}; digest {found.digest}")]
        await site.store.save(service, state=state, journal=journal, taken=[key])
        return msgspec.structs.replace(shelf, state=state, journal=journal)
    return shelf


def begun(plan: Plan, intent: Intent, epoch: int, now: float) -> State:
    """The rollout before its first step."""
    return State(
        plan=plan, by=intent.by, started=now, since=now, steps=plan.steps, wish=plan.wish, epoch=epoch
    )


async def _plan(site: Site, service: ServiceName, intent: Intent, history: list[Receipt]) -> Plan:
    version = version_name(intent.version)
    found, source = await drawn(
        site.git,
        intent.rollout,
        service,
        version,
        strategy=intent.strategy,
        replicas=intent.replicas,
        history=history,
    )
    if intent.digest and intent.digest != found.digest:
        raise Conflict(
            f"the plan is no longer the one that was looked at: its digest is {found.digest}, not {intent.digest}",
            remedy=f"milkrun rollout plan {service} {intent.version}",
        )
    if since := await site.rides.unsuited(service, version, source.settings.migration):
        raise Conflict(
            f"{service} {version} cannot work with its database any more: the contract of {since} took away what it"
            " needs",
            remedy="go forward: deploy a newer version",
        )
    return found


async def _refused(
    site: Site, service: ServiceName, shelf: Shelf, *, key: str, intent: Intent, error: MilkrunError
) -> Shelf:
    history = [*shelf.history, refused(service, intent, error.message, time.time())]
    await site.store.save(service, state=None, journal=None, taken=[key], history=history)
    return msgspec.structs.replace(shelf, history=history)


async def _without_called_off(site: Site, service: ServiceName, shelf: Shelf) -> Shelf:
    """The shelf without the rollouts that were called off while they waited."""
    off = queue.called_off(service, shelf.intents, shelf.state, time.time())
    if not off:
        return shelf
    taken = {key for each in off for key in each.keys}
    history = [*shelf.history, *(each.receipt for each in off)]
    await site.store.save(service, state=None, journal=None, taken=taken, history=history)
    left = {key: intent for key, intent in shelf.intents.items() if key not in taken}
    return msgspec.structs.replace(shelf, intents=left, history=history)
