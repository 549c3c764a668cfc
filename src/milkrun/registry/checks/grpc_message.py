"""The messages of gRPC's standard health service, and how gRPC wraps them. Pure.

A request is `string service = 1`, a reply `enum status = 1` (grpc/health/v1/health.proto): two fields by hand
instead of protobuf. A message goes behind five bytes: whether it is packed, and its length.
"""

from __future__ import annotations

from enum import IntEnum

METHOD = "/grpc.health.v1.Health/Check"
PREFIX_BYTES = 5
SERVING = 1

_STATUS = 1
"""The number of the reply's only field."""
_NUMBERS = 1 << 29
_FIXED_BYTES = {1: 8, 5: 4}
_VARINT_BYTES_AT_MOST = 10


class Code(IntEnum):
    """How a gRPC call ends, by the names that Go gives."""

    OK = 0
    Canceled = 1
    Unknown = 2
    InvalidArgument = 3
    DeadlineExceeded = 4
    NotFound = 5
    AlreadyExists = 6
    PermissionDenied = 7
    ResourceExhausted = 8
    FailedPrecondition = 9
    Aborted = 10
    OutOfRange = 11
    Unimplemented = 12
    Internal = 13
    Unavailable = 14
    DataLoss = 15
    Unauthenticated = 16


class BadMessage(ValueError):
    """The bytes are no reply of the health service."""


def wrapped_request(service: str) -> bytes:
    """The question how `service` is (empty: the whole server), as it goes over the wire."""
    name = service.encode()
    message = b"\x0a" + _varint(len(name)) + name if name else b""
    return b"\0" + len(message).to_bytes(4, "big") + message


def status(reply: bytes) -> int:
    """The reply's status; 0 (unknown) when it has none. Raises BadMessage."""
    found = at = 0
    while at < len(reply):
        key, at = _read_varint(reply, at)
        number, kind = key >> 3, key & 7
        if not 0 < number < _NUMBERS:
            raise BadMessage(f"a field has the number {number}")
        if number == _STATUS and kind == 0:
            found, at = _read_varint(reply, at)
        else:
            at = _skipped(reply, at, kind)
    return found


def _skipped(reply: bytes, at: int, kind: int) -> int:
    """Where the next field begins: later versions may have fields that we do not know."""
    if kind == 0:
        return _read_varint(reply, at)[1]
    if kind == 2:
        length, at = _read_varint(reply, at)
    elif kind in _FIXED_BYTES:
        length = _FIXED_BYTES[kind]
    else:
        raise BadMessage(f"a field has the unknown type {kind}")
    if at + length > len(reply):
        raise BadMessage("it ends within a field")
    return at + length


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for place, byte in enumerate(data[at : at + _VARINT_BYTES_AT_MOST]):
        value |= (byte & 0x7F) << (7 * place)
        if byte < 0x80:
            return value, at + place + 1
    raise BadMessage("it ends within a number, or the number is too long")


def _varint(value: int) -> bytes:
    found = bytearray()
    while value >= 0x80:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    found.append(value)
    return bytes(found)
