"""Whatever bytes come over a connection: it is answered or ended, soon, and no answer is a mistake's."""

from __future__ import annotations

import os
import re
import socket
from urllib.parse import quote

from bad_input.description import harmless, route_of
from bad_input.known_errors import is_known
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

ENDED_WITHIN_S = 20.0
REFUSED_UNREAD = (501, 505)
"""HTTP's own words for a coding or a version that is not spoken."""
ANY = settings(
    max_examples=10_000 if os.environ.get("MILKRUN_SOAK") else 400,
    database=None,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)

BYTES = st.binary(max_size=30)
QUOTED = (st.text(max_size=10).map(str.encode) | BYTES).map(lambda raw: quote(raw, safe="/:").encode())
PATHS = st.sampled_from(sorted({route_of(path) for _, path in harmless()})).map(str.encode)
NAMES = st.sampled_from(
    [b"index", b"wait", b"cas", b"flags", b"filter", b"recurse", b"keys", b"dc", b"node-meta", b"tag"]
)
HEADERS = st.sampled_from(
    [
        b"Host",
        b"Content-Length",
        b"Transfer-Encoding",
        b"Expect",
        b"Connection",
        b"X-Consul-Token",
        b"Upgrade",
        b"Range",
    ]
)
PLAIN = st.sampled_from(
    [b"0", b"5", b"-1", b"chunked", b"close", b"100-continue", b"99999999999999999999", b"1ms"]
)
PIECES = st.sampled_from(
    [b"\r\n", b"\n", b"\r\n\r\n", b" ", b":", b"/", b"//", b"/../", b"%", b"%00", b"?", b"&", b"=", b"\0"]
)
ODD = st.just([]) | st.lists(st.tuples(HEADERS, PLAIN | QUOTED), max_size=2)
QUERY = st.lists(st.builds(lambda name, value: name + b"=" + value, NAMES, QUOTED | PLAIN), max_size=3).map(
    b"&".join
)


@st.composite
def requests(draw):
    """One that is almost right."""
    method = draw(st.sampled_from([b"GET", b"PUT", b"PUT", b"DELETE", b"POST", b"OPTIONS"]))
    target = draw(PATHS) + draw(QUOTED) + b"?" + draw(QUERY)
    body = draw(BYTES | st.sampled_from([b"{}", b"[]", b'{"Name":"a"}', b"5\r\nabcde\r\n0\r\n\r\n"]))
    headers = [b"Host: localhost", b"Content-Length: %d" % len(body)]
    headers += [name + b": " + value for name, value in draw(ODD)]
    return b"%b %b HTTP/1.1\r\n%b\r\n\r\n%b" % (method, target, b"\r\n".join(headers), body)


SOME = st.lists(requests(), min_size=1, max_size=3).map(b"".join)


@st.composite
def spoilt(draw):
    """Some requests after each other, with a piece put in or cut out somewhere."""
    whole = draw(SOME)
    for _ in range(draw(st.integers(1, 3))):
        place, size = draw(st.integers(0, len(whole))), draw(st.integers(0, 8))
        whole = whole[:place] + draw(PIECES | BYTES | st.just(b"")) + whole[place + size :]
    return whole


@ANY
@given(sent=SOME | spoilt() | st.binary(max_size=2_000))
def test_it_is_answered_or_ended(registry, sent):
    with socket.create_connection(("127.0.0.1", registry.port), ENDED_WITHIN_S) as client:
        client.sendall(sent)
        client.shutdown(socket.SHUT_WR)
        heard = b""
        try:
            while part := client.recv(65_536):
                heard += part
        except ConnectionResetError:
            pass
    for status, text in answers(heard):
        assert status < 500 or status in REFUSED_UNREAD or is_known(text), (status, text)


def answers(heard):
    """Status and text of each answer: there is nothing else."""
    while heard:
        head, _, heard = heard.partition(b"\r\n\r\n")
        status = int(re.match(rb"HTTP/1\.1 (\d{3}) ", head)[1])
        size = int(re.search(rb"\r\nContent-Length: (\d+)", head)[1]) if status != 100 else 0
        assert len(heard) >= size
        yield status, heard[:size].decode(errors="replace")
        heard = heard[size:]


def test_the_registry_serves_on(registry):
    assert registry.get("/v1/status/leader").status == 200
