"""User events: the last ones that were fired, in order. Pure. They are news, not state: a restart forgets them."""

from __future__ import annotations

from collections import deque

import msgspec

from milkrun.registry.nouns import consul_name

KEPT_AT_MOST = 256
NOBODY_FIRED = 1
"""The index of an empty list: never 0, or clients ask without end."""


class Event(msgspec.Struct, frozen=True, kw_only=True, rename=consul_name):
    """Something that somebody told all nodes. Empty filters let every node hear it."""

    id: str
    name: str
    payload: bytes | None = None
    node_filter: str = ""
    service_filter: str = ""
    tag_filter: str = ""
    version: int = 1
    l_time: int = msgspec.field(name="LTime", default=0)


class Events:
    """The events that this node heard, oldest first."""

    def __init__(self) -> None:
        self._heard: deque[Event] = deque(maxlen=KEPT_AT_MOST)
        self._clock = 1

    def hear(self, event: Event) -> None:
        """The event is the newest, stamped with the next logical time."""
        self._clock += 1
        self._heard.append(msgspec.structs.replace(event, l_time=self._clock))

    def named(self, name: str | None) -> list[Event]:
        """The events of that name, or all."""
        return [event for event in self._heard if not name or event.name == name]


def index_of(events: list[Event]) -> int:
    """The index of a list of events: Consul's clients reckon it from the newest one's id in the same way."""
    if not events:
        return NOBODY_FIRED
    bits = int(events[-1].id.replace("-", ""), 16)
    return ((bits >> 64) ^ (bits & (2**64 - 1))) or NOBODY_FIRED
