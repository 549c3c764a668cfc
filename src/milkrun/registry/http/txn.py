"""/v1/txn"""

from __future__ import annotations

import base64
import binascii

import msgspec

from milkrun.registry import commands
from milkrun.registry.commands import TxnOp
from milkrun.registry.engine import Engine
from milkrun.registry.http.bodies import fold
from milkrun.registry.http.message import Reply, Request
from milkrun.registry.http.route import Route
from milkrun.registry.refusal import Refused
from milkrun.registry.txn import OPERATIONS_AT_MOST, TxnResult


class _KvOp(msgspec.Struct):
    verb: str = ""
    key: str = ""
    value: str = ""
    flags: int = 0
    index: int = 0
    session: str = ""


class _Operation(msgspec.Struct):
    kv: _KvOp | None = None


async def run(engine: Engine, request: Request) -> Reply:
    """Does all operations, or none (409)."""
    operations = _operations(await request.body("txn_max_req_len"))
    result: TxnResult = await engine.submit(commands.Txn(operations))
    return Reply.json(result, status=409 if result.Errors else 200)


def _operations(raw: bytes) -> list[TxnOp]:
    if not raw.strip():
        raise Refused(400, "Failed to parse body: EOF")
    try:
        decoded = msgspec.convert(fold(msgspec.json.decode(raw)), list[_Operation])
    except (msgspec.DecodeError, RecursionError) as error:
        raise Refused(400, f"Failed to parse body: {error or 'too deep'}") from error
    if len(decoded) > OPERATIONS_AT_MOST:
        raise Refused(
            413, f"Transaction contains too many operations ({len(decoded)} > {OPERATIONS_AT_MOST})"
        )
    return [_operation(each.kv) for each in decoded if each.kv]


def _operation(kv: _KvOp) -> TxnOp:
    try:
        value = base64.b64decode(kv.value, validate=True)
    except binascii.Error as error:
        raise Refused(400, f"Failed to parse body: illegal base64 data in the value of {kv.key!r}") from error
    return TxnOp(verb=kv.verb, key=kv.key, value=value, flags=kv.flags, index=kv.index, session=kv.session)


ROUTES = (Route("PUT", "/v1/txn", run, "key", "write"),)
