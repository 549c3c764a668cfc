"""One request and one reply."""

from __future__ import annotations

from collections.abc import Callable
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qs

import msgspec

from milkrun.registry.refusal import Refused

BODY_BYTES_AT_MOST = 512 * 1024
DRAINED_BYTES_AT_MOST = 8 * 1024 * 1024
PARAMETERS_AT_MOST = 100

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
    close: bool = False
    """The connection ends with this reply."""

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
    """One request: `target` is what it asks for as it was sent, `rest` what follows the route's path, decoded.

    Header names are in lower case. `size` is how long the body was said to be or turned out; one over the cap is
    not kept. `secret` is the token that was shown, empty for none; `local` says that the client is on this
    machine, `vetted` that the handler asked what the client may do. `last` says that the connection ends with
    the reply, `old` that it is HTTP/1.0.
    """

    __slots__ = (
        "_body",
        "_on_leave",
        "_query",
        "cap",
        "headers",
        "last",
        "left",
        "local",
        "method",
        "old",
        "peer",
        "rest",
        "secret",
        "size",
        "target",
        "vetted",
    )

    def __init__(
        self,
        method: str,
        target: bytes,
        headers: list[tuple[bytes, bytes]],
        body: bytes = b"",
        *,
        size: int = 0,
        cap: int = BODY_BYTES_AT_MOST,
        peer: str = "",
        local: bool = False,
        secret: bytes = b"",
    ) -> None:
        self.method = method
        self.target = target
        self.headers = headers
        self.size = size
        self.cap = cap
        self.peer = peer
        self.local = local
        self.secret = secret
        self.vetted = False
        self.rest = ""
        self.last = self.old = self.left = False
        self._body = body
        self._query: dict[str, list[str]] | None = None
        self._on_leave: Callable[[], None] | None = None

    def header(self, name: bytes) -> bytes | None:
        """The first header of this name (in lower case); None when there is none."""
        for each, value in self.headers:
            if each == name:
                return value
        return None

    @property
    def query(self) -> dict[str, list[str]]:
        """Each parameter with its values; one without a value has the empty one."""
        if self._query is None:
            raw = self.target.partition(b"?")[2]
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
        """The whole body, at most 512 KiB; `hint` is where Consul's text says to read on."""
        if self.size > self.cap:
            raise _too_large(self.size, self.cap, hint)
        return self._body

    def on_leave(self, call: Callable[[], None]) -> None:
        """`call` is called when the client says that nothing more comes from it, or is gone already."""
        if self.left:
            call()
        else:
            self._on_leave = call

    def leave(self) -> None:
        """The client says no more."""
        self.left = True
        if self._on_leave:
            self._on_leave()


def encoded(reply: Reply, date: bytes, *, last: bool, keep: bool) -> bytes:
    """The reply's head. `keep` says to an HTTP/1.0 client that the connection stays, `last` that it ends."""
    head = b"%bContent-Length: %d\r\nDate: %b\r\n" % (_STATUS_LINES[reply.status], len(reply.body), date)
    if reply.content_type:
        head += b"Content-Type: %b\r\n" % reply.content_type
    if reply.index:
        head += (
            b"X-Consul-Index: %d\r\nX-Consul-Knownleader: true\r\nX-Consul-Lastcontact: 0\r\n" % reply.index
        )
    for name, value in reply.headers:
        head += b"%b: %b\r\n" % (name, value.translate(_ONE_LINE))
    if last:
        head += b"Connection: close\r\n"
    elif keep:
        head += b"Connection: keep-alive\r\n"
    return head + b"\r\n"


_STATUS_LINES = {each.value: b"HTTP/1.1 %d %b\r\n" % (each, each.phrase.encode()) for each in HTTPStatus}
_ONE_LINE = bytes.maketrans(b"\r\n\0", b"   ")
"""A value may repeat what a client sent: it must not become a second header. Go's servers do the same."""


def _too_large(size: int, cap: int, hint: str) -> Refused:
    see = f" See https://www.consul.io/docs/agent/options.html#{hint}." if hint else ""
    return Refused(413, f"Request body({size} bytes) too large, max size: {cap} bytes.{see}")
