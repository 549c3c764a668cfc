"""/v1/event: what somebody told all nodes."""

from __future__ import annotations

import uuid

from milkrun.registry import commands, topics, views
from milkrun.registry.access.rules import Level, Resource
from milkrun.registry.engine import Engine
from milkrun.registry.events import Event, index_of
from milkrun.registry.filters.pattern import Budget, Pattern
from milkrun.registry.filters.syntax import WrongPattern
from milkrun.registry.http.asking import change, require, shown
from milkrun.registry.http.blocking import answer
from milkrun.registry.http.health import named
from milkrun.registry.http.message import Reply, Request
from milkrun.registry.http.route import Route
from milkrun.registry.refusal import Refused

EVENT_BYTES_AT_MOST = 512
_MOVED = 2**64


async def fire(engine: Engine, request: Request) -> Reply:
    """Tells all nodes, which is this one."""
    name = named(request, "name")
    require(engine, request, Resource.EVENT, name, Level.WRITE)
    payload = await request.body()
    if len(payload) + len(name) > EVENT_BYTES_AT_MOST:
        why = f"user event exceeds configured limit of {EVENT_BYTES_AT_MOST} bytes before encoding"
        raise Refused(500, f'1 error occurred:\n\t* error broadcasting event to segment "": {why}\n\n')
    event = Event(
        id=str(uuid.uuid4()),
        name=name,
        payload=payload or None,
        node_filter=request.one("node") or "",
        service_filter=request.one("service") or "",
        tag_filter=request.one("tag") or "",
    )
    if event.tag_filter and not event.service_filter:
        raise Refused(500, "Cannot provide tag filter without service filter")
    if _heard_here(engine, event):
        await change(engine, request, commands.HearEvent(event))
    return Reply.json(event)


async def heard(engine: Engine, request: Request) -> Reply:
    """The last events, or those of a `name`; their index is not the state's but the newest one's."""
    name = request.one("name")

    def current() -> int:
        return index_of(engine.machine.events.named(name))

    def reply(_: int) -> Reply:
        return shown(engine, request, engine.machine.events.named(name), index=current())

    def moved() -> int:
        """These indexes have no order: any other one than the client's is news."""
        return 0 if str(current()) == request.one("index") else _MOVED

    return await answer(engine, request, topics.EVENTS, index=moved, reply=reply)


def _heard_here(engine: Engine, event: Event) -> bool:
    budget = Budget()
    node = _pattern("node", event.node_filter, budget)
    service = _pattern("service", event.service_filter, budget)
    tag = _pattern("tag", event.tag_filter, budget)
    here = views.agent_services(engine.machine.catalog, engine.machine.node).values()
    return node.found_in(engine.machine.node) and (
        not event.service_filter
        or any(
            service.found_in(each.service) and (not event.tag_filter or any(map(tag.found_in, each.tags)))
            for each in here
        )
    )


def _pattern(what: str, text: str, budget: Budget) -> Pattern:
    try:
        return Pattern(text, budget)
    except WrongPattern as wrong:
        raise Refused(500, f"Invalid {what} filter: {wrong}") from wrong


ROUTES = (
    Route("PUT", "/v1/event/fire/", fire, "event", "write"),
    Route("GET", "/v1/event/list", heard, "event", "read"),
)
