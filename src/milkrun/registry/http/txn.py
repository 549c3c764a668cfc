"""/v1/txn"""

from __future__ import annotations

import base64

import msgspec

from milkrun.registry import commands
from milkrun.registry.access import sight
from milkrun.registry.commands import AnyOp, CheckOp, NodeOp, ServiceOp, TxnOp
from milkrun.registry.engine import Engine
from milkrun.registry.http.asking import authority, change, marked
from milkrun.registry.http.bodies import ServiceBody, fold, folded, service_of
from milkrun.registry.http.catalog import CheckRow, check_row
from milkrun.registry.http.limits import check_key
from milkrun.registry.http.message import Reply, Request
from milkrun.registry.http.numbers import Uint, parsed
from milkrun.registry.http.route import Route
from milkrun.registry.nouns import Node
from milkrun.registry.refusal import Refused
from milkrun.registry.txn import OPERATIONS_AT_MOST, TxnResult

_KINDS = frozenset({"kv", "node", "service", "check"})


class _KvOp(msgspec.Struct):
    verb: str = ""
    key: str = ""
    value: str = ""
    flags: Uint = 0
    index: Uint = 0
    session: str = ""


class _NodeBody(msgspec.Struct, frozen=True, rename=folded):
    id: str = ""
    node: str = ""
    address: str = ""
    tagged_addresses: dict[str, str] | None = None
    meta: dict[str, str] | None = None
    modify_index: Uint = 0


class _NodeOp(msgspec.Struct):
    verb: str = ""
    node: _NodeBody = _NodeBody()


class _ServiceBody(ServiceBody, rename=folded):
    modify_index: Uint = 0


class _ServiceOp(msgspec.Struct):
    verb: str = ""
    node: str = ""
    service: _ServiceBody = msgspec.field(default_factory=_ServiceBody)


class _CheckBody(CheckRow, rename=folded):
    node: str = ""
    modify_index: Uint = 0


class _CheckOp(msgspec.Struct):
    verb: str = ""
    check: _CheckBody = msgspec.field(default_factory=_CheckBody)


class _Operation(msgspec.Struct):
    """One of them; with more than one the first counts, as for Consul."""

    kv: _KvOp | None = None
    node: _NodeOp | None = None
    service: _ServiceOp | None = None
    check: _CheckOp | None = None


async def run(engine: Engine, request: Request) -> Reply:
    """Does all operations, or none (409)."""
    operations = _operations(await request.body("txn_max_req_len"))
    result: TxnResult = await change(engine, request, commands.Txn(operations))
    who = authority(engine, request)
    if result.Errors or not result.Results or who.reads_all:
        return Reply.json(result, status=409 if result.Errors else 200)
    seen = [each for each in result.Results if all(sight.may_see(who, item) for item in each.values())]
    reply = Reply.json(TxnResult(seen, None))
    return reply if len(seen) == len(result.Results) else marked(reply)


def _operations(raw: bytes) -> list[AnyOp]:
    if not raw.strip():
        raise Refused(400, "Failed to parse body: EOF")
    try:
        whole = parsed(raw)
        decoded = msgspec.convert(fold(whole), list[_Operation])
    except (msgspec.DecodeError, RecursionError) as error:
        raise Refused(400, f"Failed to parse body: {error or 'too deep'}") from error
    if len(decoded) > OPERATIONS_AT_MOST:
        raise Refused(
            413, f"Transaction contains too many operations ({len(decoded)} > {OPERATIONS_AT_MOST})"
        )
    for name in (name for each in whole if each for name in each):
        # To pass over an operation would break the promise that all are done or none.
        if name.lower() not in _KINDS:
            raise Refused(400, f'Failed to parse body: json: unknown field "{name[:64]}"')
    return [operation for each in decoded if (operation := _operation(each))]


def _operation(body: _Operation) -> AnyOp | None:
    if body.kv:
        return _kv(body.kv)
    if body.node:
        return _node(body.node)
    if body.service:
        registered = body.service.service
        service = service_of(registered, registered.service)
        return ServiceOp(body.service.verb, body.service.node, service, registered.modify_index)
    if body.check:
        row = body.check.check
        return CheckOp(body.check.verb, check_row(row.node, row), row.modify_index)
    return None


def _node(operation: _NodeOp) -> NodeOp:
    body = operation.node
    node = Node(
        id=body.id,
        node=body.node,
        address=body.address,
        tagged_addresses=body.tagged_addresses or None,
        meta=body.meta or None,
    )
    return NodeOp(operation.verb, node, body.modify_index)


def _kv(kv: _KvOp) -> TxnOp:
    try:
        value = base64.b64decode(kv.value, validate=True)
    except ValueError as error:  # binascii.Error, or a letter that is not ASCII
        raise Refused(400, f"Failed to parse body: illegal base64 data in the value of {kv.key!r}") from error
    return TxnOp(
        verb=kv.verb, key=check_key(kv.key), value=value, flags=kv.flags, index=kv.index, session=kv.session
    )


ROUTES = (Route("PUT", "/v1/txn", run, "key", "write"),)
