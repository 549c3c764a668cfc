"""From bytes to requests, however the bytes are cut. No I/O. HTTP/1.1, RFC 9112.

httptools reads strictly (no bare LF, no folded header, no second or doubtful length); what it lets pass and two
servers could read in two ways is refused here. After a refusal nothing more is read.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from enum import Enum, auto

import httptools

from milkrun.registry.access.authority import is_local
from milkrun.registry.http.hosts import Hosts, from_elsewhere
from milkrun.registry.http.message import BODY_BYTES_AT_MOST, DRAINED_BYTES_AT_MOST, Request
from milkrun.registry.refusal import Refused

HEAD_BYTES_AT_MOST = 16 * 1024
_LINE_BYTES = 4
_TOKEN, _BEARER = b"x-consul-token", b"authorization"
_NOTICED = frozenset(
    {
        *(_TOKEN, _BEARER),
        *(b"host", b"origin", b"sec-fetch-site"),
        *(b"content-length", b"transfer-encoding", b"expect", b"upgrade"),
    }
)

Cap = Callable[[bytes, bytes, bool], int]
"""How long the body of a request may be: by its target, the token that comes with it, and whether it is local."""


class Phase(Enum):
    """What is read next."""

    IDLE = auto()
    HEAD = auto()
    BODY = auto()
    NOTHING = auto()
    """What comes is thrown away: the last request is read."""


class Reader:
    """`requests` are those that are read and not yet taken; a refusal is the last one.

    `began` counts the requests that have begun. `owes_continue` is set when the client waits to hear that its
    body is wanted. Without `hosts` every Host header is taken.
    """

    def __init__(self, peer: str = "", hosts: Hosts | None = None, cap: Cap | None = None) -> None:
        self._parser = httptools.HttpRequestParser(_Callbacks(self))
        self._peer = peer
        self._local = is_local(peer)
        self._cap_of = cap
        self._secret = b""
        self._hosts = hosts
        self.phase = Phase.IDLE
        self.began = 0
        self.requests: deque[Request | Refused] = deque()
        self.owes_continue = False
        self._refusal: Refused | None = None
        self._target = b""
        self._headers: list[tuple[bytes, bytes]] = []
        self._chunks: list[bytes] = []
        self._cap = BODY_BYTES_AT_MOST
        self._head_size = self._unfinished = self._size = 0
        self._old = False

    def feed(self, data: bytes) -> None:
        """The requests that end in `data` are in `requests`."""
        if self.phase is Phase.HEAD:
            # A name or value without an end reaches no callback.
            self._unfinished += len(data)
            if self._unfinished > 2 * HEAD_BYTES_AT_MOST:
                self.refuse(_head_too_large())
        try:
            while data and self.phase is not Phase.NOTHING:
                data = self._parsed(data)
        except httptools.HttpParserError as error:
            self.refuse(self._refusal or Refused(400, f"Bad Request: {error}"))

    def refuse(self, refusal: Refused) -> None:
        """The refusal comes after the requests that are read, unless one of those is the last already."""
        if self.phase is not Phase.NOTHING:
            self.phase = Phase.NOTHING
            self.requests.append(refusal)

    def _parsed(self, data: bytes) -> bytes:
        """What is left to parse: a wish to upgrade stops the parser, and is passed over, as HTTP allows."""
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            return data[upgrade.args[0] :]
        return b""

    def begin(self) -> None:
        """A request's first byte is there."""
        self.phase = Phase.HEAD
        self.began += 1
        self._target = b""
        self._headers = []
        self._head_size = self._unfinished = self._size = 0
        if self._chunks:
            self._chunks = []

    def url(self, part: bytes) -> None:
        """A part of the target is there."""
        self._target += part
        self._count(len(part))

    def header(self, name: bytes, value: bytes) -> None:
        """A header is there; one after the body is passed over."""
        if self.phase is Phase.HEAD:
            self._headers.append((name.lower(), value))
            self._count(len(name) + len(value) + _LINE_BYTES)

    def head_done(self) -> None:
        """The head is whole."""
        self.phase = Phase.BODY
        found: dict[bytes, bytes] = {}
        for name, value in self._headers:
            if name in _NOTICED:
                if name in found:
                    raise self._stop(400, f"Bad Request: more than one {name.decode()}")
                found[name] = value
        version = self._parser.get_http_version()
        if version not in ("1.1", "1.0"):
            raise self._stop(505, "HTTP Version Not Supported")
        self._old = version == "1.0"
        if b"host" not in found and not self._old:
            raise self._stop(400, "Bad Request: missing required Host header")
        host = found.get(b"host")
        if host is not None and self._hosts and not self._hosts.has(host):
            raise self._stop(421, _misdirected(host))
        self._secret = found.get(_TOKEN) or _bearer(found.get(_BEARER, b""))
        self._cap = BODY_BYTES_AT_MOST
        if self._cap_of:
            self._cap = self._cap_of(self._target, self._secret, self._local)
        if len(found) > (host is not None):
            if from_elsewhere(self._parser.get_method(), found):
                raise self._stop(403, "Forbidden: a page of another origin may not write here")
            self._expect_body(found)

    def body(self, part: bytes) -> None:
        """A part of the body is there. What is too large is read on for a while and thrown away."""
        self._size += len(part)
        if self._size <= self._cap:
            self._chunks.append(part)
        elif self._size > max(self._cap, DRAINED_BYTES_AT_MOST):
            raise self._too_large(self._size)

    def done(self) -> None:
        """The request is whole."""
        self._take(last=not self._parser.should_keep_alive())

    def _count(self, size: int) -> None:
        self._head_size += size
        if self._head_size > HEAD_BYTES_AT_MOST:
            self._refusal = _head_too_large()
            raise self._refusal

    def _expect_body(self, found: dict[bytes, bytes]) -> None:
        coding, expects = found.get(b"transfer-encoding"), found.get(b"expect")
        if coding is not None and (self._old or coding.lower() != b"chunked"):
            raise self._stop(501, "Unsupported transfer encoding")
        size = int(found.get(b"content-length", b"0"))
        if (coding is not None or size) and b"upgrade" in found and self._parser.should_upgrade():
            raise self._stop(400, "Bad Request: an upgrade with a body")
        if self._old:
            expects = None
        if expects is not None and expects.lower() != b"100-continue":
            raise self._stop(417, "Expectation Failed")
        if size > (self._cap if expects else max(self._cap, DRAINED_BYTES_AT_MOST)):
            raise self._too_large(size)
        self.owes_continue = expects is not None and (coding is not None or size > 0)

    def _too_large(self, size: int) -> Refused:
        """The handler says how it refuses; nothing more is read."""
        self._size = size
        self._take(last=True)
        return self._stop(413, "")

    def _stop(self, status: int, why: str) -> Refused:
        """What a callback raises so that the parser reads no further."""
        self._refusal = Refused(status, why)
        return self._refusal

    def _take(self, *, last: bool) -> None:
        method = self._parser.get_method().decode()
        body = b"".join(self._chunks) if 0 < self._size <= self._cap else b""
        request = Request(
            method,
            self._target,
            self._headers,
            body,
            size=self._size,
            cap=self._cap,
            peer=self._peer,
            local=self._local,
            secret=self._secret,
        )
        request.old = self._old
        request.last = last or method == "CONNECT"
        self.phase = Phase.NOTHING if request.last else Phase.IDLE
        self.owes_continue = False
        self.requests.append(request)


class _Callbacks:
    """The names by which httptools calls the reader."""

    def __init__(self, reader: Reader) -> None:
        self.on_message_begin = reader.begin
        self.on_url = reader.url
        self.on_header = reader.header
        self.on_headers_complete = reader.head_done
        self.on_body = reader.body
        self.on_message_complete = reader.done


def _misdirected(host: bytes) -> str:
    shown = ascii(host[:80].decode("latin-1"))
    return f"Misdirected Request: this registry is not {shown}; `--allow-host` gives it more names"


def _head_too_large() -> Refused:
    return Refused(431, f"Request Header Fields Too Large: at most {HEAD_BYTES_AT_MOST} bytes")


def _bearer(authorization: bytes) -> bytes:
    """The token of an Authorization header; other schemes are no tokens (old Prometheus always sends Basic)."""
    scheme, _, token = authorization.partition(b" ")
    return token.strip() if scheme.lower() == b"bearer" else b""
