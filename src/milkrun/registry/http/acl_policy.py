"""/v1/acl/policy: policies, as Consul's command line makes, shows and deletes them."""

from __future__ import annotations

import uuid
from typing import Any

import msgspec

from milkrun.registry import commands
from milkrun.registry.access import language
from milkrun.registry.access.grants import MANAGEMENT_ID
from milkrun.registry.access.rules import Level
from milkrun.registry.access.tokens import BUILTIN, Policy
from milkrun.registry.engine import Engine
from milkrun.registry.http.acl import guarded, uuid_of
from milkrun.registry.http.acl_grants import DESCRIPTION_AT_MOST
from milkrun.registry.http.acl_named import found, refuse_name, refuse_other_id, shown
from milkrun.registry.http.asking import change
from milkrun.registry.http.bodies import decode, folded
from milkrun.registry.http.message import Reply, Request
from milkrun.registry.http.route import Route
from milkrun.registry.refusal import Refused

NAME_AT_MOST = 128


class _PolicyBody(msgspec.Struct, rename=folded):
    id: str = ""
    name: str = ""
    description: str = ""
    rules: str = ""


async def policies(engine: Engine, _: Request) -> Reply:
    """All policies, without their rules."""
    return Reply.json([_row(each) for each in (BUILTIN, *engine.machine.tokens.policies.values())])


async def policy(engine: Engine, request: Request) -> Reply:
    """One policy with its rules, by id or (`name/`) by name."""
    known = engine.machine.tokens
    each = found(request, "policy", known.policy, known.policy_named)
    if each is None:
        raise Refused(403, "ACL not found")
    return Reply.json({**_row(each), "Rules": each.text})


async def make_policy(engine: Engine, request: Request) -> Reply:
    """Makes a policy, if its rules are understood."""
    body = decode(await request.body(), _PolicyBody, what="Bad request: Policy decoding failed")
    if body.id:
        raise Refused(400, "Cannot specify the ID when creating a new policy")
    return await _put_policy(engine, request, body, str(uuid.uuid4()))


async def change_policy(engine: Engine, request: Request) -> Reply:
    """Changes a policy, for all tokens that have it."""
    policy_id = uuid_of(request, "policy")
    body = decode(await request.body(), _PolicyBody, what="Bad request: Policy decoding failed")
    refuse_other_id(body.id, policy_id, "Policy")
    if policy_id == MANAGEMENT_ID:
        raise Refused(500, "Changing the builtin global-management policy is not permitted")
    if policy_id not in engine.machine.tokens.policies:
        raise Refused(500, f"Cannot find policy {policy_id}")
    return await _put_policy(engine, request, body, policy_id)


async def drop_policy(engine: Engine, request: Request) -> Reply:
    """Deletes a policy: what it granted is granted to nobody."""
    policy_id = uuid_of(request, "policy")
    if policy_id == MANAGEMENT_ID:
        raise Refused(500, "Delete operation not permitted on the builtin global-management policy")
    await change(engine, request, commands.DropPolicy(policy_id))
    return Reply.encoded(b"true")


async def _put_policy(engine: Engine, request: Request, body: _PolicyBody, policy_id: str) -> Reply:
    refuse_name(body.name, NAME_AT_MOST, "Policy")
    language.parsed(body.rules)
    new = Policy(
        id=policy_id, name=body.name, description=body.description[:DESCRIPTION_AT_MOST], text=body.rules
    )
    kept = await change(engine, request, commands.PutPolicy(new))
    return Reply.json({**_row(kept), "Rules": kept.text})


def _row(each: Policy) -> dict[str, Any]:
    return shown(each, Datacenters=None)


_read, _write = guarded(Level.READ), guarded(Level.WRITE)

ROUTES = (
    Route("GET", "/v1/acl/policies", _read(policies), "acl", "read"),
    Route("PUT", "/v1/acl/policy", _write(make_policy), "acl", "write"),
    Route("GET", "/v1/acl/policy/", _read(policy), "acl", "read"),
    Route("PUT", "/v1/acl/policy/", _write(change_policy), "acl", "write"),
    Route("DELETE", "/v1/acl/policy/", _write(drop_policy), "acl", "write"),
)
