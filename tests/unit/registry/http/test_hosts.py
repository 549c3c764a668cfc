from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from milkrun.errors import InputRefused
from milkrun.registry.http.hosts import SEEN_AT_MOST, Hosts, from_elsewhere
from milkrun.registry.http.reading import Reader
from milkrun.registry.refusal import Refused

OURS = Hosts.named(("meadow.example.org", "n1"), ("registry.example.org", "Other."))


@pytest.mark.parametrize(
    "host",
    [
        *("localhost", "localhost:8500", "LocalHost:8500", "localhost.", "localhost.:1"),
        *("127.0.0.1", "127.0.0.1:8500", "10.1.2.3:80", "0.0.0.0:8500", "203.0.113.7"),
        *("[::1]", "[::1]:8500", "[2001:db8::1]:80", "[FE80::1]"),
        *("meadow.example.org", "meadow:8500", "n1", "registry.example.org:443", "other", "OTHER.:80"),
        *("consul.service.consul:8500", "n1.node.dc1.consul"),
    ],
)
def test_these_names_are_the_registrys_own(host):
    assert OURS.has(host.encode())
    assert OURS.has(host.encode()), "also when it was seen before"


@pytest.mark.parametrize(
    "host",
    [
        *(
            "evil.example",
            "evil.example:8500",
            "",
            ":8500",
            ".",
            "example.org",
            "xmeadow",
            "meadow.evil.example",
        ),
        *(
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "evilconsul",
            "consul",
            "x.consul.evil.example",
        ),
        *(
            "evil@localhost",
            "localhost@evil",
            "localhost:8500:1",
            "localhost:x",
            "localhost:123456",
            "local host",
        ),
        *(
            "::1",
            "[::1",
            "::1]",
            "[localhost]",
            "[127.0.0.1]",
            "[::1].evil.example",
            "[::1]evil",
            "127.1",
            "1",
        ),
        *(
            "localhost\0",
            "localhost, evil.example",
            "evil.example#localhost",
            "l\xf6calhost",
            "localhost\xad",
        ),
        *("\u0131.consul\xff".encode().decode("latin-1"), "registry.example.org..", "127.0.0.1.."),
    ],
)
def test_all_others_are_not(host):
    assert not OURS.has(host.encode("latin-1"))


NAME = st.from_regex(r"[a-z0-9-]{1,20}(\.[a-z0-9-]{1,20}){0,3}", fullmatch=True)


@given(st.one_of(NAME, st.text(max_size=40)), st.sampled_from(["", ":80", ".", ".:80"]))
def test_a_name_that_can_be_had_by_a_stranger_is_never_ours(name, rest):
    host = (name + rest).encode("utf-8", "replace")
    plain = name.lower().rstrip(".")
    known = {"localhost", "meadow.example.org", "meadow", "n1", "registry.example.org", "other"}
    if any(char.isalpha() for char in plain) and plain not in known and not plain.endswith(".consul"):
        has = OURS.has(host)
        assert not has or plain.startswith("["), host  # an IPv6 address


@given(st.ip_addresses(), st.integers(0, 65535))
def test_every_address_is_ours(address, port):
    text = f"[{address}]" if address.version == 6 else str(address)
    assert OURS.has(text.encode())
    assert OURS.has(f"{text}:{port}".encode())


def test_what_was_seen_takes_bounded_room():
    hosts = Hosts()
    for number in range(3 * SEEN_AT_MOST):
        assert hosts.has(f"10.0.{number // 256}.{number % 256}:8500".encode())
        assert not hosts.has(f"evil-{number}".encode())
        assert len(hosts._seen) <= SEEN_AT_MOST


@pytest.mark.parametrize(
    "name", ["", "http://x", "x:80", "a b", "*.example.org", "-x", "x..y", "ö", "a" * 64]
)
def test_what_is_no_name_is_refused_with_what_is(name):
    with pytest.raises(InputRefused, match="is not a host's name") as refused:
        Hosts.named((), (name,))
    assert "registry.example.org" in refused.value.remedy


HERE = b"127.0.0.1:8500"


@pytest.mark.parametrize(
    ("headers", "elsewhere"),
    [
        ({}, False),
        ({b"host": HERE}, False),
        ({b"host": HERE, b"origin": b"http://127.0.0.1:8500"}, False),
        ({b"host": HERE, b"origin": b"HTTP://127.0.0.1:8500"}, False),
        ({b"host": b"Localhost", b"origin": b"https://localhost"}, False),
        ({b"host": HERE, b"sec-fetch-site": b"same-origin", b"origin": b"http://other"}, False),
        ({b"host": HERE, b"sec-fetch-site": b"none"}, False),
        ({b"host": HERE, b"sec-fetch-site": b"cross-site"}, True),
        ({b"host": HERE, b"sec-fetch-site": b"same-site", b"origin": b"http://127.0.0.1:3000"}, True),
        ({b"host": HERE, b"sec-fetch-site": b""}, True),
        ({b"host": HERE, b"origin": b"null"}, True),
        ({b"host": HERE, b"origin": b""}, True),
        ({b"host": HERE, b"origin": b"http://127.0.0.1:3000"}, True),
        ({b"host": HERE, b"origin": b"http://evil.example"}, True),
        ({b"host": HERE, b"origin": b"http://evil.example/127.0.0.1:8500"}, True),
        ({b"origin": b"http://evil.example"}, True),
    ],
)
def test_a_write_of_another_origins_page_is_known_by_its_headers(headers, elsewhere):
    for method in (b"PUT", b"POST", b"DELETE", b"PATCH", b"CONNECT", b"PURGE"):
        assert from_elsewhere(method, headers) is elsewhere
    for method in (b"GET", b"HEAD", b"OPTIONS"):
        assert not from_elsewhere(method, headers)


def read(stream: bytes) -> list[int]:
    reader = Reader("", OURS)
    reader.feed(stream)
    return [each.status if isinstance(each, Refused) else 200 for each in reader.requests]


@pytest.mark.parametrize(
    ("stream", "statuses"),
    [
        (b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n" * 2, [200, 200]),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\nGET / HTTP/1.1\r\nHost: evil\r\n\r\n", [200, 421]),
        (b"GET / HTTP/1.1\r\nHost: evil\r\n\r\nGET / HTTP/1.1\r\nHost: localhost\r\n\r\n", [421]),
        (b"GET http://localhost/ HTTP/1.1\r\nHost: evil\r\n\r\n", [421]),
        (b"GET / HTTP/1.1\r\nHost:\r\n\r\n", [421]),
        (b"GET / HTTP/1.0\r\n\r\n", [200]),
        (b"GET / HTTP/1.0\r\nHost: evil\r\n\r\n", [421]),
        (b"PUT / HTTP/1.1\r\nHost: evil\r\nOrigin: http://evil\r\nContent-Length: 9\r\n\r\n", [421]),
        (b"PUT / HTTP/1.1\r\nHost: localhost\r\nOrigin: http://evil\r\nContent-Length: 9\r\n\r\n", [403]),
        (b"PUT / HTTP/1.1\r\nHost: localhost\r\norigin: http://localhost\r\n\r\n", [200]),
        (b"POST / HTTP/1.0\r\nOrigin: http://evil\r\n\r\n", [403]),
        (b"DELETE / HTTP/1.1\r\nHost: localhost\r\nSec-Fetch-Site: cross-site\r\n\r\n", [403]),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nSec-Fetch-Site: cross-site\r\n\r\n", [200]),
        (
            b"PUT / HTTP/1.1\r\nHost: localhost\r\nOrigin: http://localhost\r\nOrigin: http://evil\r\n\r\n",
            [400],
        ),
    ],
)
def test_the_reader_refuses_before_it_reads_a_body(stream, statuses):
    assert read(stream) == statuses


def test_a_refusal_shows_no_control_characters_of_the_client():
    reader = Reader("", OURS)
    reader.feed(b"GET / HTTP/1.1\r\nHost: evil\x80<b>\r\n\r\n")
    (refusal,) = reader.requests
    assert isinstance(refusal, Refused)
    assert refusal.message.isascii()
    assert "--allow-host" in refusal.message
