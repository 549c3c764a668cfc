"""/v1/acl/token: tokens, as Consul's command line makes, shows and deletes them.

A secret is shown once, in the answer that made it: only its digest is kept. A token that has expired is as one
that was deleted; it leaves the disk when the next one is made.
"""

from __future__ import annotations

import os
import re
import uuid
from datetime import UTC, datetime
from typing import Annotated, Any

import msgspec

from milkrun.registry import commands
from milkrun.registry.access.grants import MANAGEMENT_ID
from milkrun.registry.access.rules import Level
from milkrun.registry.access.tokens import ANONYMOUS_ID, OWN_ID, Token, Tokens, digest_of
from milkrun.registry.duration import spelled
from milkrun.registry.engine import Engine
from milkrun.registry.http.acl import guarded, uuid_of
from milkrun.registry.http.acl_grants import (
    DESCRIPTION_AT_MOST,
    LINKS_AT_MOST,
    GrantsBody,
    LinkBody,
    granted,
    role_id,
    shown_grants,
)
from milkrun.registry.http.asking import authority, change
from milkrun.registry.http.bodies import Duration, decode, duration_s, folded
from milkrun.registry.http.message import Reply, Request
from milkrun.registry.http.route import Route
from milkrun.registry.refusal import Refused

HIDDEN = "<hidden>"
ANONYMOUS = "anonymous"
"""What stands for the secret that the anonymous token has not; Consul's tools send it back."""
EXPIRES_WITHIN_S = (60.0, 24 * 3600.0)
"""The least and the most that a token may live, if it is to expire: Consul's defaults."""
_UUID = re.compile(r"[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}")
_SECRET_AT_LEAST = 32
_RESERVED = "00000000-0000-0000-0000-0000000000"


class _TokenBody(GrantsBody, rename=folded):
    accessor_id: str = ""
    secret_id: str = ""
    description: str = ""
    roles: list[LinkBody] = msgspec.field(default_factory=list)
    local: bool = False
    expiration_ttl: Duration = ""
    expiration_time: Annotated[datetime, msgspec.Meta(tz=True)] | None = None
    auth_method: str = ""


_WHAT = "Bad request: Token decoding failed"
_OWN = Token(
    accessor=OWN_ID, digest="", description="Initial Management Token", policies=[MANAGEMENT_ID]
)  # fmt: skip


async def own(engine: Engine, request: Request) -> Reply:
    """The token with which it is asked."""
    accessor = authority(engine, request).accessor
    if not accessor:
        raise Refused(403, "ACL not found")
    secret = request.secret.decode("latin-1")
    return Reply.json(_shown(engine.machine.tokens, _token(engine, accessor), secret))


async def tokens(engine: Engine, request: Request) -> Reply:
    """All tokens, or those with a policy, a role, a service's identity; without their secrets."""
    known = engine.machine.tokens
    policy, role, service = request.one("policy"), request.one("role"), request.one("servicename")
    found = [
        each
        for each in {ANONYMOUS_ID: known.anonymous, OWN_ID: _OWN, **known.tokens}.values()
        if not _has_expired(engine, each)
        and (not policy or policy in each.policies)
        and (not role or role in each.roles)
        and (not service or service in each.services)
    ]
    return Reply.json([] if request.one("authmethod") else [_shown(known, each) for each in found])


async def token(engine: Engine, request: Request) -> Reply:
    """One token; its secret was shown when it was made."""
    return Reply.json(
        _shown(engine.machine.tokens, _token(engine, uuid_of(request, "token")), HIDDEN)
    )  # fmt: skip


async def make_token(engine: Engine, request: Request) -> Reply:
    """Makes a token; the answer alone tells its secret."""
    body = decode(await request.body(), _TokenBody, what=_WHAT)
    secret = body.secret_id or _uuid()
    if len(secret) < _SECRET_AT_LEAST or not secret.isascii() or not secret.isprintable():
        raise Refused(400, f"Invalid Token: a SecretID has {_SECRET_AT_LEAST} printable characters or more")
    accessor = body.accessor_id or _uuid()
    if not _UUID.fullmatch(accessor):
        raise Refused(400, "Invalid Token: AccessorID is not a UUID")
    for what, given in (("AccessorID", accessor), ("SecretID", secret)):
        if given.startswith(_RESERVED):
            raise Refused(500, f"Invalid Token: {what}: UUIDs with the prefix {_RESERVED!r} are reserved")
    await _forget_expired(engine, request)
    if engine.machine.tokens.token(accessor):
        raise Refused(500, "Invalid Token: AccessorID is already in use")
    made = Token(
        accessor=accessor,
        digest=digest_of(secret.encode()),
        created=_rfc3339(engine.gate.now()),
        expires=_expires(engine, body),
        local=body.local,
        **_asked(engine.machine.tokens, body),
    )
    kept = await change(engine, request, commands.PutToken(made))
    return Reply.json(_shown(engine.machine.tokens, kept, secret))


async def change_token(engine: Engine, request: Request) -> Reply:
    """Changes what a token may do; its secret stays."""
    accessor = uuid_of(request, "token")
    if accessor.endswith("/clone"):
        return await _clone(engine, request, accessor.removesuffix("/clone"))
    body = decode(await request.body(), _TokenBody, what=_WHAT)
    old = _token(engine, accessor, missing=500)
    _is_not_own(accessor)
    if body.accessor_id.lower() not in ("", accessor.lower()):
        raise Refused(400, "Bad request: Token Accessor ID in URL and payload do not match")
    shown = ("", HIDDEN, ANONYMOUS) if old.accessor == ANONYMOUS_ID else ("", HIDDEN)
    if body.secret_id not in shown and digest_of(body.secret_id.encode()) != old.digest:
        raise Refused(500, "Changing a tokens SecretID is not permitted")
    if body.local is not old.local:
        raise Refused(500, f"cannot toggle local mode of {old.accessor}")
    if body.expiration_ttl or not _is_same(body.expiration_time, old.expires):
        raise Refused(500, f"Cannot change expiration time of {old.accessor}")
    new = msgspec.structs.replace(old, **_asked(engine.machine.tokens, body))
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
    body = decode(raw, _TokenBody, what=_WHAT) if raw.strip() else _TokenBody()
    old = _token(engine, accessor, missing=500)
    if accessor in (ANONYMOUS_ID, OWN_ID):
        raise Refused(500, "Cannot clone the anonymous token or the registry's own")
    known = engine.machine.tokens
    secret = _uuid()
    new = msgspec.structs.replace(
        old,
        accessor=_uuid(),
        digest=digest_of(secret.encode()),
        policies=[each for each in old.policies if known.policy(each)],
        roles=[each for each in old.roles if each in known.roles],
        description=body.description[:DESCRIPTION_AT_MOST] or old.description,
        created=_rfc3339(engine.gate.now()),
    )
    kept = await change(engine, request, commands.PutToken(new))
    return Reply.json(_shown(engine.machine.tokens, kept, secret))


async def _forget_expired(engine: Engine, request: Request) -> None:
    """What has expired is on the disk no more: its place and its secret's are free."""
    for each in list(engine.machine.tokens.tokens.values()):
        if _has_expired(engine, each):
            await change(engine, request, commands.DropToken(each.accessor))


def _has_expired(engine: Engine, each: Token) -> bool:
    return each.expires is not None and engine.gate.now() >= each.expires


def _asked(known: Tokens, body: _TokenBody) -> dict[str, Any]:
    if body.auth_method:
        raise Refused(500, "AuthMethod field is disallowed outside of Login")
    if len(body.roles) > LINKS_AT_MOST:
        raise Refused(400, f"Invalid Token: more than {LINKS_AT_MOST} roles")
    return {
        "description": body.description[:DESCRIPTION_AT_MOST],
        "roles": list(dict.fromkeys(role_id(known, each) for each in body.roles)),
        **granted(known, body, "token", local=body.local),
    }


def _expires(engine: Engine, body: _TokenBody) -> float | None:
    """When the new token expires, by the wall clock; None: never. Raises Refused for a time that it may not."""
    ttl_s = duration_s(body.expiration_ttl, what=_WHAT)
    if ttl_s < 0:
        raise Refused(500, f"Token Expiration TTL '{spelled(ttl_s)}' should be > 0")
    if body.expiration_time is None:
        if ttl_s == 0:
            return None
    elif ttl_s:
        raise Refused(500, "Token Expiration TTL and Expiration Time cannot both be set")
    now = engine.gate.now()
    expires = now + ttl_s if body.expiration_time is None else body.expiration_time.timestamp()
    if expires <= now:
        raise Refused(500, "ExpirationTime cannot be before CreateTime")
    least, most = EXPIRES_WITHIN_S
    lives_s = ttl_s or expires - now
    if lives_s < least:
        why = f"less than {spelled(least)}"
    elif lives_s > most:
        why = f"more than {spelled(most)}"
    else:
        return expires
    raise Refused(500, f"ExpirationTime cannot be {why} in the future (was {spelled(lives_s)})")


def _is_same(told: datetime | None, expires: float | None) -> bool:
    """Whether an update leaves it as it is: it is told as it was shown, or not at all."""
    return told is None or (expires is not None and _rfc3339(told.timestamp()) == _rfc3339(expires))


def _token(engine: Engine, accessor: str, *, missing: int = 403) -> Token:
    known = engine.machine.tokens
    if accessor == OWN_ID:
        return _OWN
    found = known.anonymous if accessor == ANONYMOUS_ID else known.token(accessor)
    if found is None or _has_expired(engine, found):
        raise Refused(missing, "ACL not found" if missing == 403 else f'Cannot find token "{accessor[:128]}"')
    return found


def _is_not_own(accessor: str) -> None:
    if accessor == OWN_ID:
        raise Refused(
            500,
            "The registry's own token is a file: write another secret into it and start the registry anew",
        )


def _shown(known: Tokens, each: Token, secret: str = "") -> dict[str, Any]:
    shown: dict[str, Any] = {"AccessorID": each.accessor}
    if secret or each.accessor == ANONYMOUS_ID:
        shown["SecretID"] = ANONYMOUS if each.accessor == ANONYMOUS_ID else secret
    shown["Description"] = each.description
    if roles := [known.roles[role] for role in each.roles if role in known.roles]:
        shown["Roles"] = [{"ID": role.id, "Name": role.name} for role in roles]
    if each.expires is not None:
        shown["ExpirationTime"] = _rfc3339(each.expires)
    return {
        **shown,
        **shown_grants(known, each),
        "Local": each.local,
        "CreateTime": each.created or "0001-01-01T00:00:00Z",
        "Hash": "",
        "CreateIndex": each.create_index,
        "ModifyIndex": each.modify_index,
    }


def _uuid() -> str:
    return str(uuid.UUID(bytes=os.urandom(16)))


def _rfc3339(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


_read, _write, _any = guarded(Level.READ), guarded(Level.WRITE), guarded(None)

ROUTES = (
    Route("GET", "/v1/acl/token/self", _any(own), "any", "read"),
    Route("GET", "/v1/acl/tokens", _read(tokens), "acl", "read"),
    Route("PUT", "/v1/acl/token", _write(make_token), "acl", "write"),
    Route("GET", "/v1/acl/token/", _read(token), "acl", "read"),
    Route("PUT", "/v1/acl/token/", _write(change_token), "acl", "write"),
    Route("DELETE", "/v1/acl/token/", _write(drop_token), "acl", "write"),
)
