"""/v1/acl/role: roles, as Consul's command line makes, shows and deletes them."""

from __future__ import annotations

import uuid
from typing import Any

from milkrun.registry import commands
from milkrun.registry.access.rules import Level
from milkrun.registry.access.tokens import Role, Tokens
from milkrun.registry.engine import Engine
from milkrun.registry.http.acl import guarded, uuid_of
from milkrun.registry.http.acl_grants import DESCRIPTION_AT_MOST, GrantsBody, granted, shown_grants
from milkrun.registry.http.acl_named import found, refuse_name, refuse_other_id, shown
from milkrun.registry.http.asking import change
from milkrun.registry.http.bodies import decode, folded
from milkrun.registry.http.message import Reply, Request
from milkrun.registry.http.route import Route
from milkrun.registry.refusal import Refused

NAME_AT_MOST = 256


class _RoleBody(GrantsBody, rename=folded):
    id: str = ""
    name: str = ""
    description: str = ""


async def roles(engine: Engine, request: Request) -> Reply:
    """All roles, or those that have a policy."""
    policy = request.one("policy")
    known = engine.machine.tokens
    wanted = [each for each in known.roles.values() if not policy or policy in each.policies]
    return Reply.json([_shown(known, each) for each in wanted])


async def role(engine: Engine, request: Request) -> Reply:
    """One role, by id or (`name/`) by name."""
    known = engine.machine.tokens
    each = found(request, "role", known.roles.get, known.role_named)
    if each is None:
        return Reply(404)
    return Reply.json(_shown(known, each))


async def make_role(engine: Engine, request: Request) -> Reply:
    """Makes a role."""
    body = decode(await request.body(), _RoleBody, what="Bad request: Role decoding failed")
    if body.id:
        raise Refused(400, "Bad request: Role ID in URL and payload do not match")
    return await _put(engine, request, body, str(uuid.uuid4()))


async def change_role(engine: Engine, request: Request) -> Reply:
    """Changes a role, for all tokens that have it."""
    role_id = uuid_of(request, "role")
    body = decode(await request.body(), _RoleBody, what="Bad request: Role decoding failed")
    refuse_other_id(body.id, role_id, "Role")
    if role_id not in engine.machine.tokens.roles:
        raise Refused(500, f"cannot find role {role_id}")
    return await _put(engine, request, body, role_id)


async def drop_role(engine: Engine, request: Request) -> Reply:
    """Deletes a role: what it granted is granted to nobody."""
    await change(engine, request, commands.DropRole(uuid_of(request, "role")))
    return Reply.encoded(b"true")


async def _put(engine: Engine, request: Request, body: _RoleBody, role_id: str) -> Reply:
    if not body.name:
        raise Refused(500, "Invalid Role: no Name is set")
    refuse_name(body.name, NAME_AT_MOST, "Role")
    known = engine.machine.tokens
    new = Role(
        id=role_id,
        name=body.name,
        description=body.description[:DESCRIPTION_AT_MOST],
        **granted(known, body, "role"),
    )
    kept = await change(engine, request, commands.PutRole(new))
    return Reply.json(_shown(engine.machine.tokens, kept))


def _shown(known: Tokens, each: Role) -> dict[str, Any]:
    return shown(each, **shown_grants(known, each))


_read, _write = guarded(Level.READ), guarded(Level.WRITE)

ROUTES = (
    Route("GET", "/v1/acl/roles", _read(roles), "acl", "read"),
    Route("PUT", "/v1/acl/role", _write(make_role), "acl", "write"),
    Route("GET", "/v1/acl/role/", _read(role), "acl", "read"),
    Route("PUT", "/v1/acl/role/", _write(change_role), "acl", "write"),
    Route("DELETE", "/v1/acl/role/", _write(drop_role), "acl", "write"),
)
