"""/v1/snapshot: the whole state as one file, which Consul's command line carries too, and back."""

from __future__ import annotations

import structlog

from milkrun.errors import InputRefused
from milkrun.registry import commands
from milkrun.registry.access.rules import Level, Resource
from milkrun.registry.engine import Engine
from milkrun.registry.http.asking import change, require
from milkrun.registry.http.message import Reply, Request
from milkrun.registry.http.route import Route
from milkrun.registry.refusal import Refused
from milkrun.registry.snapshot import BYTES_AT_MOST, on_node, pack, unpack


async def save(engine: Engine, request: Request) -> Reply:
    """The state as a file."""
    require(engine, request, Resource.ACL, "", Level.WRITE)
    file = pack(engine.machine.whole())
    if len(file) > BYTES_AT_MOST:
        raise Refused(413, f"the snapshot has {len(file)} bytes, the most is {BYTES_AT_MOST}")
    return Reply(200, file, b"application/x-gzip", engine.machine.ledger.index)


async def restore(engine: Engine, request: Request) -> Reply:
    """The state is the file's, all of it or (400) nothing."""
    require(engine, request, Resource.ACL, "", Level.WRITE)
    try:
        whole = unpack(await request.body())
    except InputRefused as refused:
        raise Refused(400, refused.reason) from refused
    await change(engine, request, commands.Restore(on_node(whole, engine.machine.node)))
    structlog.get_logger("registry").warning(
        "the state is a snapshot's now",
        node=whole.node,
        index_then=whole.index,
        index_now=engine.machine.ledger.index,
        services=len(whole.services),
        keys=len(whole.entries),
    )
    return Reply()


ROUTES = (
    Route("GET", "/v1/snapshot", save, "acl", "write"),
    Route("PUT", "/v1/snapshot", restore, "acl", "write"),
)
