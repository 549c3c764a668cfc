"""A call against a server of which every byte is ours: h2 from the other side, and bytes that no h2 sends."""

from __future__ import annotations

import pytest
from grpc_health.v1.health_pb2 import HealthCheckRequest
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import DataReceived, RequestReceived
from hypothesis import given
from hypothesis import strategies as st

from milkrun.registry.checks.grpc_call import (
    FRAMES_AT_MOST,
    HEADER_BYTES_AT_MOST,
    MESSAGE_BYTES_AT_MOST,
    READ_BYTES_AT_MOST,
    Call,
)
from milkrun.registry.checks.grpc_message import Code
from milkrun.registry.checks.grpc_verdict import Broken, Ended, Served

OK = [(":status", "200"), ("content-type", "application/grpc+proto")]
SERVING = b"\0\0\0\0\x02\x08\x01"
SETTINGS = b"\0\0\0\x04\0\0\0\0\0"


class Server:
    """The other side of one call."""

    def __init__(self, service: str = "", **options) -> None:
        self.call = Call("a:1", service, **{"scheme": "http", "timeout_s": 2.5, **options})
        self.h2 = H2Connection(
            H2Configuration(client_side=False, header_encoding="utf-8", validate_outbound_headers=False)
        )
        self.h2.initiate_connection()
        self.events = self.h2.receive_data(self.call.to_send())

    def sent(self, *, cut: int = 0) -> bytes:
        """What the server has to say now; without its last `cut` bytes."""
        data = self.h2.data_to_send()
        return data[: len(data) - cut]

    def answers(self, headers=OK, body: bytes = SERVING, trailers=(("grpc-status", "0"),)) -> Server:
        self.h2.send_headers(1, headers, end_stream=not body and not trailers)
        if body:
            self.h2.send_data(1, body, end_stream=not trailers)
        if trailers:
            self.h2.send_headers(1, trailers, end_stream=True)
        return self

    def outcome(self):
        self.call.take(self.sent())
        return self.call.outcome


def of(outcome, code: Code) -> str:
    assert isinstance(outcome, Broken), outcome
    assert outcome.code is code
    return outcome.why


def test_what_is_asked():
    server = Server("dairy.Goat", scheme="https")
    [request] = [event for event in server.events if isinstance(event, RequestReceived)]
    headers = dict(request.headers)
    assert headers == {
        ":method": "POST",
        ":scheme": "https",
        ":path": "/grpc.health.v1.Health/Check",
        ":authority": "a:1",
        "te": "trailers",
        "content-type": "application/grpc",
        "user-agent": "Consul Health Check",
        "grpc-accept-encoding": "identity",
        "grpc-timeout": "2500m",
    }
    body = b"".join(event.data for event in server.events if isinstance(event, DataReceived))
    assert HealthCheckRequest.FromString(body[5:]).service == "dairy.Goat"
    assert server.h2.remote_settings.enable_push == 0


def test_an_answer():
    assert Server().answers().outcome() == Served(1)
    assert Server().answers(body=b"\0\0\0\0\x02\x08\x02").outcome() == Served(2)
    assert Server().answers(body=b"\0\0\0\0\0").outcome() == Served(0)


@given(st.lists(st.integers(1, 30), max_size=60))
def test_an_answer_may_come_in_any_pieces(sizes):
    server = Server().answers()
    data, at = server.sent(), 0
    for size in sizes:
        server.call.take(data[at : at + size])
        at += size
    server.call.take(data[at:])
    assert server.call.outcome == Served(1)


@given(st.integers(1, 200))
def test_an_answer_cut_short_never_passes(cut):
    server = Server().answers()
    server.call.take(server.sent(cut=cut))
    assert server.call.outcome is None
    server.call.close()
    assert isinstance(server.call.outcome, Broken)


@pytest.mark.parametrize(
    ("headers", "trailers", "outcome"),
    [
        ((*OK, ("grpc-status", "5"), ("grpc-message", "no%20goat")), (), Ended(5, "no%20goat")),
        (OK, (("grpc-status", "13"), ("grpc-message", "x")), Ended(13, "x")),
        (OK, (("grpc-status", "99"),), Ended(99, "")),
    ],
)
def test_a_call_that_the_server_ends_with_a_code(headers, trailers, outcome):
    assert Server().answers(headers, b"", trailers).outcome() == outcome


@pytest.mark.parametrize(
    ("headers", "body", "trailers", "code", "why"),
    [
        (OK, SERVING, (), Code.Internal, "server closed the stream without sending trailers"),
        (OK, SERVING, (("grpc-status", "-1"),), Code.Internal, "malformed grpc-status: -1"),
        (OK, SERVING, (("grpc-status", ""),), Code.Internal, "malformed grpc-status"),
        (OK, SERVING, (("grpc-status", "٣"),), Code.Internal, "malformed grpc-status"),
        (OK, SERVING, (("grpc-status", "9" * 99),), Code.Internal, "malformed grpc-status"),
        (OK, b"", (("grpc-status", "0"),), Code.Internal, "the server sent no whole message"),
        (OK, SERVING[:-1], (("grpc-status", "0"),), Code.Internal, "the server sent no whole message"),
        (OK, SERVING * 2, (("grpc-status", "0"),), Code.Internal, "more than one message"),
        (OK, b"\1" + SERVING[1:], (("grpc-status", "0"),), Code.Internal, "packed"),
        (OK, b"\0\0\0\0\x01\x08", (("grpc-status", "0"),), Code.Internal, "failed to unmarshal"),
        (
            OK,
            b"\0\x7f\xff\xff\xff" + b"x" * 100,
            (("grpc-status", "0"),),
            Code.ResourceExhausted,
            f"received message larger than max (2147483647 vs. {MESSAGE_BYTES_AT_MOST})",
        ),
        (
            [(":status", "404"), ("content-type", "text/html")],
            b"<html>",
            (),
            Code.Unimplemented,
            'Not Found: HTTP status code 404; transport: received the unexpected content-type "text/html"',
        ),
        (
            [(":status", "503")],
            b"",
            (),
            Code.Unavailable,
            "Service Unavailable: HTTP status code 503; transport: missing content-type field",
        ),
        (
            [(":status", "200"), ("content-type", "application/grpcish"), ("grpc-status", "0")],
            SERVING,
            (("grpc-status", "0"),),
            Code.Unknown,
            "OK: HTTP status code 200",
        ),
        ([(":status", "799"), ("content-type", "x")], b"", (), Code.Unknown, ": HTTP status code 799"),
        ([(":status", "abc"), ("content-type", "x")], b"", (), Code.Unknown, ": HTTP status code 0"),
    ],
)
def test_an_answer_that_is_none(headers, body, trailers, code, why):
    assert why in of(Server().answers(headers, body, trailers).outcome(), code)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ErrorCodes.REFUSED_STREAM, Code.Unavailable),
        (ErrorCodes.CANCEL, Code.Canceled),
        (ErrorCodes.INTERNAL_ERROR, Code.Internal),
        (0x77, Code.Internal),
    ],
)
def test_a_stream_that_is_reset(error, code):
    server = Server()
    server.h2.reset_stream(1, error)
    assert "stream terminated by RST_STREAM with error code: " in of(server.outcome(), code)


def test_what_comes_after_the_answer_does_not_matter():
    server = Server().answers()
    server.call.take(server.sent() + b"\xff" * 100)
    assert server.call.outcome == Served(1)


def goaway(last: int, error: int = 0) -> bytes:
    return b"\0\0\x08\x07\0\0\0\0\0" + last.to_bytes(4, "big") + error.to_bytes(4, "big")


def test_a_server_that_goes_away_still_ends_the_calls_that_it_took():
    """h2 takes GOAWAY for the end of everything; gRPC servers send it first when they drain."""
    server = Server()
    server.call.take(server.sent() + goaway(2**31 - 1) + b"\0\0\x08\x06\0\0\0\0\0" + b"p" * 8 + goaway(1))
    assert server.call.outcome is None
    assert server.call.to_send().endswith(b"p" * 8)
    assert server.answers().outcome() == Served(1)


def test_a_server_that_goes_away_before_the_call_says_so():
    server = Server()
    server.call.take(server.sent() + goaway(0))
    assert "GOAWAY" in of(server.call.outcome, Code.Unavailable)


@pytest.mark.parametrize(
    ("data", "code", "why"),
    [
        (b"", Code.Unavailable, "connection closed"),
        (b"\x15\x03\x03\0\x02\x02\x46", Code.Unavailable, "connection closed"),
        (
            b"HTTP/1.1 400 Bad Request\r\n\r\n",
            Code.Unavailable,
            "connection closed: the answer is not HTTP/2",
        ),
        (b"\0\0\0\x01\x05\0\0\0\x01", Code.Unavailable, "connection closed: the answer is not HTTP/2"),
        (SETTINGS + b"\xff" * 9, Code.Unavailable, "connection closed: the answer is not HTTP/2"),
        (SETTINGS, Code.Unavailable, "transport is closing"),
        (
            SETTINGS + b"\0\0\x05\x01\x04\0\0\0\x01\xff\xff\xff\xff\xff",
            Code.Internal,
            "the server broke HTTP/2",
        ),
        (SETTINGS + b"\0\0\x01\x04\0\0\0\0\0x", Code.Internal, "the server broke HTTP/2"),
        (SETTINGS + b"\0\0\x04\x08\0\0\0\0\0\0\0\0\0", Code.Internal, "the server broke HTTP/2"),
        (SETTINGS * FRAMES_AT_MOST * 2, Code.ResourceExhausted, f"more than {FRAMES_AT_MOST} frames"),
        (
            SETTINGS + (b"\0\x30\0\xee\0\0\0\0\0" + b"x" * 0x3000) * 9,  # frames of an unknown type
            Code.ResourceExhausted,
            f"more than {READ_BYTES_AT_MOST} bytes",
        ),
    ],
)
def test_bytes_that_are_no_answer(data, code, why):
    call = Call("a:1", "", scheme="http", timeout_s=1.0)
    for at in range(0, len(data), 4096):
        call.take(data[at : at + 4096])
    call.close()
    assert why in of(call.outcome, code)


def test_headers_without_end_are_left():
    """One small frame may stand for headers of any size, by pointing at the same long one again and again."""
    server = Server()
    server.h2.send_headers(1, [*OK, *((f"x-{number}", "y" * 100) for number in range(200))])
    assert HEADER_BYTES_AT_MOST < 200 * 100
    assert "the server broke HTTP/2" in of(server.outcome(), Code.Internal)


@given(st.lists(st.binary(max_size=60), max_size=6), st.booleans())
def test_any_bytes_come_to_an_outcome_and_never_to_a_pass(pieces, settled):
    call = Call("a:1", "", scheme="http", timeout_s=1.0)
    if settled:
        call.take(SETTINGS)
    for piece in pieces:
        call.take(piece)
    call.close()
    assert isinstance(call.outcome, Broken | Ended)


@given(st.integers(0, 400), st.binary(min_size=1, max_size=4))
def test_an_answer_with_wrong_bytes_in_it_comes_to_an_outcome(at, wrong):
    server = Server().answers()
    data = bytearray(server.sent())
    data[at : at + len(wrong)] = wrong
    server.call.take(bytes(data))
    server.call.close()
    assert server.call.outcome is not None
