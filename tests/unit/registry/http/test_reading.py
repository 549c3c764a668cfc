from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from milkrun.registry.http.message import BODY_BYTES_AT_MOST, DRAINED_BYTES_AT_MOST
from milkrun.registry.http.reading import HEAD_BYTES_AT_MOST, Phase, Reader
from milkrun.registry.refusal import Refused

HOST = b"Host: x\r\n"
STREAM = (
    b"GET /v1/kv/a?index=5&wait=1s HTTP/1.1\r\nHost: x\r\nX-Consul-Token:  secret \r\n\r\n"
    b"\r\nPUT /v1/kv/b HTTP/1.1\r\nHost: x\r\nContent-Length: 11\r\n\r\nhello\r\nworl"
    b"PUT /v1/kv/c HTTP/1.1\r\nhost: x\r\ntransfer-encoding: Chunked\r\n\r\n"
    b"3\r\nabc\r\n4;x=y\r\ndefg\r\n0\r\nTrailer: t\r\n\r\n"
    b"GET /h2c HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n"
    b"HEAD / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"
)


def seen(reader: Reader) -> list[object]:
    return [
        (each.status, each.message)
        if isinstance(each, Refused)
        else (each.method, each.target, each.headers, each.size, each._body, each.old, each.last)
        for each in reader.requests
    ]


def read(*parts: bytes) -> Reader:
    reader = Reader()
    for part in parts:
        reader.feed(part)
    return reader


def whole(stream: bytes) -> list[object]:
    return seen(read(stream))


def cut(stream: bytes, places: list[int]) -> list[bytes]:
    edges = [0, *sorted(place % (len(stream) + 1) for place in places), len(stream)]
    return [stream[start:end] for start, end in pairwise(edges)]


def test_a_stream_of_requests_is_read_one_by_one():
    found = whole(STREAM)
    assert [(each[0], each[1], each[4]) for each in found] == [
        ("GET", b"/v1/kv/a?index=5&wait=1s", b""),
        ("PUT", b"/v1/kv/b", b"hello\r\nworl"),
        ("PUT", b"/v1/kv/c", b"abcdefg"),
        ("GET", b"/h2c", b""),
        ("HEAD", b"/", b""),
    ]
    assert found[0][2] == [(b"host", b"x"), (b"x-consul-token", b"secret ")]
    assert found[2][2] == [(b"host", b"x"), (b"transfer-encoding", b"Chunked")]
    assert [each[5] for each in found] == [False, False, False, False, True]
    assert not any(each[6] for each in found)


REFUSED = {
    "length and coding": (b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n", 400),
    "coding and length": (b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n", 400),
    "two lengths": (b"Content-Length: 3\r\nContent-Length: 4\r\n", 400),
    "the same length twice": (b"Content-Length: 3\r\nContent-Length: 3\r\n", 400),
    "a list of lengths": (b"Content-Length: 3, 3\r\n", 400),
    "a length with a sign": (b"Content-Length: +3\r\n", 400),
    "a negative length": (b"Content-Length: -3\r\n", 400),
    "an endless length": (b"Content-Length: 99999999999999999999999\r\n", 400),
    "no length": (b"Content-Length: \r\n", 400),
    "a hexadecimal length": (b"Content-Length: 0x3\r\n", 400),
    "a coding that is not chunked": (b"Transfer-Encoding: xchunked\r\n", 501),
    "two codings": (b"Transfer-Encoding: gzip, chunked\r\n", 501),
    "a coding after chunked": (b"Transfer-Encoding: chunked, identity\r\n", 400),
    "chunked twice": (b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", 400),
    "a coding behind a control character": (b"Transfer-Encoding: \x0bchunked\r\n", 400),
    "a space before the colon": (b"Content-Length : 3\r\n", 400),
    "a folded header": (b"A: b\r\n c\r\n", 400),
    "a header without a name": (b": b\r\n", 400),
    "a bare line feed": (b"A: b\nC: d\r\n", 400),
    "a bare carriage return": (b"A: b\rC: d\r\n", 400),
    "a null byte": (b"A: b\0c\r\n", 400),
    "a second host": (b"Host: y\r\n", 400),
    "an upgrade with a body": (b"Connection: upgrade\r\nUpgrade: h2c\r\nContent-Length: 3\r\n", 400),
    "an expectation that nobody knows": (b"Expect: miracles\r\nContent-Length: 3\r\n", 417),
}


@pytest.mark.parametrize("name", REFUSED)
@given(places=st.lists(st.integers(min_value=0), max_size=4))
def test_what_two_servers_could_read_in_two_ways_is_refused_and_hides_no_request(name, places):
    lines, status = REFUSED[name]
    hidden = b"abcGET /hidden HTTP/1.1\r\nHost: x\r\n\r\n"
    stream = b"GET /first HTTP/1.1\r\nHost: x\r\n\r\nPUT /a HTTP/1.1\r\n" + HOST + lines + b"\r\n" + hidden
    reader = read(*cut(stream, places))
    found = seen(reader)
    assert [each[1] for each in found[:1]] == [b"/first"]
    assert [each[0] for each in found[1:]] == [status]
    assert reader.phase is Phase.NOTHING


@pytest.mark.parametrize(
    ("stream", "status"),
    [
        (b"GET /\r\n\r\n", 505),
        (b"get / HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"GET / HTTP/1.2\r\nHost: x\r\n\r\n", 400),
        (b"GET / HTTP/2.0\r\nHost: x\r\n\r\n", 505),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
        (b"GET / HTTP/1.1\nHost: x\n\n", 400),
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET /a b HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"GET /\x01 HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
        (b"PUT / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 501),
        (b"PUT / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0x3\r\nabc\r\n0\r\n\r\n", 400),
        (b"PUT / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\nabc\r\n0\r\n\r\n", 400),
        (b"PUT / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabcd\r\n0\r\n\r\n", 400),
        (b"PUT / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nFFFFFFFFFFFFFFFFF\r\n", 400),
        (
            b"PUT / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nContent-Length: 5\r\n\r\n",
            400,
        ),
    ],
)
def test_what_is_no_request_is_refused(stream, status):
    assert [each[0] for each in whole(stream)] == [status]


def test_after_the_last_request_nothing_is_read():
    last = b"GET /a HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    for after in (b"GET /b HTTP/1.1\r\nHost: x\r\n\r\n", b"\x00garbage"):
        assert [(each[1], each[6]) for each in whole(last + after)] == [(b"/a", True)]
        assert whole(last + after) == seen(read(last, after))
    assert [(each[1], each[6]) for each in whole(b"GET /a HTTP/1.0\r\n\r\nGET /b HTTP/1.0\r\n\r\n")] == [
        (b"/a", True)
    ]
    assert [each[0] for each in whole(b"CONNECT x:80 HTTP/1.1\r\nHost: x\r\n\r\nGET / HTTP/1.1\r\n\r\n")] == [
        "CONNECT"
    ]


def head(size: int) -> bytes:
    """A request whose head counts `size` bytes."""
    return b"GET / HTTP/1.1\r\nHost: x\r\nA: " + b"b" * (size - 1 - 9 - 5) + b"\r\n\r\n"


@given(places=st.lists(st.integers(min_value=0), max_size=3))
@example(places=list(range(0, HEAD_BYTES_AT_MOST, 100)))
def test_a_head_may_be_so_long_and_no_longer(places):
    fits, too_long = head(HEAD_BYTES_AT_MOST), head(HEAD_BYTES_AT_MOST + 1)
    assert [each[0] for each in seen(read(*cut(fits, places)))] == ["GET"]
    assert [each[0] for each in seen(read(*cut(too_long, places)))] == [431]


@pytest.mark.parametrize("start", [b"GET /", b"GET / HTTP/1.1\r\nA", b"GET / HTTP/1.1\r\nA: "])
def test_a_head_without_an_end_is_refused_long_before_it_fills_the_memory(start):
    reader = read(start)
    for _ in range(2 * HEAD_BYTES_AT_MOST // 1000 + 1):
        reader.feed(b"a" * 1000)
    assert [each[0] for each in seen(reader)] == [431]


def chunked(body: bytes) -> bytes:
    return b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)


def with_length(body: bytes) -> bytes:
    return b"Content-Length: %d\r\n\r\n%b" % (len(body), body)


@pytest.mark.parametrize("framed", [chunked, with_length])
async def test_a_body_over_the_cap_is_read_on_but_not_kept(framed):
    start = b"PUT /v1/kv/a HTTP/1.1\r\nHost: x\r\n"
    after = b"GET /b HTTP/1.1\r\nHost: x\r\n\r\n"
    kept = read(start + framed(b"x" * BODY_BYTES_AT_MOST) + after)
    assert [each[1] for each in seen(kept)] == [b"/v1/kv/a", b"/b"]
    assert await kept.requests[0].body() == b"x" * BODY_BYTES_AT_MOST
    dropped = read(start + framed(b"x" * (BODY_BYTES_AT_MOST + 1)) + after)
    assert [each[1] for each in seen(dropped)] == [b"/v1/kv/a", b"/b"]
    assert dropped.requests[0]._body == b""
    with pytest.raises(Refused, match=f"too large, max size: {BODY_BYTES_AT_MOST}") as refused:
        await dropped.requests[0].body()
    assert refused.value.status == 413


@pytest.mark.parametrize("framed", [chunked, with_length])
def test_a_body_that_is_far_too_large_is_not_read_to_its_end(framed):
    stream = b"PUT /v1/kv/a HTTP/1.1\r\nHost: x\r\n" + framed(b"x" * (DRAINED_BYTES_AT_MOST + 1))
    reader = read(stream + b"GET /b HTTP/1.1\r\nHost: x\r\n\r\n")
    (request,) = seen(reader)
    assert request[3] > DRAINED_BYTES_AT_MOST
    assert request[6]
    assert reader._chunks == [] or sum(map(len, reader._chunks)) <= BODY_BYTES_AT_MOST


def test_a_body_that_waits_to_hear_whether_it_is_wanted_is_judged_by_its_length():
    start = b"PUT /v1/kv/a HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\n"
    wanted = read(start + b"Content-Length: 3\r\n\r\n")
    assert (wanted.owes_continue, seen(wanted)) == (True, [])
    wanted.feed(b"abc")
    assert (wanted.owes_continue, len(wanted.requests)) == (False, 1)
    unwanted = read(start + b"Content-Length: %d\r\n\r\n" % (BODY_BYTES_AT_MOST + 1))
    assert (unwanted.owes_continue, len(unwanted.requests), unwanted.phase) == (False, 1, Phase.NOTHING)


token = st.text("abcXYZ09-_", min_size=1, max_size=8).map(str.encode)


@st.composite
def requests(draw):
    body = draw(st.binary(max_size=40))
    method = draw(st.sampled_from([b"GET", b"PUT", b"DELETE", b"HEAD"]))
    target = b"/" + b"/".join(draw(st.lists(token, max_size=3)))
    fields = b"".join(
        b"X-%b: %b\r\n" % (name, value) for name, value in draw(st.lists(st.tuples(token, token), max_size=3))
    )
    framing = draw(st.sampled_from([chunked, with_length])) if body else (lambda _: b"\r\n")
    return b"%b %b HTTP/1.1\r\nHost: x\r\n%b%b" % (method, target, fields, framing(body))


@given(
    stream=st.lists(requests(), max_size=4).map(b"".join),
    places=st.lists(st.integers(min_value=0), max_size=12),
    garbage=st.sampled_from([b"", b"\x00", b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: x\r\n\r\n"]),
)
@example(stream=STREAM, places=list(range(len(STREAM))), garbage=b"")
def test_however_the_bytes_are_cut_the_requests_are_the_same(stream, places, garbage):
    stream += garbage
    assert seen(read(*cut(stream, places))) == whole(stream)


@given(st.lists(st.binary(max_size=60), max_size=6))
def test_no_bytes_at_all_make_it_fall_over(parts):
    reader = read(*parts)
    assert sum(isinstance(each, Refused) for each in reader.requests) <= 1
