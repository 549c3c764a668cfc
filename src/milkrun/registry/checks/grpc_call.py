"""One call of a gRPC server's health service over HTTP/2: bytes in, bytes out. Pure.

`h2` reads and writes the frames. What comes in is bounded here: in all, by the frame, and by the message, whose
length is judged when it is announced. Nothing is packed, pushed or tried again.
"""

from __future__ import annotations

import http
from collections.abc import Iterable

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import (
    DataReceived,
    Event,
    RemoteSettingsChanged,
    ResponseReceived,
    StreamEnded,
    StreamReset,
    TrailersReceived,
)
from h2.exceptions import H2Error
from h2.settings import SettingCodes, Settings

from milkrun.registry.checks import grpc_message
from milkrun.registry.checks.grpc_message import BadMessage, Code
from milkrun.registry.checks.grpc_verdict import Broken, Ended, Outcome, Served

MESSAGE_BYTES_AT_MOST = 4096
READ_BYTES_AT_MOST = 64 * 1024
FRAMES_AT_MOST = 256
HEADER_BYTES_AT_MOST = 16 * 1024

_HEAD_BYTES = 9
_FRAME_BYTES_AT_MOST = 16 * 1024
_SETTINGS, _GOAWAY = 4, 7
_STREAM = 1
_OF_HTTP = {
    400: Code.Internal,
    401: Code.Unauthenticated,
    403: Code.PermissionDenied,
    404: Code.Unimplemented,
    429: Code.Unavailable,
    502: Code.Unavailable,
    503: Code.Unavailable,
    504: Code.Unavailable,
}
"""What an answer without gRPC means (grpc/doc/http-grpc-status-mapping.md); everything else is unknown."""
_OF_RESET = {
    ErrorCodes.REFUSED_STREAM: Code.Unavailable,
    ErrorCodes.CANCEL: Code.Canceled,
    ErrorCodes.ENHANCE_YOUR_CALM: Code.ResourceExhausted,
    ErrorCodes.INADEQUATE_SECURITY: Code.PermissionDenied,
}

Headers = dict[str, str]


class Call:
    """A call from its first byte to its `outcome`, which is None until it is known."""

    def __init__(self, authority: str, service: str, *, scheme: str, timeout_s: float) -> None:
        self.outcome: Outcome | None = None
        self._h2 = H2Connection(H2Configuration(client_side=True, header_encoding=None))
        self._h2.local_settings = Settings(
            initial_values={
                SettingCodes.ENABLE_PUSH: 0,
                SettingCodes.MAX_HEADER_LIST_SIZE: HEADER_BYTES_AT_MOST,
            }
        )
        self._h2.decoder.max_header_list_size = HEADER_BYTES_AT_MOST
        self._h2.initiate_connection()
        self._h2.send_headers(_STREAM, _request_headers(authority, scheme, timeout_s))
        self._h2.send_data(_STREAM, grpc_message.wrapped_request(service), end_stream=True)
        self._unread = bytearray()
        self._read = 0
        self._frames = 0
        self._settled = False
        self._headers: Headers = {}
        self._trailers: Headers = {}
        self._body = bytearray()

    def to_send(self) -> bytes:
        """What is to be sent now; each byte is given once."""
        return self._h2.data_to_send()

    def take(self, data: bytes) -> None:
        """The bytes came from the server."""
        self._read += len(data)
        self._unread += data
        while self.outcome is None and len(self._unread) >= _HEAD_BYTES:
            length = int.from_bytes(self._unread[:3], "big")
            if length > _FRAME_BYTES_AT_MOST or not (self._settled or self._unread[3] == _SETTINGS):
                self._break(Code.Unavailable, "connection closed: the answer is not HTTP/2")
            elif len(self._unread) < _HEAD_BYTES + length:
                break
            else:
                frame = bytes(self._unread[: _HEAD_BYTES + length])
                del self._unread[: _HEAD_BYTES + length]
                self._take_frame(frame)
        if self.outcome is None and self._read > READ_BYTES_AT_MOST:
            self._break(Code.ResourceExhausted, f"more than {READ_BYTES_AT_MOST} bytes came")

    def close(self) -> None:
        """The server closed the connection."""
        if self.outcome is None:
            self._break(Code.Unavailable, "transport is closing" if self._settled else "connection closed")

    def _take_frame(self, frame: bytes) -> None:
        self._frames += 1
        if self._frames > FRAMES_AT_MOST:
            self._break(Code.ResourceExhausted, f"more than {FRAMES_AT_MOST} frames came")
            return
        if frame[3] == _GOAWAY:
            # h2 takes it for the end, but calls up to the one that it names go on.
            if int.from_bytes(frame[_HEAD_BYTES : _HEAD_BYTES + 4], "big") & 0x7FFFFFFF < _STREAM:
                self._break(Code.Unavailable, "the server takes no more calls (GOAWAY)")
            return
        try:
            events = self._h2.receive_data(frame)
        except H2Error as error:
            self._break(Code.Internal, f"the server broke HTTP/2: {_line(error)}")
            return
        for event in events:
            self._hear(event)

    def _hear(self, event: Event) -> None:
        if self.outcome is not None:
            return
        match event:
            case RemoteSettingsChanged():
                self._settled = True
            case ResponseReceived():
                self._headers = _text(event.headers)
                if not _is_grpc(self._headers):
                    self._break(*_of_http(self._headers))
            case DataReceived():
                self._body += event.data
                self._judge_length()
            case TrailersReceived():
                self._trailers = _text(event.headers)
            case StreamReset():
                self._break(*_of_reset(event.error_code))
            case StreamEnded():
                self.outcome = self._ended()
            case _:
                pass  # Pings, windows and settings are h2's own business.

    def _judge_length(self) -> None:
        length = int.from_bytes(self._body[1 : grpc_message.PREFIX_BYTES], "big")
        if len(self._body) < grpc_message.PREFIX_BYTES:
            return
        if length > MESSAGE_BYTES_AT_MOST:
            why = f"grpc: received message larger than max ({length} vs. {MESSAGE_BYTES_AT_MOST})"
            self._break(Code.ResourceExhausted, why)
        elif len(self._body) > grpc_message.PREFIX_BYTES + length:
            self._break(Code.Internal, "the server sent more than one message")
        elif self._body[0]:
            self._break(Code.Internal, "the server packed its message, which nobody asked for")

    def _ended(self) -> Outcome:
        """What the whole answer says. An answer of one header block is its own trailer."""
        trailers = self._trailers or self._headers
        stated = trailers.get("grpc-status")
        if stated is None:
            return Broken(Code.Internal, "server closed the stream without sending trailers")
        if not (stated.isascii() and stated.isdigit() and len(stated) <= 9):
            return Broken(
                Code.Internal, f"the server ended the call with a malformed grpc-status: {_line(stated)}"
            )
        if int(stated) != Code.OK:
            return Ended(int(stated), trailers.get("grpc-message", ""))
        body = bytes(self._body)
        length = int.from_bytes(body[1 : grpc_message.PREFIX_BYTES], "big")
        if len(body) != grpc_message.PREFIX_BYTES + length:
            return Broken(Code.Internal, "the server sent no whole message")
        try:
            return Served(grpc_message.status(body[grpc_message.PREFIX_BYTES :]))
        except BadMessage as error:
            return Broken(Code.Internal, f"grpc: failed to unmarshal the received message: {error}")

    def _break(self, code: Code, why: str) -> None:
        self.outcome = Broken(code, why)


def _request_headers(authority: str, scheme: str, timeout_s: float) -> list[tuple[str, str]]:
    return [
        (":method", "POST"),
        (":scheme", scheme),
        (":path", grpc_message.METHOD),
        (":authority", authority),
        ("te", "trailers"),
        ("content-type", "application/grpc"),
        ("user-agent", "Consul Health Check"),
        ("grpc-accept-encoding", "identity"),
        ("grpc-timeout", f"{max(1, round(timeout_s * 1000))}m"),
    ]


def _text(headers: Iterable[tuple[str | bytes, str | bytes]]) -> Headers:
    return {_decoded(name): _decoded(value) for name, value in headers}


def _decoded(value: str | bytes) -> str:
    return value if isinstance(value, str) else value.decode("utf-8", "replace")


def _is_grpc(headers: Headers) -> bool:
    kind = headers.get("content-type", "").lower()
    return kind.startswith("application/grpc") and kind[16:17] in ("", "+", ";")


def _of_http(headers: Headers) -> tuple[Code, str]:
    """What an answer that is not gRPC's means, in Go's words: a proxy gives such ones, or a web server."""
    status = headers.get(":status", "")
    code = int(status) if status.isascii() and status.isdigit() and len(status) == 3 else 0
    try:
        phrase = http.HTTPStatus(code).phrase
    except ValueError:
        phrase = ""
    kind = headers.get("content-type")
    said = (
        "transport: missing content-type field"
        if kind is None
        else f'transport: received the unexpected content-type "{_line(kind)}"'
    )
    return _OF_HTTP.get(code, Code.Unknown), f"{phrase}: HTTP status code {code}; {said}"


def _of_reset(error: ErrorCodes | int | None) -> tuple[Code, str]:
    name = error.name if isinstance(error, ErrorCodes) else str(error)
    code = _OF_RESET.get(error, Code.Internal) if isinstance(error, ErrorCodes) else Code.Internal
    return code, f"stream terminated by RST_STREAM with error code: {name}"


def _line(text: object) -> str:
    return " ".join(str(text).split())[:200]
