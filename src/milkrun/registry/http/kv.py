"""/v1/kv"""

from __future__ import annotations

import msgspec

from milkrun.registry import commands, topics
from milkrun.registry.access.authority import Authority
from milkrun.registry.access.rules import Level, Resource
from milkrun.registry.engine import Engine
from milkrun.registry.http.asking import authority, change, require, shown
from milkrun.registry.http.blocking import answer
from milkrun.registry.http.limits import check_key
from milkrun.registry.http.message import Reply, Request
from milkrun.registry.http.route import Route
from milkrun.registry.refusal import Refused

_TRUE = b"true"
_FALSE = b"false"
_NOTHING = b"[]"


async def read(engine: Engine, request: Request) -> Reply:
    """An entry, its bytes (`raw`), all entries below a prefix (`recurse`) or only their names (`keys`)."""
    if request.query:
        if request.flag("keys"):
            return await _names(engine, request)
        if request.flag("recurse"):
            return await _tree(engine, request)
    key = _key(request)

    def reply(index: int) -> Reply:
        require(engine, request, Resource.KEY, key, Level.READ)
        entry = engine.machine.kv.get(key)
        if entry is None:
            return Reply(404, index=index)
        if request.query and request.flag("raw"):
            headers = [(b"x-content-type-options", b"nosniff"), (b"content-security-policy", b"sandbox")]
            return Reply(200, entry.value or b"", b"text/plain", index, headers)
        return Reply.json([entry], index=index)

    return await answer(
        engine, request, topics.key(key), index=lambda: engine.machine.kv.index_of(key), reply=reply
    )


async def write(engine: Engine, request: Request) -> Reply:
    """Sets a key: plainly, by its ModifyIndex (`cas`), or taking or leaving its lock."""
    key = check_key(_key(request))
    if not request.query:
        await change(engine, request, commands.KvPut(key, await request.body("kv_max_value_size")))
        return Reply.encoded(_TRUE)
    _conflict(request, ("acquire", "cas", "release"))
    flags = request.unsigned("flags") or 0
    index = request.unsigned("cas")
    acquire, release = request.one("acquire"), request.one("release")
    value = await request.body("kv_max_value_size")
    command: commands.Command
    if index is not None:
        command = commands.KvCas(key, value, flags, index)
    elif acquire is not None:
        command = commands.KvLock(key, value, flags, acquire)
    elif release is not None:
        command = commands.KvUnlock(key, value, flags, release)
    else:
        command = commands.KvPut(key, value, flags)
    return Reply.encoded(_TRUE if await change(engine, request, command) else _FALSE)


async def delete(engine: Engine, request: Request) -> Reply:
    """Deletes a key, if its ModifyIndex is still `cas`, or all keys below a prefix (`recurse`)."""
    _conflict(request, ("cas", "recurse"))
    command: commands.Command
    index = request.unsigned("cas")
    if request.flag("recurse"):
        command = commands.KvDeleteTree(request.rest)
    elif index is not None:
        command = commands.KvDeleteCas(_key(request), index)
    else:
        command = commands.KvDelete(_key(request))
    return Reply.encoded(_TRUE if await change(engine, request, command) else _FALSE)


async def _tree(engine: Engine, request: Request) -> Reply:
    prefix = request.rest

    def reply(index: int) -> Reply:
        entries = engine.machine.kv.under(prefix)
        reply = shown(engine, request, entries, index=index)
        return reply if reply.body != _NOTHING else msgspec.structs.replace(reply, status=404, body=b"")

    def index() -> int:
        return engine.machine.kv.index_under(prefix)

    return await answer(engine, request, topics.under(prefix), index=index, reply=reply)


async def _names(engine: Engine, request: Request) -> Reply:
    prefix = request.rest
    separator = request.one("separator") or ""

    def reply(index: int) -> Reply:
        who, keys = authority(engine, request), engine.machine.kv
        names = keys.names(prefix, separator)
        if not names:
            return Reply(404, index=index)

        def narrow(_: Authority, whole: list[str]) -> list[str]:
            seen = keys.names(prefix, separator, lambda key: who.reads(Resource.KEY, key))
            return whole if seen == whole else seen

        return shown(engine, request, names, index=index, narrow=narrow)

    def index() -> int:
        return engine.machine.kv.index_under(prefix)

    return await answer(engine, request, topics.under(prefix), index=index, reply=reply)


def _key(request: Request) -> str:
    if not request.rest:
        raise Refused(400, "Missing key name")
    return request.rest


def _conflict(request: Request, names: tuple[str, ...]) -> None:
    given = [f"{name}={request.one(name)}" for name in names if request.flag(name)]
    if len(given) > 1:
        raise Refused(400, f"Conflicting flags: {'&'.join(given)}")


ROUTES = (
    Route("GET", "/v1/kv/", read, "key", "read"),
    Route("PUT", "/v1/kv/", write, "key", "write"),
    Route("DELETE", "/v1/kv/", delete, "key", "write"),
)
