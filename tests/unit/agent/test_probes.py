import asyncio
import contextlib
import socket

import pytest

from milkrun.agent.probes import Prober
from milkrun.settings.service import HealthSettings


@contextlib.asynccontextmanager
async def answering(answer: bytes, *, then_hang=False):
    """A server that sends these bytes to whoever asks. Gives its port, and a list of what was asked."""
    asked, served = [], []

    async def serve(reader, writer):
        over = asyncio.Event()
        served.append(over)
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            asked.append(await reader.readuntil(b"\r\n\r\n"))
            writer.write(answer)
            await writer.drain()
            if then_hang:
                await reader.read()
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()
        over.set()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()[1], asked
        async with asyncio.timeout(10):
            for over in served:
                await over.wait()


async def probe(port, **settings):
    async with Prober() as prober:
        return await prober.probe("127.0.0.1", port, HealthSettings(**settings))


@pytest.mark.parametrize(
    ("status", "ok"), [(200, True), (204, True), (301, False), (404, False), (503, False)]
)
async def test_only_2xx_is_good(status, ok):
    answer = f"HTTP/1.1 {status} X\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode()
    async with answering(answer) as (port, _):
        result = await probe(port)
    assert (result.ok, result.reason) == (ok, f"GET /health: {status}")


async def test_redirects_are_not_followed():
    async with answering(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n") as (inner, inner_asked):
        answer = f"HTTP/1.1 302 X\r\nLocation: http://127.0.0.1:{inner}/\r\nContent-Length: 0\r\n\r\n"
        async with answering(answer.encode()) as (port, _):
            assert not (await probe(port)).ok
    assert inner_asked == []


async def test_nobody_listens():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    assert (await probe(port)).reason == "connection refused"


async def test_no_answer_in_time_is_bad():
    async with answering(b"", then_hang=True) as (port, _):
        result = await probe(port, timeout_s=0.1)
    assert (result.ok, result.reason) == (False, "no answer in 0.1 s")


async def test_a_good_status_with_a_body_that_does_not_come_is_bad():
    async with answering(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nx", then_hang=True) as (port, _):
        assert (await probe(port, timeout_s=0.1)).reason == "no answer in 0.1 s"


async def test_an_endless_body_is_not_read_to_its_end():
    endless = b"HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\n" + b"x" * 5000
    async with answering(endless, then_hang=True) as (port, _):
        assert (await probe(port, timeout_s=5)).ok


@pytest.mark.parametrize(
    "answer", [b"", b"nonsense\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nx"]
)
async def test_half_answers_and_nonsense_are_bad(answer):
    async with answering(answer) as (port, _):
        result = await probe(port)
    assert not result.ok
    assert result.reason
    assert "\n" not in result.reason


async def test_the_path_cannot_name_another_host():
    async with answering(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n") as (port, asked):
        for path in (f"@127.0.0.1:{port}/", f"http://127.0.0.1:{port}/", ""):
            assert not (await probe(1, path=path, timeout_s=0.2)).ok
        assert asked == []
        assert (await probe(port, path="//other.example/h?x=1")).ok
        assert asked[0].startswith(b"GET //other.example/h?x=1 HTTP/1.1")
