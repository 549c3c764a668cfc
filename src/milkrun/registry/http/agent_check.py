"""/v1/agent/check: the checks registered with this node, and how they stand."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import msgspec

from milkrun.registry import commands
from milkrun.registry.engine import Engine
from milkrun.registry.http.asking import change
from milkrun.registry.http.bodies import CheckBody, check_of, decode, fold
from milkrun.registry.http.message import Reply, Request
from milkrun.registry.http.route import Route
from milkrun.registry.nouns import CRITICAL, PASSING, STATUSES, WARNING
from milkrun.registry.refusal import Refused


class _Update(msgspec.Struct):
    status: str = ""
    output: str = ""


async def register(engine: Engine, request: Request) -> Reply:
    """Registers a check of this node or of one of its services."""
    raw = await request.body()
    body = decode(raw, CheckBody)
    if not body.name:
        raise Refused(400, "Missing check name")
    spec = check_of(
        fold(msgspec.json.decode(raw)),
        default_id=body.name,
        default_name=body.name,
        service_id=body.service_id,
    )
    await change(engine, request, commands.RegisterCheck(spec))
    return Reply()


async def deregister(engine: Engine, request: Request) -> Reply:
    """Takes a check out."""
    await change(engine, request, commands.DeregisterCheck(request.rest))
    return Reply()


def reporting(status: str) -> Callable[[Engine, Request], Awaitable[Reply]]:
    """The handler that says a TTL check has this status, with the `note` as its output."""

    async def report(engine: Engine, request: Request) -> Reply:
        await change(engine, request, commands.ReportCheck(request.rest, status, request.one("note") or ""))
        return Reply()

    return report


async def update(engine: Engine, request: Request) -> Reply:
    """Says how a TTL check stands."""
    body = decode(await request.body(), _Update)
    if body.status not in STATUSES:
        raise Refused(400, f"Invalid check status: '{body.status}'")
    await change(engine, request, commands.ReportCheck(request.rest, body.status, body.output))
    return Reply()


ROUTES = (
    Route("PUT", "/v1/agent/check/register", register, "service", "write"),
    Route("PUT", "/v1/agent/check/deregister/", deregister, "service", "write"),
    Route("PUT", "/v1/agent/check/pass/", reporting(PASSING), "service", "write"),
    Route("PUT", "/v1/agent/check/warn/", reporting(WARNING), "service", "write"),
    Route("PUT", "/v1/agent/check/fail/", reporting(CRITICAL), "service", "write"),
    Route("PUT", "/v1/agent/check/update/", update, "service", "write"),
)
