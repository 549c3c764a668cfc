"""What a gRPC health call came to, and what that means: a status and the text that an operator reads. Pure.

The texts are those that Consul 1.8.7 writes, and grpc-go within it; the contract suite compares.
"""

from __future__ import annotations

from urllib.parse import unquote

import msgspec

from milkrun.registry.checks.grpc_message import SERVING, Code
from milkrun.registry.checks.verdict import BODY_BYTES_AT_MOST, Result, of_failure
from milkrun.registry.nouns import CRITICAL, PASSING


class Served(msgspec.Struct, frozen=True):
    """The health service answered with this status."""

    status: int


class Ended(msgspec.Struct, frozen=True):
    """The server ended the call with this code and these words (percent-encoded, as it sent them)."""

    code: int
    said: str = ""


class Broken(msgspec.Struct, frozen=True):
    """The call came to no end that the server stated: its code and reason are ours."""

    code: Code
    why: str


Outcome = Served | Ended | Broken

LATE = Broken(Code.DeadlineExceeded, "context deadline exceeded")


def unreached(why: str) -> Broken:
    """No connection came about."""
    return _unconnected(f"Error while dialing {why}")


def distrusted(why: str) -> Broken:
    """A connection came about, and TLS did not."""
    return _unconnected(f"authentication handshake failed: {why}")


def of_call(target: str, outcome: Outcome) -> Result:
    """SERVING passes, everything else is critical."""
    match outcome:
        case Served(status=status) if status == SERVING:
            return Result(PASSING, f"gRPC check {target}: success")
        case Served():
            return of_failure("gRPC application didn't report service healthy")
        case Ended():
            # The words are the service's own: what differs only there is written less often.
            said = unquote(outcome.said, errors="replace")
            return Result(CRITICAL, _rpc_error(outcome.code), said[:BODY_BYTES_AT_MOST])
        case Broken():
            return of_failure(_rpc_error(outcome.code) + outcome.why)


def _unconnected(why: str) -> Broken:
    return Broken(Code.Unavailable, f'connection error: desc = "transport: {why}"')


def _rpc_error(code: int) -> str:
    try:
        name = Code(code).name
    except ValueError:
        name = f"Code({code})"
    return f"rpc error: code = {name} desc = "
