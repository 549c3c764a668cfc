"""Who asks, and what they may see and change: every handler but the public ones goes through here.

A request whose handler never asked for the authority is not answered (see app.py): no route can forget it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from milkrun.registry import commands
from milkrun.registry.access import sight
from milkrun.registry.access.authority import Authority
from milkrun.registry.access.permits import DENIED
from milkrun.registry.access.rules import Level, Resource
from milkrun.registry.engine import Engine
from milkrun.registry.http.message import Reply, Request
from milkrun.registry.refusal import Refused

NARROWED = (b"x-consul-results-filtered-by-acls", b"true")

Narrow = Callable[[Authority, Any], Any]
"""The part of a value that the authority may see: the value itself when that is all."""


def authority(engine: Engine, request: Request) -> Authority:
    """What the asker may do at this moment. Raises Refused (403) for a token that is none, or none any more."""
    request.vetted = True
    return engine.gate.authority(engine.machine.tokens, request.secret, local=request.local)


def require(engine: Engine, request: Request, resource: Resource, name: str, level: Level) -> None:
    """The asker may do this. Raises Refused (403) when not."""
    who = authority(engine, request)
    if not (who.writes_all or who.may(resource, name, level)):
        raise Refused(403, DENIED)


async def change(engine: Engine, request: Request, command: commands.Command) -> Any:
    """The command's result, once it is durable. Raises Refused, also (403) when the asker may not do it."""
    return await engine.submit(command, authority(engine, request))


def shown(
    engine: Engine, request: Request, value: Any, *, index: int = 0, narrow: Narrow = sight.seen
) -> Reply:
    """The reply with what the asker may see of the value; it says when that is not all."""
    who = authority(engine, request)
    seen = value if who.reads_all else narrow(who, value)
    reply = Reply.json(seen, index=index)
    return reply if seen is value else marked(reply)


def marked(reply: Reply) -> Reply:
    """The reply says that it is not the whole answer."""
    return msgspec.structs.replace(reply, headers=[*reply.headers, NARROWED])
