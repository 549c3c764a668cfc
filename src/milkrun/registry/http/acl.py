"""/v1/acl: what does not speak of one kind of thing, and who may ask (tokens, roles, policies: see acl_*.py).

There is nothing to bootstrap: the registry's own token is there from its first start. Nobody logs in: there are
no auth methods.
"""

from __future__ import annotations

from typing import Any

import msgspec

from milkrun.registry.access.authority import Mode
from milkrun.registry.access.permits import DENIED
from milkrun.registry.access.rules import Level, Resource
from milkrun.registry.engine import Engine
from milkrun.registry.http.asking import authority, require
from milkrun.registry.http.bodies import decode, folded
from milkrun.registry.http.health import named
from milkrun.registry.http.message import Reply, Request
from milkrun.registry.http.route import Handler, Route
from milkrun.registry.refusal import Refused


class _LoginBody(msgspec.Struct, rename=folded):
    auth_method: str = ""
    bearer_token: str = ""


def guarded(level: Level | None) -> Any:
    """The handler does its work where there are tokens, for who may read or write them; None: for every token."""

    def wrapped(inner: Handler) -> Handler:
        async def handle(engine: Engine, request: Request) -> Reply:
            if engine.gate.mode is Mode.OPEN:
                authority(engine, request)
                raise Refused(401, "ACL support disabled")
            if level is not None:
                require(engine, request, Resource.ACL, "", level)
            return await inner(engine, request)

        return handle

    return wrapped


def public(inner: Handler) -> Handler:
    """The handler does its work where there are tokens, for everyone."""

    async def handle(engine: Engine, request: Request) -> Reply:
        if engine.gate.mode is Mode.OPEN:
            raise Refused(401, "ACL support disabled")
        return await inner(engine, request)

    return handle


async def bootstrap(_: Engine, __: Request) -> Reply:
    """Refused: the first token is there since the first start."""
    raise Refused(
        403,
        "Permission denied: ACL bootstrap no longer allowed (reset index: 1): the registry made its own token at "
        "its first start, in the file that its log names",
    )


async def replication(_: Engine, __: Request) -> Reply:
    """There is nothing to replicate."""
    never = "0001-01-01T00:00:00Z"
    return Reply.json(
        {
            "Enabled": False,
            "Running": False,
            "SourceDatacenter": "",
            "ReplicationType": "",
            "ReplicatedIndex": 0,
            "ReplicatedRoleIndex": 0,
            "ReplicatedTokenIndex": 0,
            "LastSuccess": never,
            "LastError": never,
        }
    )


async def login(_: Engine, request: Request) -> Reply:
    """Refused: there is no auth method by which somebody could log in."""
    decode(await request.body(), _LoginBody, what="Bad request: Failed to decode request body")
    raise Refused(403, "ACL not found")


async def logout(engine: Engine, request: Request) -> Reply:
    """Refused: no token came from a login."""
    if not authority(engine, request).accessor:
        raise Refused(403, "ACL not found")
    raise Refused(403, DENIED)


async def nothing(_: Engine, __: Request) -> Reply:
    """None: this registry has no auth methods or binding rules."""
    return Reply.json([])


async def agent_token(_: Engine, __: Request) -> Reply:
    """Refused: the registry's agent role needs no token."""
    raise Refused(400, "This registry's agent needs no token of its own")


def uuid_of(request: Request, what: str) -> str:
    """The id that follows the route's path; it has the length of one."""
    asked = named(request, f"{what} ID")
    if len(asked.removesuffix("/clone")) != 36:
        raise Refused(500, f"failed acl {what} lookup: index error: UUID must be 36 characters")
    return asked


_read, _write, _any = guarded(Level.READ), guarded(Level.WRITE), guarded(None)

ROUTES = (
    Route("PUT", "/v1/acl/bootstrap", public(bootstrap), "none", "none"),
    Route("POST", "/v1/acl/login", public(login), "none", "none"),
    Route("POST", "/v1/acl/logout", _any(logout), "any", "write"),
    Route("GET", "/v1/acl/auth-methods", _read(nothing), "acl", "read"),
    Route("GET", "/v1/acl/binding-rules", _read(nothing), "acl", "read"),
    Route("GET", "/v1/acl/replication", public(replication), "none", "none"),
    Route("PUT", "/v1/agent/token/", _write(agent_token), "acl", "write"),
)
