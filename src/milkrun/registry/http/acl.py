"""/v1/acl: tokens, as Consul's command line makes, shows and deletes them (policies: see acl_policy.py).

A secret is shown once, in the answer that made it: only its digest is kept. There is nothing to bootstrap: the
registry's own token is there from its first start. Roles, logins and tokens that expire are refused by name.
"""

from __future__ import annotations

import os
import re
import uuid
from datetime import UTC, datetime
from typing import Any

import msgspec

from milkrun.registry import commands
from milkrun.registry.access.authority import Mode
from milkrun.registry.access.rules import Level, Resource
from milkrun.registry.access.tokens import (
    ANONYMOUS_ID,
    MANAGEMENT_ID,
    OWN_ID,
    Policy,
    Token,
    Tokens,
    digest_of,
)
from milkrun.registry.engine import Engine
from milkrun.registry.http.asking import authority, change, require
from milkrun.registry.http.bodies import decode, folded
from milkrun.registry.http.health import named
from milkrun.registry.http.message import Reply, Request
from milkrun.registry.http.route import Handler, Route
from milkrun.registry.refusal import Refused

HIDDEN = "<hidden>"
ANONYMOUS = "anonymous"
"""What stands for the secret that the anonymous token has not; Consul's tools send it back."""
NAMES_AT_MOST = 128
DESCRIPTION_AT_MOST = 1024
_NAME = re.compile(r"[A-Za-z0-9_-]{1,128}")
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_SECRET_AT_LEAST = 32
_RESERVED = "00000000-0000-0000-0000-0000000000"


class _Link(msgspec.Struct, rename=folded):
    id: str = ""
    name: str = ""


class _Identity(msgspec.Struct, rename=folded):
    service_name: str = ""


class _TokenBody(msgspec.Struct, rename=folded):
    accessor_id: str = ""
    secret_id: str = ""
    description: str = ""
    policies: list[_Link] = []
    service_identities: list[_Identity] = []
    node_identities: list[Any] = []
    roles: list[Any] = []
    expiration_ttl: str | int = ""
    expiration_time: str | None = None
    auth_method: str = ""


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


# Tokens


async def own(engine: Engine, request: Request) -> Reply:
    """The token with which it is asked."""
    accessor = authority(engine, request).accessor
    if not accessor:
        raise Refused(403, "ACL not found")
    secret = request.secret.decode("latin-1")
    return Reply.json(_shown(engine.machine.tokens, _token(engine.machine.tokens, accessor), secret))


async def tokens(engine: Engine, _: Request) -> Reply:
    """All tokens, without their secrets."""
    known = engine.machine.tokens
    found = {ANONYMOUS_ID: known.anonymous, OWN_ID: _OWN, **known.tokens}
    return Reply.json([_shown(known, each) for each in found.values()])


async def token(engine: Engine, request: Request) -> Reply:
    """One token; its secret was shown when it was made."""
    known = engine.machine.tokens
    return Reply.json(_shown(known, _token(known, uuid_of(request, "token")), HIDDEN))


async def make_token(engine: Engine, request: Request) -> Reply:
    """Makes a token; the answer alone tells its secret."""
    body = decode(await request.body(), _TokenBody, what="Bad request: Token decoding failed")
    secret = body.secret_id or str(uuid.UUID(bytes=os.urandom(16)))
    if len(secret) < _SECRET_AT_LEAST or not secret.isascii() or not secret.isprintable():
        raise Refused(400, f"Invalid Token: a SecretID has {_SECRET_AT_LEAST} printable characters or more")
    accessor = body.accessor_id or str(uuid.uuid4())
    if not _UUID.fullmatch(accessor):
        raise Refused(400, "Invalid Token: AccessorID is not a UUID in lower case")
    for what, given in (("AccessorID", accessor), ("SecretID", secret)):
        if given.startswith(_RESERVED):
            raise Refused(500, f"Invalid Token: {what}: UUIDs with the prefix {_RESERVED!r} are reserved")
    if accessor in engine.machine.tokens.tokens:
        raise Refused(500, "Invalid Token: AccessorID is already in use")
    made = _of_body(engine, body, accessor, digest_of(secret.encode()), _now())
    return Reply.json(
        _shown(engine.machine.tokens, await change(engine, request, commands.PutToken(made)), secret)
    )


async def change_token(engine: Engine, request: Request) -> Reply:
    """Changes what a token may do; its secret stays."""
    accessor = uuid_of(request, "token")
    if accessor.endswith("/clone"):
        return await _clone(engine, request, accessor.removesuffix("/clone"))
    body = decode(await request.body(), _TokenBody, what="Bad request: Token decoding failed")
    old = _token(engine.machine.tokens, accessor, missing=500)
    _is_not_own(accessor)
    if body.accessor_id not in ("", accessor):
        raise Refused(400, "Bad request: Token Accessor ID in URL and payload do not match")
    shown = ("", HIDDEN, ANONYMOUS) if accessor == ANONYMOUS_ID else ("", HIDDEN)
    if body.secret_id not in shown and digest_of(body.secret_id.encode()) != old.digest:
        raise Refused(500, "Changing a tokens SecretID is not permitted")
    new = _of_body(engine, body, accessor, old.digest, old.created)
    kept = await change(engine, request, commands.PutToken(new))
    return Reply.json(_shown(engine.machine.tokens, kept, HIDDEN))


async def drop_token(engine: Engine, request: Request) -> Reply:
    """Deletes a token: who shows it from now on is refused."""
    accessor = uuid_of(request, "token")
    if accessor == ANONYMOUS_ID:
        raise Refused(500, "Delete operation not permitted on the anonymous token")
    _is_not_own(accessor)
    await change(engine, request, commands.DropToken(accessor))
    return Reply.encoded(b"true")


async def _clone(engine: Engine, request: Request, accessor: str) -> Reply:
    raw = await request.body()
    body = decode(raw, _TokenBody, what="Bad request: Token decoding failed") if raw.strip() else _TokenBody()
    old = _token(engine.machine.tokens, accessor, missing=500)
    if accessor in (ANONYMOUS_ID, OWN_ID):
        raise Refused(500, "Cannot clone the anonymous token or the registry's own")
    secret = str(uuid.UUID(bytes=os.urandom(16)))
    new = msgspec.structs.replace(
        old,
        accessor=str(uuid.uuid4()),
        digest=digest_of(secret.encode()),
        policies=[each for each in old.policies if engine.machine.tokens.policy(each)],
        description=body.description[:DESCRIPTION_AT_MOST] or old.description,
        created=_now(),
    )
    return Reply.json(
        _shown(engine.machine.tokens, await change(engine, request, commands.PutToken(new)), secret)
    )


_OWN = Token(
    accessor=OWN_ID, digest="", description="The registry's own token: its file", policies=[MANAGEMENT_ID]
)


def _of_body(engine: Engine, body: _TokenBody, accessor: str, digest: str, created: str) -> Token:
    for what, given in (
        ("roles", body.roles),
        ("node identities", body.node_identities),
        ("an expiration", body.expiration_ttl or body.expiration_time),
        ("an auth method", body.auth_method),
    ):
        if given:
            raise Refused(
                400, f"Invalid Token: this registry's tokens have no {what}: give it policies instead"
            )
    if max(len(body.policies), len(body.service_identities)) > NAMES_AT_MOST:
        raise Refused(400, f"Invalid Token: more than {NAMES_AT_MOST} policies or identities")
    services = [each.service_name for each in body.service_identities]
    if not all(services):
        raise Refused(500, "Service identity is missing the service name field on this token")
    return Token(
        accessor=accessor,
        digest=digest,
        description=body.description[:DESCRIPTION_AT_MOST],
        policies=[_linked(engine.machine.tokens, each).id for each in body.policies],
        services=services,
        created=created,
    )


def _linked(known: Tokens, link: _Link) -> Policy:
    found = known.policy(link.id) if link.id else known.policy_named(link.name)
    if found is None:
        raise Refused(
            500, f'No such ACL policy with {"ID" if link.id else "name"} "{(link.id or link.name)[:128]}"'
        )
    return found


def _token(known: Tokens, accessor: str, *, missing: int = 403) -> Token:
    if accessor == OWN_ID:
        return _OWN
    found = known.anonymous if accessor == ANONYMOUS_ID else known.tokens.get(accessor)
    if found is None:
        raise Refused(missing, "ACL not found" if missing == 403 else f'Cannot find token "{accessor[:128]}"')
    return found


def _is_not_own(accessor: str) -> None:
    if accessor == OWN_ID:
        raise Refused(
            500,
            "The registry's own token is a file: write another secret into it and start the registry anew",
        )


def _shown(known: Tokens, each: Token, secret: str = "") -> dict[str, Any]:
    links = [{"ID": found.id, "Name": found.name} for id_ in each.policies if (found := known.policy(id_))]
    shown: dict[str, Any] = {"AccessorID": each.accessor}
    if secret:
        shown["SecretID"] = ANONYMOUS if each.accessor == ANONYMOUS_ID else secret
    return {
        **shown,
        "Description": each.description,
        "Policies": links,
        "ServiceIdentities": [{"ServiceName": name} for name in each.services],
        "Local": False,
        "CreateTime": each.created or "0001-01-01T00:00:00Z",
        "Hash": "",
        "CreateIndex": each.create_index,
        "ModifyIndex": each.modify_index,
    }


# The rest


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


async def nothing(_: Engine, __: Request) -> Reply:
    """None: this registry has no roles, auth methods or binding rules."""
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


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


_read, _write, _any = guarded(Level.READ), guarded(Level.WRITE), guarded(None)

ROUTES = (
    Route("PUT", "/v1/acl/bootstrap", public(bootstrap), "none", "none"),
    Route("GET", "/v1/acl/token/self", _any(own), "any", "read"),
    Route("GET", "/v1/acl/tokens", _read(tokens), "acl", "read"),
    Route("PUT", "/v1/acl/token", _write(make_token), "acl", "write"),
    Route("GET", "/v1/acl/token/", _read(token), "acl", "read"),
    Route("PUT", "/v1/acl/token/", _write(change_token), "acl", "write"),
    Route("DELETE", "/v1/acl/token/", _write(drop_token), "acl", "write"),
    Route("GET", "/v1/acl/roles", _read(nothing), "acl", "read"),
    Route("GET", "/v1/acl/auth-methods", _read(nothing), "acl", "read"),
    Route("GET", "/v1/acl/binding-rules", _read(nothing), "acl", "read"),
    Route("GET", "/v1/acl/replication", public(replication), "none", "none"),
    Route("PUT", "/v1/agent/token/", _write(agent_token), "acl", "write"),
)
