from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from yarl import URL

from milkrun.registry.checks.target import BadTarget, Health, Target, of_address, of_grpc, of_url


@pytest.mark.parametrize(
    ("url", "host", "port", "path", "authority"),
    [
        ("http://a", "a", 80, "/", "a"),
        ("HTTPS://A.example:444/x?y=1#z", "a.example", 444, "/x?y=1", "A.example:444"),
        ("http://[::1]:8080/", "::1", 8080, "/", "[::1]:8080"),
        ("http://127.0.0.1@169.254.169.254/", "169.254.169.254", 80, "/", "169.254.169.254"),
        ("http://a:b@c:1/@d", "c", 1, "/@d", "c:1"),
    ],
)
def test_a_url_is_read_once(url, host, port, path, authority):
    web = of_url(url)
    assert (web.target, web.path, web.authority) == (Target(host, port), path, authority)


def test_a_login_is_not_part_of_the_host():
    assert of_url("http://u%40:p%3A@h/").login == ("u@", "p:")
    assert of_url("http://h/").login is None


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("ftp://a/", 'unsupported protocol scheme "ftp"'),
        ("unix:///run/docker.sock", 'unsupported protocol scheme "unix"'),
        ("http+unix://%2Frun%2Fdocker.sock/", 'unsupported protocol scheme "http+unix"'),
        ("file:///etc/passwd", 'unsupported protocol scheme "file"'),
        ("127.0.0.1:80/x", 'unsupported protocol scheme ""'),
        ("http:///x", "no Host"),
        ("http://", "no Host"),
        ("http://[::1", "net/url"),
        ("http://a:99999/", "net/url"),
        ("http://a:0/", "invalid port"),
        ("http://a\\@b/", "invalid control character"),
        ("http://a\r\nHost: b/", "invalid control character"),
        ("http://a b/", "invalid control character"),
        ("http://[fe80::1%25eth0]/", "invalid host"),
        ("http://[fe80::1%eth0]/", "invalid host"),
        ("http://１６９.２５４.１６９.２５４/", "invalid host"),
        ("http://169。254。169。254/", "invalid host"),
        ("http://a%2eb/", "invalid host"),
        (f"http://{'a' * 254}/", "invalid host"),
    ],
)
def test_a_url_that_is_none_is_refused(url, why):
    with pytest.raises(BadTarget, match=why.replace("+", r"\+")):
        of_url(url)


@pytest.mark.parametrize(
    ("address", "target"),
    [
        ("127.0.0.1:80", Target("127.0.0.1", 80)),
        ("[::1]:65535", Target("::1", 65535)),
        ("db.example.:5432", Target("db.example.", 5432)),
    ],
)
def test_an_address(address, target):
    assert of_address(address) == target


@pytest.mark.parametrize(
    "address",
    [
        "",
        "a",
        ":80",
        "a:",
        "a:0",
        "a:65536",
        "a:-1",
        "a:８０",
        "a:1_0",
        "a:http",
        "::1:80",
        "[a]:80",
        "[::1]",
        "a b:80",
        "/run/x.sock:1",
        "[::1%lo]:80",
        "[]:80",
    ],
)
def test_an_address_that_is_none_is_refused(address):
    with pytest.raises(BadTarget):
        of_address(address)


@given(
    st.one_of(st.text(), st.text(alphabet="http:/[]@\\%.#?1270afx: \r\n", max_size=40).map("http://".__add__))
)
def test_whatever_is_read_is_what_the_client_would_ask(text):
    """The judge's reading and that of the HTTP client's URL parser name the same host and port."""
    try:
        web = of_url(text)
    except BadTarget:
        return
    literal = web.target.literal
    host = f"[{literal}]" if literal and literal.version == 6 else str(literal or "192.0.2.7")
    asked = URL(f"{web.scheme}://{host}:{web.target.port}{web.path}")
    assert (asked.host, asked.port) == (host.strip("[]"), web.target.port)
    assert asked.user is None


@given(st.one_of(st.text(), st.text(alphabet="[]:.%0127ax", max_size=20)))
def test_any_text_is_an_address_or_refused(text):
    try:
        target = of_address(text)
    except BadTarget:
        return
    assert 0 < target.port < 65536
    assert target.host
    assert target.host.isascii()


@pytest.mark.parametrize(
    ("text", "host", "authority", "service"),
    [
        ("a:1", "a", "a:1", ""),
        ("a:1/", "a", "a:1", ""),
        ("[::1]:1/dairy.Goat", "::1", "[::1]:1", "dairy.Goat"),
        ("127.0.0.1:1/a/b c%20", "127.0.0.1", "127.0.0.1:1", "a/b c%20"),
    ],
)
def test_a_grpc_server_and_its_service(text, host, authority, service):
    assert of_grpc(text) == Health(target=Target(host, 1), authority=authority, service=service)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("a", "address a: missing port in address"),
        ("/x", "address : missing port in address"),
        ("unix:/run/docker.sock", "invalid port"),
        ("dns:///127.0.0.1:1", "invalid port"),
        ("169.254.169.254%2f:1", "no such host"),
        ("a\r\nb:1", "no such host"),
        ("a:1/" + "x" * 1025, "the service's name has 1025 characters; 1024 is the most"),
    ],
)
def test_a_grpc_server_that_is_none_is_refused(text, why):
    with pytest.raises(BadTarget, match=why):
        of_grpc(text)
