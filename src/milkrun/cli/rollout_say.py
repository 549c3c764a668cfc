"""Says something to a rollout, and hears what the engine makes of it."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from milkrun.cli.rollout_ask import ask, intent
from milkrun.cli.rollout_text import next_command
from milkrun.cli.rollout_wait import read, unknown
from milkrun.consul import Registry
from milkrun.errors import Conflict, Degraded
from milkrun.model import ServiceName
from milkrun.rollout import queue

if TYPE_CHECKING:
    from milkrun.consul import Address
    from milkrun.rollout.state import Intent, Verb
    from milkrun.rollout.store import Shelf
    from milkrun.rollout.view import RolloutView

LOOK_S = 0.2
TAKEN_UP_S = 10.0


async def say(
    address: Address,
    service: ServiceName,
    verb: Verb,
    *,
    reason: str = "",
    full: bool = False,
    queued: str = "",
) -> str:
    """What came of it, once the engine has taken it up. Raises Conflict when nothing did, or when there is no rollout
    that it could be said to; Degraded when no engine takes it up.
    """
    async with Registry(address) as registry:
        shelf, seen = await read(registry, service)
        if seen is None and not shelf.intents:
            raise await unknown(registry, service)
        wanted = intent(verb, reason=reason, full=full, rollout=_whose(shelf, service, verb, queued))
    await ask(address, service, wanted)
    deadline = time.monotonic() + TAKEN_UP_S
    async with Registry(address) as registry:
        while time.monotonic() < deadline:
            shelf, seen = await read(registry, service)
            if all(known.id != wanted.id for known in shelf.intents.values()):
                return heard(shelf, seen, wanted)
            _not_too_late(shelf, wanted)
            await asyncio.sleep(LOOK_S)
    raise Degraded(
        f"it is written down, but no engine has taken it up within {TAKEN_UP_S:g} s",
        remedy="milkrun logs rollouts",
    )


def _whose(shelf: Shelf, service: ServiceName, verb: Verb, queued: str) -> str:
    """The rollout that is meant: the one under way, or one that still waits."""
    waiting = queue.waiting(shelf.intents.values(), shelf.state)
    if queued:
        for each in waiting:
            if queued in (each.version, each.rollout):
                return each.rollout
        raise Conflict(
            f"no rollout of {service} {queued} waits for its turn", remedy=f"milkrun rollout status {service}"
        )
    if shelf.state and not shelf.state.over:
        return shelf.state.plan.id
    if verb == "abort" and waiting:
        return waiting[0].rollout
    last = f": its last one, {shelf.state.plan.id}, is {shelf.state.phase.value}" if shelf.state else ""
    raise Conflict(f"{service} has no rollout under way{last}", remedy=f"milkrun rollout history {service}")


def _not_too_late(shelf: Shelf, wanted: Intent) -> None:
    state = shelf.state
    if state and state.over and state.plan.id == wanted.rollout:
        raise Conflict(
            f"it came too late: {wanted.rollout} has ended, and is {state.phase.value}",
            remedy=f"milkrun rollout history {state.service}",
        )


def heard(shelf: Shelf, seen: RolloutView | None, wanted: Intent) -> str:
    """What the engine answered to what was wanted. Raises Conflict when that is no."""
    for entry in reversed(shelf.journal):
        if seen and entry.answers == wanted.id:
            if entry.refused:
                raise Conflict(f"nothing was done; {entry.said}", remedy=next_command(seen))
            held = f", held: {seen.paused}" if seen.paused else ""
            return f"{seen.rollout} is {seen.phase.value}{held}"
    for receipt in shelf.history:
        if receipt.rollout == wanted.rollout:
            outcome = "will not begin" if receipt.outcome == "refused" else f"is {receipt.outcome}"
            return f"{receipt.rollout} {outcome}" + (f": {receipt.reason}" if receipt.reason else "")
    return f"{wanted.rollout} has ended"
