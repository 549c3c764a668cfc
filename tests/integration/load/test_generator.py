"""The generator against real sockets. What the server saw is compared with what the ledger says."""

import asyncio
import contextlib
import itertools
import socket
import struct
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable

import msgspec
import pytest

from milkrun import load
from milkrun.errors import UsageError
from milkrun.load import generator


class Reset(Exception):
    """The connection is to break."""


Answer = Callable[["Request"], Awaitable[bytes | None]]


class Request(msgspec.Struct):
    """One request as the server read it. `number` counts all, `on_connection` those of this connection."""

    id: str
    connection: int
    number: int
    on_connection: int


class Server:
    """Speaks HTTP by hand, so that it can also do what no good server does. `answer` gives raw bytes or None
    to close the connection; Reset resets it."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.seen: list[Request] = []
        self.connections = 0
        self.arrived = asyncio.Condition()
        self.handlers: set[asyncio.Task] = set()
        self.url = ""

    async def wait_for(self, requests: int) -> None:
        async with asyncio.timeout(20), self.arrived:
            await self.arrived.wait_for(lambda: len(self.seen) >= requests)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.handlers.add(asyncio.current_task())
        quiet = (asyncio.IncompleteReadError, asyncio.CancelledError, ConnectionError)
        try:
            with contextlib.suppress(*quiet):
                await self.converse(reader, writer, self.connections)
            writer.close()
        except Reset:
            linger_0_s = struct.pack("ii", 1, 0)
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger_0_s)
            writer.transport.abort()

    async def converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, name: int) -> None:
        for count in itertools.count(1):
            head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
            headers = dict(line.split(": ", 1) for line in head.split("\r\n")[1:] if line)
            request = Request(headers["x-request-id"], name, len(self.seen) + 1, count)
            self.seen.append(request)
            async with self.arrived:
                self.arrived.notify_all()
            reply = await self.answer(request)
            if reply is None:
                return
            writer.write(reply)
            if headers.get("connection") == "close":
                return


def ok(body: bytes = b"{}", status: str = "200 OK", extra: str = "") -> bytes:
    head = (
        f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n{extra}\r\n"
    )
    return head.encode() + body


@contextlib.asynccontextmanager
async def serving(answer: Answer) -> AsyncIterator[Server]:
    server = Server(answer)
    listener = await asyncio.start_server(server.serve, "127.0.0.1", 0, backlog=1000)
    server.url = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}/milk"
    try:
        yield server
    finally:
        listener.close()
        for handler in server.handlers:
            handler.cancel()
        await asyncio.gather(*server.handlers)


async def bottle(request: Request) -> bytes:
    version = "0.0.2" if request.number % 4 == 0 else "0.0.1"
    goat = {"service": "goat", "version": version, "instance": f"goat-{version}"}
    return ok(msgspec.json.encode({"goat": goat, "request": request.id}))


async def test_client_and_server_agree_on_every_request():
    async with serving(bottle) as server:
        figures = await load.run(server.url, rate=1000, duration_s=0.4)
    assert figures.clean
    assert figures.sent == figures.answered == len(server.seen) == 400
    assert len({request.id for request in server.seen}) == 400
    assert [(s.version, s.answered, s.share) for s in figures.shares] == [
        ("0.0.1", 300, 0.75),
        ("0.0.2", 100, 0.25),
    ]
    assert 0 < figures.latency.p50_ms <= figures.latency.p99_ms <= figures.latency.max_ms * 1.004


@pytest.mark.parametrize("connections", list(load.Connections))
async def test_no_request_is_ever_sent_twice(connections):
    """A connection that breaks under a request, new or kept, is a failed request, not a repeated one."""

    async def third_one_breaks(request: Request) -> bytes | None:
        return None if request.on_connection == 3 or request.number % 5 == 0 else await bottle(request)

    async with serving(third_one_breaks) as server:
        figures = await load.run(server.url, rate=500, duration_s=0.4, connections=connections)
    times = Counter(request.id for request in server.seen)
    assert max(times.values()) == 1
    assert len(server.seen) == figures.sent == 200
    broken = [request for request in server.seen if request.on_connection == 3 or request.number % 5 == 0]
    assert figures.failures == {"connection closed before the answer": len(broken)}


@pytest.mark.parametrize("connections", list(load.Connections))
async def test_a_request_on_a_connection_that_is_reset_is_not_sent_twice_either(connections):
    async def every_second_is_reset(request: Request) -> bytes:
        if request.number % 2 == 0:
            raise Reset
        return ok()

    async with serving(every_second_is_reset) as server:
        figures = await load.run(server.url, rate=200, duration_s=0.1, connections=connections)
    assert max(Counter(request.id for request in server.seen).values()) == 1
    assert (figures.sent, figures.answered, figures.failures) == (20, 10, {"connection reset": 10})


async def test_arrivals_do_not_wait_for_answers():
    """The server answers nobody before everybody has asked: a closed loop would never get there."""
    everybody = asyncio.Event()

    async def hold(request: Request) -> bytes:
        if request.number == 200:
            everybody.set()
        await everybody.wait()
        return ok()

    async with asyncio.timeout(10), serving(hold) as server:
        figures = await load.run(server.url, rate=1000, duration_s=0.2, timeout_s=20)
    assert figures.answered == 200
    assert figures.clean


async def test_connections_are_used_as_asked():
    async def used(connections: load.Connections) -> tuple[int, int]:
        async with serving(bottle) as server:
            figures = await load.run(server.url, rate=100, duration_s=0.4, connections=connections)
            assert figures.clean
            return server.connections, sum(request.on_connection > 1 for request in server.seen)

    assert await used(load.Connections.ONE_SHOT) == (40, 0)
    connections, reused = await used(load.Connections.KEEP_ALIVE)
    assert connections + reused == 40
    assert reused >= 1
    connections, reused = await used(load.Connections.BOTH)
    assert connections + reused == 40
    assert connections >= 21  # 20 of their own, and at least one that is kept
    assert reused >= 1


async def test_an_error_status_is_failed_and_a_redirect_is_not_followed():
    async def answer(request: Request) -> bytes:
        return (
            ok(status="503 Service Unavailable")
            if request.number % 2
            else ok(status="302 Found", extra="Location: /elsewhere\r\nSet-Cookie: a=b\r\n")
        )

    async with serving(answer) as server:
        figures = await load.run(server.url, rate=500, duration_s=0.04)
    assert len(server.seen) == 20
    assert figures.statuses == {302: 10, 503: 10}
    assert figures.failures == {"HTTP 503": 10}
    assert not figures.clean


async def test_an_answer_for_somebody_else_is_found_out():
    async def crossed(request: Request) -> bytes:
        return ok(msgspec.json.encode({"request": server.seen[0].id}))

    async with serving(crossed) as server:
        figures = await load.run(server.url, rate=500, duration_s=0.02)
    assert (figures.answered, figures.duplicated) == (1, 9)
    assert not figures.clean


async def test_a_wrong_id_in_the_header_is_found_out():
    async def crossed(request: Request) -> bytes:
        return ok(extra="X-Request-Id: load-x-1\r\n")

    async with serving(crossed) as server:
        figures = await load.run(server.url, rate=500, duration_s=0.02)
    assert figures.duplicated == 10


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort", "answer cut short"),
        (b"MOO\r\n\r\n", "not an HTTP answer"),
        (b"", "connection closed before the answer"),
    ],
)
async def test_a_broken_answer_is_failed_with_its_reason(reply, reason):
    async def broken(request: Request) -> bytes:
        return reply

    async with serving(broken) as server:
        once = load.Connections.ONE_SHOT
        figures = await load.run(server.url, rate=100, duration_s=0.04, connections=once)
    assert figures.failures == {reason: 4}


async def test_nobody_there_and_no_such_name_are_failed_with_their_reasons():
    with socket.socket() as reserved:  # bound and not listening: nobody else can get the port meanwhile
        reserved.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{reserved.getsockname()[1]}/"
        figures = await load.run(url, rate=100, duration_s=0.03)
    assert figures.failures == {"connection refused": 3}
    figures = await load.run("http://goat.invalid/", rate=100, duration_s=0.03)
    assert figures.failures == {"the host's name is not known": 3}


async def test_an_answer_that_takes_too_long_is_failed():
    async def never(request: Request) -> bytes:
        await asyncio.Event().wait()
        return b""

    async with asyncio.timeout(10), serving(never) as server:
        figures = await load.run(server.url, rate=100, duration_s=0.05, timeout_s=0.1)
        assert figures.failures == {"no complete answer within 0.1 s": 5}


async def test_an_answer_that_never_ends_is_failed():
    async def endless(request: Request) -> bytes:
        return b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nmoo"

    async with asyncio.timeout(10), serving(endless) as server:
        kept = load.Connections.KEEP_ALIVE
        figures = await load.run(server.url, rate=100, duration_s=0.02, timeout_s=0.1, connections=kept)
    assert figures.failures == {"no complete answer within 0.1 s": 2}


async def test_a_large_answer_is_read_whole_and_not_looked_into():
    async def large(request: Request) -> bytes:
        size = generator.BODY_READ_AT_MOST + 1
        return ok(b'{"service": "goat", "version": "1", "more": "'.ljust(size - 2, b"x") + b'"}')

    async with serving(large) as server:
        figures = await load.run(server.url, rate=100, duration_s=0.02)
    assert (figures.answered, figures.shares) == (2, [])


async def test_a_client_with_no_room_fails_the_arrival_and_does_not_skip_it(monkeypatch):
    monkeypatch.setattr(generator, "IN_FLIGHT_AT_MOST", 5)

    async def never(request: Request) -> bytes:
        await asyncio.Event().wait()
        return b""

    async with serving(never) as server:
        figures = await load.run(server.url, rate=5000, duration_s=0.01, timeout_s=1.0)
        assert len(server.seen) == 5
    assert figures.sent == 50
    assert figures.failures == {
        "client overloaded: 5 in flight": 45,
        "no complete answer within 1 s": 5,
    }


async def test_a_cancelled_run_gives_the_figures_so_far(monkeypatch):
    monkeypatch.setattr(generator, "TICK_S", 0.01)
    halfway = asyncio.Event()

    def look(figures: load.Figures) -> None:
        if figures.answered == 10 and figures.in_flight >= 10:
            halfway.set()

    async def first_half(request: Request) -> bytes:
        if request.number > 10:
            await asyncio.Event().wait()
        return ok()

    async with serving(first_half) as server:
        running = asyncio.Task(load.run(server.url, rate=500, duration_s=60, timeout_s=60, on_tick=look))
        await halfway.wait()
        running.cancel()
        figures = await running
    assert figures.interrupted
    assert figures.answered == 10
    assert figures.in_flight == figures.sent - 10 >= 10
    assert running.cancelling() == 0


async def test_ticks_show_the_figures_so_far(monkeypatch):
    monkeypatch.setattr(generator, "TICK_S", 0.05)
    ticks: list[load.Figures] = []
    async with serving(bottle) as server:
        figures = await load.run(server.url, rate=200, duration_s=0.5, on_tick=ticks.append)
    assert len(ticks) >= 2
    assert [tick.sent for tick in ticks] == sorted(tick.sent for tick in ticks)
    assert ticks[-1].elapsed_s <= figures.elapsed_s
    assert figures.answered == 100


@pytest.mark.parametrize(
    "url", ["", "milk", "localhost:8212/milk", "ftp://localhost/", "http://", "http://[::1/", "http://a:b/"]
)
async def test_what_is_no_http_address_is_refused(url):
    with pytest.raises(UsageError, match="not an HTTP address"):
        await load.run(url, rate=1, duration_s=1)


@pytest.mark.parametrize("value", [0, -1, float("nan"), float("inf"), 1e7])
@pytest.mark.parametrize("name", ["rate", "duration_s", "timeout_s"])
async def test_a_rate_or_time_that_cannot_be_is_refused(name, value):
    arguments = {"rate": 1.0, "duration_s": 1.0, "timeout_s": 1.0} | {name: value}
    with pytest.raises(UsageError, match="cannot be"):
        await load.run("http://127.0.0.1:1/", **arguments)
