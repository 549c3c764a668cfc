"""/v1/health"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from milkrun.registry import topics, views
from milkrun.registry.access import sight
from milkrun.registry.engine import Engine
from milkrun.registry.filters import shapes
from milkrun.registry.filters.shapes import Fields
from milkrun.registry.http import filtering
from milkrun.registry.http.asking import Narrow, authority, shown
from milkrun.registry.http.blocking import answer
from milkrun.registry.http.message import Reply, Request
from milkrun.registry.http.route import Route
from milkrun.registry.nouns import Check
from milkrun.registry.refusal import Refused

_encode = msgspec.json.Encoder().encode


async def service(engine: Engine, request: Request) -> Reply:
    """The instances of a service with their checks: all, or those that pass (`passing`) or have a `tag`."""
    name = named(request, "service name")
    passing = bool(request.query) and request.true("passing")
    tags = tuple(request.query.get("tag", ()))
    topic = topics.service(name)
    narrowed = filtering.asked(request)
    test = filtering.test_of(request, shapes.HEALTH_ENTRY)
    has_meta = filtering.node_meta(request)

    def entries() -> list[views.HealthEntry]:
        found = views.health(engine.machine.catalog, name, tags, passing=passing)
        return (
            filtering.kept((each for each in found if has_meta(each.node.meta)), test) if narrowed else found
        )

    def encode() -> bytes:
        return _encode(entries())

    def reply(index: int) -> Reply:
        if narrowed or not authority(engine, request).reads_all:
            return shown(engine, request, entries(), index=index)
        return Reply.encoded(engine.replies.get(topic, (passing, tags), encode), index=index)

    return await answer(engine, request, topic, index=lambda: engine.machine.ledger.at(topic), reply=reply)


async def checks(engine: Engine, request: Request) -> Reply:
    """The checks of all instances of a service."""
    name = named(request, "service name")
    view = _checks_of(engine, request, lambda: views.service_checks(engine.machine.catalog, name))
    return await topic_answer(engine, request, topics.service(name), view, shapes.CHECK)


async def node(engine: Engine, request: Request) -> Reply:
    """All checks on a node."""
    name = named(request, "node name")
    return await topic_answer(
        engine,
        request,
        topics.node(name),
        lambda: views.node_checks(engine.machine.catalog, name),
        shapes.CHECK,
    )


async def state(engine: Engine, request: Request) -> Reply:
    """All checks with a status, or with any."""
    status = named(request, "check state")
    view = _checks_of(engine, request, lambda: views.state_checks(engine.machine.catalog, status))
    return await topic_answer(engine, request, topics.CHECKS, view, shapes.CHECK)


async def connect(engine: Engine, request: Request) -> Reply:
    """The instances that take part in a service mesh: there is none here."""
    name = named(request, "service name")
    return await topic_answer(engine, request, topics.service(name), list, shapes.HEALTH_ENTRY)


async def topic_answer(
    engine: Engine,
    request: Request,
    topic: str,
    view: Callable[[], Any],
    shape: Fields | None = None,
    *,
    narrow: Narrow = sight.seen,
) -> Reply:
    """The reply to a query whose answer is `view()`, and whose index is the topic's.

    With a `shape`, the view is a list of such items, and the request's filter narrows it. `narrow` leaves what
    the client may see; a list needs none.
    """
    if shape and (test := filtering.test_of(request, shape)):
        whole = view

        def view() -> Any:
            return filtering.kept(whole(), test)

    return await answer(
        engine,
        request,
        topic,
        index=lambda: engine.machine.ledger.at(topic),
        reply=lambda index: shown(engine, request, view(), index=index, narrow=narrow),
    )


def _checks_of(
    engine: Engine, request: Request, view: Callable[[], list[Check]]
) -> Callable[[], list[Check]]:
    """The view, or the part of it on nodes with the meta that the request asks for."""
    if not filtering.asked(request):
        return view
    has_meta = filtering.node_meta(request)
    nodes = engine.machine.catalog.nodes
    return lambda: [check for check in view() if has_meta(nodes[check.node].meta)]


def named(request: Request, what: str) -> str:
    """What follows the route's path; it must not be empty."""
    if not request.rest:
        raise Refused(400, f"Missing {what}")
    return request.rest


ROUTES = (
    Route("GET", "/v1/health/service/", service, "service+node", "read"),
    Route("GET", "/v1/health/checks/", checks, "service+node", "read"),
    Route("GET", "/v1/health/node/", node, "node", "read"),
    Route("GET", "/v1/health/state/", state, "service+node", "read"),
    Route("GET", "/v1/health/connect/", connect, "service", "read"),
)
