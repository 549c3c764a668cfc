"""/v1/health"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from milkrun.registry import topics, views
from milkrun.registry.engine import Engine
from milkrun.registry.http.blocking import answer
from milkrun.registry.http.message import Reply, Request
from milkrun.registry.http.route import Route
from milkrun.registry.refusal import Refused

_encode = msgspec.json.Encoder().encode


async def service(engine: Engine, request: Request) -> Reply:
    """The instances of a service with their checks: all, or those that pass (`passing`) or have a `tag`."""
    name = named(request, "service name")
    passing = bool(request.query) and request.true("passing")
    tags = tuple(request.query.get("tag", ()))
    topic = topics.service(name)

    def encode() -> bytes:
        return _encode(views.health(engine.machine.catalog, name, tags, passing=passing))

    def reply(index: int) -> Reply:
        return Reply.encoded(engine.replies.get(topic, (passing, tags), encode), index=index)

    return await answer(engine, request, topic, index=lambda: engine.machine.ledger.at(topic), reply=reply)


async def checks(engine: Engine, request: Request) -> Reply:
    """The checks of all instances of a service."""
    name = named(request, "service name")
    return await topic_answer(
        engine, request, topics.service(name), lambda: views.service_checks(engine.machine.catalog, name)
    )


async def node(engine: Engine, request: Request) -> Reply:
    """All checks on a node."""
    name = named(request, "node name")
    return await topic_answer(
        engine, request, topics.node(name), lambda: views.node_checks(engine.machine.catalog, name)
    )


async def state(engine: Engine, request: Request) -> Reply:
    """All checks with a status, or with any."""
    status = named(request, "check state")
    return await topic_answer(
        engine, request, topics.CHECKS, lambda: views.state_checks(engine.machine.catalog, status)
    )


async def topic_answer(engine: Engine, request: Request, topic: str, view: Callable[[], Any]) -> Reply:
    """The reply to a query whose answer is `view()`, and whose index is the topic's."""
    return await answer(
        engine,
        request,
        topic,
        index=lambda: engine.machine.ledger.at(topic),
        reply=lambda index: Reply.json(view(), index=index),
    )


def named(request: Request, what: str) -> str:
    """What follows the route's path; it must not be empty."""
    if not request.rest:
        raise Refused(400, f"Missing {what}")
    return request.rest


ROUTES = (
    Route("GET", "/v1/health/service/", service, "service", "read"),
    Route("GET", "/v1/health/checks/", checks, "service", "read"),
    Route("GET", "/v1/health/node/", node, "node", "read"),
    Route("GET", "/v1/health/state/", state, "service", "read"),
)
