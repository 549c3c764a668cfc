"""/v1/session"""

from __future__ import annotations

import uuid
from typing import Any

import msgspec

from milkrun.registry import commands, topics
from milkrun.registry.duration import counted, nanoseconds
from milkrun.registry.engine import Engine
from milkrun.registry.http.asking import change
from milkrun.registry.http.bodies import Duration, decode
from milkrun.registry.http.health import named, topic_answer
from milkrun.registry.http.message import Reply, Request
from milkrun.registry.http.route import Route
from milkrun.registry.nouns import NODE_CHECK, ServiceCheckRef, Session
from milkrun.registry.refusal import Refused

TTL_NS_AT_LEAST = 10_000_000_000
TTL_NS_AT_MOST = 24 * 3600 * 1_000_000_000
_NS = 1_000_000_000
_LOCK_DELAY_IS_SECONDS_BELOW = 1000
"""A lock-delay given as a number is in seconds below this, in nanoseconds from it on, as Consul reads it."""


class _CheckRef(msgspec.Struct):
    id: str = ""
    namespace: str = ""


class _Creation(msgspec.Struct, rename=lambda field: field.replace("_", "")):
    name: str = ""
    node: str = ""
    lock_delay: Duration | None = None
    behavior: str = ""
    ttl: str = ""
    checks: list[str] | None = None
    node_checks: list[str] | None = None
    service_checks: list[_CheckRef] | None = None


async def create(engine: Engine, request: Request) -> Reply:
    """Starts a session."""
    raw = await request.body()
    body = decode(raw, _Creation) if raw.strip() else _Creation()
    if body.behavior not in ("", "release", "delete"):
        raise Refused(500, f"Invalid Behavior setting '{body.behavior}'")
    _check_ttl(body.ttl)
    checks = body.node_checks if body.node_checks is not None else body.checks
    refs = [ServiceCheckRef(id=each.id, namespace=each.namespace) for each in body.service_checks or ()]
    session = Session(
        id=str(uuid.uuid4()),
        name=body.name,
        node=body.node or engine.machine.node,
        lock_delay=_lock_delay(body.lock_delay),
        behavior=body.behavior or "release",
        ttl=body.ttl,
        node_checks=[NODE_CHECK] if checks is None else checks,
        service_checks=refs or None,
    )
    return Reply.json({"ID": await change(engine, request, commands.CreateSession(session))})


async def destroy(engine: Engine, request: Request) -> Reply:
    """Ends a session."""
    await change(engine, request, commands.DestroySession(_id(request)))
    return Reply.encoded(b"true")


async def renew(engine: Engine, request: Request) -> Reply:
    """Starts a session's time to live anew."""
    session_id = _id(request)
    session = await change(engine, request, commands.RenewSession(session_id))
    if session is None:
        raise Refused(404, f"Session id '{session_id}' not found")
    return Reply.json([session])


async def info(engine: Engine, request: Request) -> Reply:
    """One session, in a list that is empty when there is none."""
    session_id = _id(request)

    def view() -> list[Any]:
        session = engine.machine.sessions.live.get(session_id)
        return [session] if session else []

    return await topic_answer(engine, request, topics.session(session_id), view)


async def all_sessions(engine: Engine, request: Request) -> Reply:
    """All sessions."""
    return await topic_answer(
        engine, request, topics.SESSIONS, lambda: engine.machine.sessions.of_node(node=None)
    )


async def of_node(engine: Engine, request: Request) -> Reply:
    """The sessions of a node."""
    name = named(request, "node name")
    return await topic_answer(engine, request, topics.SESSIONS, lambda: engine.machine.sessions.of_node(name))


def _id(request: Request) -> str:
    session_id = named(request, "session")
    if len(session_id) != 36:
        raise Refused(500, "failed session lookup: index error: UUID must be 36 characters")
    return session_id


def _check_ttl(text: str) -> None:
    if not text:
        return
    try:
        ttl_ns = nanoseconds(text)
    except ValueError as error:
        raise Refused(500, f"Session TTL '{text[:64]}' invalid: {error}") from error
    if ttl_ns and not TTL_NS_AT_LEAST <= ttl_ns <= TTL_NS_AT_MOST:
        raise Refused(500, f"Invalid Session TTL '{ttl_ns}', must be between [10s=24h0m0s]")


def _lock_delay(value: Duration | None) -> int:
    if value is None:
        return 15 * _NS
    try:
        if isinstance(value, str):
            return nanoseconds(value)
        return counted(value, _NS if value < _LOCK_DELAY_IS_SECONDS_BELOW else 1)
    except ValueError as error:
        raise Refused(400, f"Request decode failed: {error}") from error


ROUTES = (
    Route("PUT", "/v1/session/create", create, "session", "write"),
    Route("PUT", "/v1/session/destroy/", destroy, "session", "write"),
    Route("PUT", "/v1/session/renew/", renew, "session", "write"),
    Route("GET", "/v1/session/info/", info, "session", "read"),
    Route("GET", "/v1/session/list", all_sessions, "session", "read"),
    Route("GET", "/v1/session/node/", of_node, "session", "read"),
)
