"""From a request to its reply: finds the route, and makes replies of errors."""

from __future__ import annotations

import posixpath
from urllib.parse import quote, unquote_to_bytes

import msgspec

from milkrun.errors import MilkrunError
from milkrun.registry.access.rules import Resource
from milkrun.registry.engine import Engine
from milkrun.registry.http import (
    acl,
    acl_policy,
    acl_role,
    acl_template,
    acl_token,
    agent,
    agent_check,
    autopilot,
    catalog,
    cluster,
    event,
    health,
    kv,
    metrics,
    session,
    snapshot,
    status,
    txn,
)
from milkrun.registry.http.message import BODY_BYTES_AT_MOST, JSON, Reply, Request
from milkrun.registry.http.route import Route, Table
from milkrun.registry.nouns import DATACENTER
from milkrun.registry.refusal import Refused
from milkrun.registry.snapshot import BYTES_AT_MOST

ROUTES = (
    *kv.ROUTES,
    *agent.ROUTES,
    *agent_check.ROUTES,
    *catalog.ROUTES,
    *health.ROUTES,
    *session.ROUTES,
    *txn.ROUTES,
    *status.ROUTES,
    *event.ROUTES,
    *metrics.ROUTES,
    *autopilot.ROUTES,
    *cluster.ROUTES,
    *snapshot.ROUTES,
    *acl.ROUTES,
    *acl_token.ROUTES,
    *acl_policy.ROUTES,
    *acl_role.ROUTES,
    *acl_template.ROUTES,
)

_SNAPSHOT = b"/v1/snapshot"
_PATH_SIGNS = "/:=@!$&'()*+,;~"


class App:
    """Answers each HTTP request from the engine's state."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._table = Table(ROUTES)

    def cap(self, target: bytes, secret: bytes, local: bool) -> int:
        """How long the body of this request may be: only who may replace the whole state sends one."""
        if target.partition(b"?")[0] != _SNAPSHOT:
            return BODY_BYTES_AT_MOST
        try:
            who = self._engine.gate.authority(self._engine.machine.tokens, secret, local=local)
        except Refused:
            return BODY_BYTES_AT_MOST
        return BYTES_AT_MOST if who.writes(Resource.ACL) else BODY_BYTES_AT_MOST

    async def __call__(self, request: Request) -> Reply:
        """The reply, whatever was asked."""
        try:
            return await self._answer(request)
        except Refused as refusal:
            reply = Reply.text(refusal.status, refusal.message)
            reply.close = refusal.status == 413
            return reply
        except MilkrunError as error:
            return Reply.text(500, error.message)

    async def _answer(self, request: Request) -> Reply:
        if self._engine.failed.done():
            raise self._engine.failed.result()
        raw, _, query = request.target.partition(b"?")
        path = _path(raw)
        if ("//" in path or "/." in path) and (clean := _cleaned(path)) != path:
            return _moved(clean, query)
        found = self._table.find(path)
        if found is None:
            return Reply(404)
        methods, request.rest = found
        route = methods.routes.get(request.method)
        if route is None:
            return _other_method(request.method, methods.allow)
        if not query:
            return _vetted(await route.handler(self._engine, request), request, route)
        if request.one("dc") not in (None, "", DATACENTER):
            raise Refused(500, "No path to datacenter")
        reply = _vetted(await route.handler(self._engine, request), request, route)
        if request.flag("pretty") and reply.content_type == JSON:
            reply = msgspec.structs.replace(reply, body=msgspec.json.format(reply.body, indent=4))
        return reply


def _vetted(reply: Reply, request: Request, route: Route) -> Reply:
    """The reply, if the handler asked what the client may do. One that forgot to shows nothing to anybody."""
    if not request.vetted and route.access != "none":
        raise MilkrunError(f"{route.method} {route.path} does not ask who may use it: nothing is shown")
    return reply


def _path(raw: bytes) -> str:
    if not raw.startswith(b"/"):
        raw = b"/" + raw.partition(b"://")[2].partition(b"/")[2]  # the form that proxies send
    try:
        return (unquote_to_bytes(raw) if b"%" in raw else raw).decode()
    except UnicodeDecodeError as error:
        raise Refused(400, "the path is not UTF-8") from error


def _cleaned(path: str) -> str:
    """The path as Go cleans it: without `//`, `/./` and `/../`. Consul sends clients of another one there."""
    clean = "/" + posixpath.normpath(path).lstrip("/")
    return clean + "/" if path.endswith(("/", "/.", "/..")) and clean != "/" else clean


def _moved(clean: str, query: bytes) -> Reply:
    location = quote(clean, safe=_PATH_SIGNS).encode() + (b"?" + query if query else b"")
    return Reply(301, headers=[(b"location", location)])


def _other_method(method: str, allow: str) -> Reply:
    headers = [(b"allow", allow.encode())]
    if method == "OPTIONS":
        return Reply(200, headers=headers)
    reply = Reply.text(405, f"method {method} not allowed")
    reply.headers = headers
    return reply
