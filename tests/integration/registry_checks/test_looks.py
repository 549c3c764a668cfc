"""One look at a service that means no good: bounded in time, in size and in where it goes."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from milkrun.registry.checks.definition import Http, Tcp
from milkrun.registry.checks.http_probe import READ_BYTES_AT_MOST
from milkrun.registry.checks.looks import Looks
from milkrun.registry.checks.pin import system_names
from milkrun.registry.checks.reach import Reach, plain

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
OWN = "127.0.0.1"


@pytest.fixture
async def looks():
    async with Looks(Reach(door=("127.0.0.1", 8500)), system_names) as found:
        yield found


@pytest.fixture
def answering(serve, says):
    return lambda text: serve(says(text))


async def test_a_redirect_is_critical_and_followed_by_nobody(looks, serve, says):
    async with serve(says(OK)) as canary:
        for status in (b"301 Moved Permanently", b"302 Found", b"303 See Other", b"307 Temporary Redirect"):
            location = f"Location: {canary.url}\r\nRefresh: 0; url={canary.url}\r\n".encode()
            reply = b"HTTP/1.1 " + status + b"\r\n" + location + b"Content-Length: 0\r\n\r\n"
            async with serve(says(reply)) as evil:
                result = await looks.http(Http(url=evil.url), OWN, 5.0)
                assert (result.status, evil.hits) == ("critical", 1)
                assert result.output == f"HTTP GET {evil.url}: {status.decode()} Output: "
        assert canary.hits == 0


async def test_a_name_is_asked_once_and_the_connection_goes_where_it_was_judged(serve, says):
    answers = iter([["127.0.0.2"], ["127.0.0.3"], ["127.0.0.3"]])
    asked = []

    async def rebinding(host, _):
        asked.append(host)
        return next(answers)

    async with (
        serve(says(OK), host="127.0.0.2") as good,
        serve(says(OK), host="127.0.0.3") as canary,
        Looks(Reach(door=("127.0.0.1", 8500)), rebinding) as looks,
    ):
        result = await looks.http(Http(url=f"http://rebind.example:{good.port}/"), OWN, 5.0)
        assert result.status == "passing"
        assert (asked, good.hits, canary.hits) == (["rebind.example"], 1, 0)
        assert f"Host: rebind.example:{good.port}" in good.requests[0]


async def test_what_is_not_permitted_gets_no_connection(serve, says):
    """The canary listens on loopback, and stands for an address that is not permitted."""

    class Strict(Reach, frozen=True):
        def refusal(self, address, port, own):
            return super().refusal(address, port, own) if str(plain(address)) != "127.0.0.3" else "not there"

    async with serve(says(OK), host="127.0.0.3") as canary:
        async with Looks(Strict(), system_names) as looks:
            for look in (
                f"http://127.0.0.3:{canary.port}/",
                f"http://127.0.3:{canary.port}/",
                f"http://2130706435:{canary.port}/",
            ):
                result = await looks.http(Http(url=look), OWN, 5.0)
                assert (result.status, result.output) == ("critical", f'Get "{look}": not there')
            assert (await looks.tcp(Tcp(f"127.0.0.3:{canary.port}"), OWN, 5.0)).output == "not there"
            mapped = await looks.tcp(Tcp(f"[::ffff:127.0.0.3]:{canary.port}"), OWN, 5.0)
            assert mapped.output == "not there"
        assert canary.hits == 0


async def test_a_body_without_end_is_read_to_a_bound(looks, serve):
    sent = 0

    async def flood(_, writer):
        nonlocal sent
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 10000000\r\n\r\n")
        with contextlib.suppress(OSError):
            while sent < 10_000_000:
                writer.write(b"x" * 10_000)
                await writer.drain()
                sent += 10_000

    async with serve(flood) as target:
        result = await looks.http(Http(url=target.url), OWN, 5.0)
        await target.until(lambda: not target.open)
    assert result.status == "passing"
    assert len(result.body) < 4096 + 100
    assert result.body.endswith(f"x ... (only the first {READ_BYTES_AT_MOST} bytes were read)")
    assert sent < 10_000_000


async def test_a_packed_body_is_neither_asked_for_nor_unpacked(looks, serve, says):
    async with serve(
        says(b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 4\r\n\r\n\x1f\x8b\x08\x00")
    ) as target:
        result = await looks.http(Http(url=target.url), OWN, 5.0)
        assert "Accept-Encoding: identity" in target.requests[0]
    assert (result.status, len(result.body)) == ("passing", 4)


@pytest.mark.parametrize(
    ("text", "status", "output"),
    [
        (b"", "critical", 'Get "{url}": EOF'),
        (b"hello world\r\n\r\n", "critical", None),
        (b"HTTP/1.1 200 OK\r\nX: " + b"a" * 200_000 + b"\r\n\r\n", "critical", None),
        (b"HTTP/1.1 200 OK\r\n" + b"X: a\r\n" * 100_000 + b"\r\n", None, None),
        (
            b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nabc",
            "passing",
            "HTTP GET {url}: 200 OK Output: abc",
        ),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", None, None),
        (b"HTTP/1.1 200 \xff\xfe\r\nContent-Length: 0\r\n\r\n", None, None),
        (b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n", "critical", None),
        (b"\x16\x03\x01\x00\x05hello", "critical", None),
        (b"HTTP/1.1 599 \r\nContent-Length: 1\r\n\r\nx", "critical", "HTTP GET {url}: 599  Output: x"),
        (b"HTTP/1.0 204 No Content\r\n\r\n", "passing", "HTTP GET {url}: 204 No Content Output: "),
    ],
)
async def test_answers_of_all_kinds(looks, answering, text, status, output):
    async with answering(text) as target:
        result = await looks.http(Http(url=target.url), OWN, 5.0)
        assert status in (None, result.status), result
        assert output in (None, result.output.replace(target.url, "{url}")), result
        assert len(result.output) < 10_000


async def test_a_service_that_hangs_is_left_in_time(looks, serve, hangs):
    async with serve(hangs) as target:
        started = time.monotonic()
        result = await looks.http(Http(url=target.url), OWN, 0.3)
        assert (
            result.output
            == f'Get "{target.url}": context deadline exceeded (Client.Timeout exceeded while awaiting headers)'
        )
        await target.until(lambda: not target.open)
        assert time.monotonic() - started < 10


@pytest.mark.parametrize("head", [b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n", b"HTTP/1.1 200 OK\r\n"])
async def test_a_service_that_trickles_is_left_in_time(looks, serve, head):
    async def trickle(reader, writer):
        writer.write(head)
        while not reader.at_eof():
            writer.write(b"X")
            await writer.drain()
            await asyncio.sleep(0.02)

    async with serve(trickle) as target:
        result = await looks.http(Http(url=target.url), OWN, 0.5)
        await target.until(lambda: not target.open)
    # Its status counts once it is there, as with Consul; its head never ends otherwise.
    assert result.status == ("passing" if head.endswith(b"\r\n\r\n") else "critical")


async def test_what_a_check_may_say_and_what_not(looks, serve, says):
    header = {
        "X-A": ["1", "2"],
        "Host": ["foo.example"],
        "Content-Length": ["0"],
        "Transfer-Encoding": ["chunked"],
        "Connection": ["keep-alive"],
        "User-Agent": ["mine"],
    }
    async with serve(says(OK)) as target:
        await looks.http(Http(url=target.url, method="PUT", header=header, body="hello"), OWN, 5.0)
        lines = target.requests[0].split("\r\n")
    assert lines[0] == "PUT / HTTP/1.1"
    assert {
        "X-A: 1",
        "X-A: 2",
        "Host: foo.example",
        "Content-Length: 5",
        "Connection: close",
        "User-Agent: mine",
    } <= set(lines)
    assert not any(line.lower().startswith("transfer-encoding") for line in lines)


async def test_a_header_cannot_become_two(looks, serve, says):
    async with serve(says(OK)) as target:
        for header in ({"X": ["a\r\nY: b"]}, {"X\r\nY": ["b"]}, {"": ["x"]}, {"X": ["\x00"]}):
            result = await looks.http(Http(url=target.url, header=header), OWN, 5.0)
            assert result.status == "critical" or all("\nY" not in head for head in target.requests), header


async def test_all_addresses_of_a_name_are_tried(looks, serve, says):
    async with serve(says(OK)) as target:
        assert (await looks.http(Http(url=f"http://localhost:{target.port}/"), OWN, 5.0)).status == "passing"
        assert (
            await looks.tcp(Tcp(f"localhost:{target.port}"), OWN, 5.0)
        ).output == f"TCP connect localhost:{target.port}: Success"


async def test_a_certificate_is_checked_unless_the_check_says_otherwise(looks, serve, says):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(Path(__file__).parent / "self-signed.pem")
    async with serve(says(OK), ssl=context) as target:
        url = f"https://localhost:{target.port}/"
        refused = await looks.http(Http(url=url), OWN, 5.0)
        assert refused.status == "critical"
        assert "x509" in refused.output
        assert (await looks.http(Http(url=url, skip_verify=True), OWN, 5.0)).status == "passing"


@settings(max_examples=60, deadline=None)
@given(
    st.one_of(st.text(max_size=20), st.sampled_from(["GET", "HEAD", "CONNECT", "get", "OPTIONS"])),
    st.dictionaries(st.text(max_size=10), st.lists(st.text(max_size=10), max_size=2), max_size=3),
    st.text(max_size=20),
    st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=20),
    st.sampled_from(["http", "https"]),
)
async def test_any_definition_comes_to_a_result(method, header, path, body, scheme):
    """Nothing listens on port 1: what a definition can break, it breaks before."""
    async with Looks(Reach(), system_names) as looks:
        look = Http(url=f"{scheme}://127.0.0.1:1/{path}", method=method, header=header, body=body)
        result = await looks.http(look, OWN, 1.0)
        assert result.status == "critical"
        assert result.output
        assert (await looks.tcp(Tcp(path), OWN, 1.0)).status == "critical"
