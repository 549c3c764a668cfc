from __future__ import annotations

import pytest
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from hypothesis import example, given
from hypothesis import strategies as st

from milkrun.registry.checks.grpc_message import PREFIX_BYTES, BadMessage, status, wrapped_request


@given(st.text(max_size=300))
def test_a_request_is_what_protobuf_writes(service):
    wrapped = wrapped_request(service)
    message = HealthCheckRequest(service=service).SerializeToString()
    assert wrapped == b"\0" + len(message).to_bytes(4, "big") + message
    assert len(wrapped) == PREFIX_BYTES + len(message)


@given(st.integers(0, 2**31 - 1))
def test_a_reply_is_what_protobuf_reads(value):
    assert status(HealthCheckResponse(status=value).SerializeToString()) == value


def test_a_reply_without_a_status_is_unknown():
    assert status(b"") == 0


@pytest.mark.parametrize(
    "field",
    [
        b"\x10\x96\x01",  # a number
        b"\x11" + b"x" * 8,  # eight bytes
        b"\x12\x03abc",  # text
        b"\x15" + b"x" * 4,  # four bytes
        b"\x0a\x01a",  # text under the status's own number
    ],
)
def test_fields_of_later_versions_are_passed_over(field):
    assert status(field + b"\x08\x01") == 1
    assert status(b"\x08\x01" + field) == 1
    assert HealthCheckResponse.FromString(field + b"\x08\x01").status == 1


def test_the_last_of_two_counts():
    assert status(b"\x08\x01\x08\x02") == HealthCheckResponse.FromString(b"\x08\x01\x08\x02").status == 2


@pytest.mark.parametrize(
    "reply",
    [
        b"\x08",
        b"\x08\x80",
        b"\x08" + b"\xff" * 10 + b"\x01",
        b"\x12\x05abc",
        b"\x12\xff\xff\xff\xff\x0f",
        b"\x11abc",
        b"\x0b\x0c",  # a group, which nobody writes any more
        b"\x0e",
        b"\x00\x01",
    ],
)
def test_bytes_that_are_no_reply_are_refused(reply):
    with pytest.raises(BadMessage):
        status(reply)


@given(st.binary(max_size=40))
@example(b"\x80\x80\x80\x80\x10\x00")
def test_any_bytes_are_a_status_or_refused(reply):
    try:
        assert status(reply) >= 0
    except BadMessage:
        return
    HealthCheckResponse.FromString(reply)  # what we can read is no riddle to others
