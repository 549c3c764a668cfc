"""One request and one reply."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import parse_qs

import msgspec

from milkrun.registry.refusal import Refused

BODY_BYTES_AT_MOST = 512 * 1024
DRAINED_BYTES_AT_MOST = 8 * 1024 * 1024
PARAMETERS_AT_MOST = 100

Receive = Callable[[], Awaitable[Any]]

JSON = b"application/json"
TEXT = b"text/plain; charset=utf-8"

_encode = msgspec.json.Encoder().encode
_NO_QUERY: dict[str, list[str]] = {}
_TRUE = ("", "1", "t", "T", "true", "TRUE", "True")
_FALSE = ("0", "f", "F", "false", "FALSE", "False")


class Reply(msgspec.Struct):
    """What is sent. `index` above 0 makes it the answer to a query, with Consul's three headers."""

    status: int = 200
    body: bytes = b""
    content_type: bytes = b""
    index: int = 0
    headers: list[tuple[bytes, bytes]] = []

    @classmethod
    def json(cls, value: Any, *, index: int = 0, status: int = 200) -> Reply:
        """The value as JSON."""
        return cls(status, _encode(value), JSON, index)

    @classmethod
    def encoded(cls, body: bytes, *, index: int = 0) -> Reply:
        """JSON that is encoded already."""
        return cls(200, body, JSON, index)

    @classmethod
    def text(cls, status: int, text: str) -> Reply:
        """An error, in plain text as Consul's."""
        return cls(status, text.encode(), TEXT)


class Request:
    """One request: `rest` is what follows the route's path, decoded."""

    __slots__ = ("_query", "_receive", "_scope", "method", "rest")

    def __init__(self, scope: Any, receive: Receive, rest: str) -> None:
        self._scope = scope
        self._receive = receive
        self._query: dict[str, list[str]] | None = None
        self.method: str = scope["method"]
        self.rest = rest

    @property
    def query(self) -> dict[str, list[str]]:
        """Each parameter with its values; one without a value has the empty one."""
        if self._query is None:
            raw: bytes = self._scope["query_string"]
            self._query = _NO_QUERY
            if raw:
                try:
                    self._query = parse_qs(
                        raw.decode("ascii"), keep_blank_values=True, max_num_fields=PARAMETERS_AT_MOST
                    )
                except ValueError as error:
                    raise Refused(400, "Invalid query string") from error
        return self._query

    def one(self, name: str) -> str | None:
        """The parameter's first value; None when it was not given."""
        values = self.query.get(name)
        return values[0] if values else None

    def flag(self, name: str) -> bool:
        """Whether the parameter was given, with whatever value."""
        return name in self.query

    def true(self, name: str) -> bool:
        """Whether the parameter was given, and not as false."""
        value = self.one(name)
        if value is None or value in _FALSE:
            return False
        if value not in _TRUE:
            raise Refused(400, f"Invalid value for ?{name}")
        return True

    def unsigned(self, name: str) -> int | None:
        """The parameter as an unsigned 64-bit number; None when it was not given."""
        value = self.one(name)
        if value is None:
            return None
        if not value.isascii() or not value.isdigit() or len(value) > 20 or int(value) >= 2**64:
            raise Refused(500, f'strconv.ParseUint: parsing "{value[:40]}": invalid syntax')
        return int(value)

    async def body(self, hint: str = "") -> bytes:
        """The whole body, at most 512 KiB; `hint` is where Consul's text says to read on.

        What is too large is read on for a while and thrown away: a client that is still sending would see a
        broken pipe in place of the refusal.
        """
        chunks: list[bytes] = []
        size = 0
        more = True
        while more and size <= DRAINED_BYTES_AT_MOST:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise Refused(400, "the client went away before its request was whole")
            chunk = message.get("body", b"")
            size += len(chunk)
            if size <= BODY_BYTES_AT_MOST:
                chunks.append(chunk)
            more = message.get("more_body", False)
        if size > BODY_BYTES_AT_MOST:
            raise _too_large(size, hint)
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    async def gone(self) -> None:
        """The client closed the connection."""
        while (await self._receive())["type"] != "http.disconnect":
            pass


def _too_large(size: int, hint: str) -> Refused:
    see = f" See https://www.consul.io/docs/agent/options.html#{hint}." if hint else ""
    return Refused(413, f"Request body({size} bytes) too large, max size: {BODY_BYTES_AT_MOST} bytes.{see}")
