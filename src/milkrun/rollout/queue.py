"""Rollouts that wait for their turn: who they are, and which of them were called off. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from milkrun.model import ServiceName
from milkrun.rollout.receipt import Receipt, refused
from milkrun.rollout.state import Intent, State


def waiting(intents: Iterable[Intent], state: State | None) -> list[Intent]:
    """Those that wait to begin, the next one first. `intents` are in the order in which they were written."""
    begun = state.plan.id if state else ""
    return [intent for intent in intents if intent.verb == "start" and intent.rollout != begun]


def ahead(rollout: str, intents: Iterable[Intent], state: State | None) -> list[str]:
    """The rollouts that come to their end before that one begins, the one under way first."""
    if state and state.plan.id == rollout:
        return []
    under_way = [state.plan.id] if state and not state.over else []
    queue = [intent.rollout for intent in waiting(intents, state)]
    return under_way + (queue[: queue.index(rollout)] if rollout in queue else [])


class CalledOff(msgspec.Struct, frozen=True):
    """A rollout that will not begin: the keys of the wishes for and against it, and what stays of it."""

    keys: tuple[str, str]
    receipt: Receipt


def called_off(
    service: ServiceName, intents: Mapping[str, Intent], state: State | None, now: float
) -> list[CalledOff]:
    """The waiting rollouts that somebody aborts."""
    starts = {intent.rollout: key for key, intent in intents.items() if intent.verb == "start"}
    if state:
        starts.pop(state.plan.id, None)  # it has begun: that is an abort like any other
    found = []
    for key, intent in intents.items():
        if intent.verb == "abort" and (start := starts.pop(intent.rollout, None)):
            why = f"called off by {intent.by}" + (f": {intent.reason}" if intent.reason else "")
            found.append(CalledOff((start, key), refused(service, intents[start], why, now)))
    return found
