"""The ASGI application: finds the route, carries the errors, writes the headers."""

from __future__ import annotations

import posixpath
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import quote, unquote_to_bytes

import msgspec

from milkrun.errors import MilkrunError
from milkrun.registry.engine import Engine
from milkrun.registry.http import agent, agent_check, catalog, health, kv, session, status, txn
from milkrun.registry.http.message import JSON, Receive, Reply, Request
from milkrun.registry.http.route import Table
from milkrun.registry.nouns import DATACENTER
from milkrun.registry.refusal import Refused

Send = Callable[[Any], Awaitable[None]]

ROUTES = (
    *kv.ROUTES,
    *agent.ROUTES,
    *agent_check.ROUTES,
    *catalog.ROUTES,
    *health.ROUTES,
    *session.ROUTES,
    *txn.ROUTES,
    *status.ROUTES,
)

_PATH_SIGNS = "/:=@!$&'()*+,;~"
_KNOWN_LEADER = (b"x-consul-knownleader", b"true")
_LAST_CONTACT = (b"x-consul-lastcontact", b"0")


class App:
    """Answers each HTTP request from the engine's state."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._table = Table(ROUTES)

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        """One request is answered, whatever it was."""
        try:
            reply = await self._answer(scope, receive)
        except Refused as refusal:
            reply = Reply.text(refusal.status, refusal.message)
            if refusal.status == 413:
                reply.headers = [(b"connection", b"close")]
        except MilkrunError as error:
            reply = Reply.text(500, error.message)
        headers = [(b"content-length", b"%d" % len(reply.body))]
        if reply.content_type:
            headers.append((b"content-type", reply.content_type))
        if reply.index:
            headers += ((b"x-consul-index", b"%d" % reply.index), _KNOWN_LEADER, _LAST_CONTACT)
        headers += reply.headers
        await send({"type": "http.response.start", "status": reply.status, "headers": headers})
        await send({"type": "http.response.body", "body": reply.body})

    async def _answer(self, scope: Any, receive: Receive) -> Reply:
        if self._engine.failed.done():
            raise self._engine.failed.result()
        path = _path(scope)
        if ("//" in path or "/." in path) and (clean := _cleaned(path)) != path:
            return _moved(scope, clean)
        found = self._table.find(path)
        if found is None:
            return Reply(404)
        methods, rest = found
        handler = methods.handlers.get(scope["method"])
        if handler is None:
            return _other_method(scope["method"], methods.allow)
        request = Request(scope, receive, rest)
        if scope["query_string"] and request.one("dc") not in (None, "", DATACENTER):
            raise Refused(500, "No path to datacenter")
        reply = await handler(self._engine, request)
        if scope["query_string"] and request.flag("pretty") and reply.content_type == JSON:
            reply.body = msgspec.json.format(reply.body, indent=4)
        return reply


def _path(scope: Any) -> str:
    raw: bytes = scope["raw_path"]
    try:
        return (unquote_to_bytes(raw) if b"%" in raw else raw).decode()
    except UnicodeDecodeError as error:
        raise Refused(400, "the path is not UTF-8") from error


def _cleaned(path: str) -> str:
    """The path as Go cleans it: without `//`, `/./` and `/../`. Consul sends clients of another one there."""
    clean = "/" + posixpath.normpath(path).lstrip("/")
    return clean + "/" if path.endswith(("/", "/.", "/..")) and clean != "/" else clean


def _moved(scope: Any, clean: str) -> Reply:
    query = b"?" + scope["query_string"] if scope["query_string"] else b""
    return Reply(301, headers=[(b"location", quote(clean, safe=_PATH_SIGNS).encode() + query)])


def _other_method(method: str, allow: str) -> Reply:
    headers = [(b"allow", allow.encode())]
    if method == "OPTIONS":
        return Reply(200, headers=headers)
    reply = Reply.text(405, f"method {method} not allowed")
    reply.headers = headers
    return reply
