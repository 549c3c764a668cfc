"""The server on real sockets: what strangers may do to it, and what that does to others."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import dns.flags
import dns.message
import dns.rcode
import pytest
import uvloop
from ports import free_port

from milkrun.errors import PortTaken
from milkrun.registry.dns.connection import AHEAD_AT_MOST, Connections
from milkrun.registry.dns.responder import Responder
from milkrun.registry.dns.server import Datagrams, answering

HOST = "127.0.0.1"
READ_AT_ONCE = 256 * 1024  # by asyncio
QUESTION = dns.message.make_query("goat.service.consul", "SRV", use_edns=False)


def framed(data: bytes) -> bytes:
    return struct.pack("!H", len(data)) + data


@asynccontextmanager
async def connected(port: int) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection(HOST, port)
    try:
        yield reader, writer
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


async def answer(reader: asyncio.StreamReader) -> dns.message.Message:
    (length,) = struct.unpack("!H", await reader.readexactly(2))
    return dns.message.from_wire(await reader.readexactly(length))


async def ended(reader: asyncio.StreamReader) -> bool:
    """Whether the server closes the connection without another answer."""
    with contextlib.suppress(ConnectionError):
        return await reader.read() == b""
    return True


class Counting(Responder):
    """Counts the answers that it makes, for its connections."""

    made = 0

    def __init__(self, *arguments) -> None:
        super().__init__(*arguments)
        self.connections = Connections(self, at_most=8, idle_s=20.0)

    def answer(self, data: bytes, at_most: int, *, plain: bool, local: bool) -> bytes | None:
        self.made += 1
        return super().answer(data, at_most, plain=plain, local=local)


@asynccontextmanager
async def counting(registry) -> AsyncIterator[tuple[Counting, int]]:
    """A second listener over TCP, whose answers are counted."""
    loop = asyncio.get_running_loop()
    responder = Counting(registry.engine, lambda items, count: list(items)[:count], loop.time)
    async with await loop.create_server(responder.connections.accept, HOST, 0) as server:
        yield responder, server.sockets[0].getsockname()[1]
        responder.connections.close()


async def test_instances_are_found_by_udp_and_tcp(serve):
    async with asyncio.timeout(20), serve() as registry:
        for number in range(3):
            await registry.goat(number)
        await registry.check(2, "critical")
        for tcp in (False, True):
            message = await registry.ask(tcp=tcp)
            assert sorted(each.to_text() for each in message.answer[0]) == ["10.0.0.0", "10.0.0.1"]
        await registry.drop(0)
        assert [each.to_text() for each in (await registry.ask()).answer[0]] == ["10.0.0.1"]
        await registry.drop(1)
        assert (await registry.ask()).rcode() == dns.rcode.NXDOMAIN


@pytest.mark.parametrize("payload", [0, 1232, 4096, 8192, 65535])
@pytest.mark.parametrize("kind", ["A", "SRV", "ANY"])
async def test_what_is_truncated_over_udp_is_whole_over_tcp(serve, kind: str, payload: int):
    async with asyncio.timeout(20), serve() as registry:
        registry.many_goats(400)
        short = await registry.ask(kind=kind, payload=payload)
        whole = await registry.ask(kind=kind, tcp=True)
        assert len(whole.answer[0]) == 400
        assert not whole.flags & dns.flags.TC
        assert bool(short.flags & dns.flags.TC) == (len(short.answer[0]) < 400)
        assert set(short.answer[0]) <= set(whole.answer[0])


async def test_junk_is_survived(serve):
    noise = random.Random(1)
    wire = QUESTION.to_wire()
    async with asyncio.timeout(20), serve() as registry:
        await registry.goat(1)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            for _ in range(2000):
                data = bytearray(wire if noise.random() < 0.5 else noise.randbytes(noise.randrange(600)))
                for _ in range(noise.randrange(1, 4)):
                    if data:
                        data[noise.randrange(len(data))] = noise.randrange(256)
                client.sendto(data, (HOST, registry.port))
                await asyncio.sleep(0)
        assert (await registry.ask()).answer
        assert (await registry.ask(tcp=True)).answer


async def test_questions_sent_ahead_are_answered_in_their_order(serve):
    async with asyncio.timeout(20), serve() as registry:
        await registry.goat(1)
        queries = [dns.message.make_query("goat.service.consul", "A", use_edns=False) for _ in range(500)]
        async with connected(registry.port) as (reader, writer):
            writer.write(b"".join(framed(query.to_wire()) for query in queries))
            writer.write_eof()
            assert [(await answer(reader)).id for _ in queries] == [query.id for query in queries]
            assert await ended(reader)


async def test_a_question_may_come_in_pieces(serve):
    async with asyncio.timeout(20), serve() as registry:
        await registry.goat(1)
        async with connected(registry.port) as (reader, writer):
            for byte in framed(QUESTION.to_wire()):
                writer.write(bytes([byte]))
                await writer.drain()
                await asyncio.sleep(0)
            assert (await answer(reader)).answer


@pytest.mark.parametrize(
    "data",
    [
        struct.pack("!H", 65535),
        framed(b"junk"),
        framed(b""),
        framed(QUESTION.to_wire()[:2] + b"\x80" + QUESTION.to_wire()[3:]),
    ],
    ids=["longer than any question", "junk", "nothing", "an answer"],
)
async def test_what_cannot_be_a_question_ends_the_connection(serve, data: bytes):
    async with asyncio.timeout(20), serve() as registry, connected(registry.port) as (reader, writer):
        writer.write(data)
        assert await ended(reader)


async def test_a_connection_that_never_asks_is_closed(serve):
    async with asyncio.timeout(20), serve(idle_s=0.1) as registry, connected(registry.port) as (reader, _):
        assert await ended(reader)


async def test_a_silent_connection_is_closed(serve):
    """One that sends a byte now and then is silent too: only whole questions count."""
    async with (
        asyncio.timeout(20),
        serve(idle_s=0.3) as registry,
        connected(registry.port) as (reader, writer),
    ):
        writer.write(framed(QUESTION.to_wire()))
        await answer(reader)
        for byte in framed(QUESTION.to_wire())[:-1]:
            if reader.at_eof():
                break
            with contextlib.suppress(ConnectionError):
                writer.write(bytes([byte]))
                await writer.drain()
            await asyncio.sleep(0.05)
        assert await ended(reader)


async def test_too_many_connections_make_room_for_new_ones(serve):
    async with (
        asyncio.timeout(20),
        serve(connections_at_most=8) as registry,
        contextlib.AsyncExitStack() as held,
    ):
        await registry.goat(1)
        first, first_writer = await held.enter_async_context(connected(registry.port))
        others = [await held.enter_async_context(connected(registry.port)) for _ in range(7)]
        # The first one is used, so the second is the one that asked least recently.
        first_writer.write(framed(QUESTION.to_wire()))
        assert (await answer(first)).answer
        assert (await registry.ask(tcp=True)).answer
        assert await ended(others[0][0])
        first_writer.write(framed(QUESTION.to_wire()))
        assert (await answer(first)).answer


async def test_ten_thousand_instances_hold_nobody_up(serve):
    """What does not fit even in TCP's 64 KiB is told too; HTTP is answered between two questions."""
    async with asyncio.timeout(60), serve() as registry:
        registry.many_goats(10_000)
        message = await registry.ask(kind="SRV", tcp=True)
        assert message.flags & dns.flags.TC
        assert len(message.answer[0]) > 800
        async with (
            counting(registry) as (responder, port),
            connected(registry.http[1]) as (http, ask),
            connected(port) as (reader, writer),
        ):
            writer.write(framed(QUESTION.to_wire()) * 200)
            await answer(reader)
            ask.write(b"GET /v1/status/leader HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert await http.readline() == b"HTTP/1.1 200 OK\r\n"
            assert responder.made < 50


async def test_for_a_client_that_takes_no_answers_none_are_made(serve):
    """Neither are its questions read without end: what it asks is 800 kB, the answers would be a gigabyte."""
    async with asyncio.timeout(30), serve() as registry, counting(registry) as (responder, port):
        registry.many_goats(800)
        loop = asyncio.get_running_loop()
        with socket.socket() as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.setblocking(False)
            await loop.sock_connect(client, (HOST, port))
            await loop.sock_sendall(client, framed(QUESTION.to_wire()) * 20_000)
            before = -1
            while responder.made != before:
                before = responder.made
                await asyncio.sleep(0.5)
            (unread,) = [len(each._unread) for each in responder.connections._open]
        assert 0 < responder.made < 500
        assert unread <= AHEAD_AT_MOST + READ_AT_ONCE


async def test_a_client_that_was_slow_gets_all_its_answers(serve):
    async with asyncio.timeout(30), serve() as registry, counting(registry) as (responder, port):
        registry.many_goats(800)
        async with connected(port) as (reader, writer):
            writer.write(framed(QUESTION.to_wire()) * 300)
            before = -1
            while responder.made != before:
                before = responder.made
                await asyncio.sleep(0.3)
            assert responder.made < 300
            for _ in range(300):
                (length,) = struct.unpack("!H", await reader.readexactly(2))
                await reader.readexactly(length)


async def test_while_the_system_takes_no_datagrams_none_are_made(serve):
    async with asyncio.timeout(20), serve() as registry, counting(registry) as (responder, _):
        loop = asyncio.get_running_loop()
        transport, protocol = await loop.create_datagram_endpoint(
            lambda: Datagrams(responder), local_addr=(HOST, 0)
        )
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.setblocking(False)
            client.connect(transport.get_extra_info("sockname"))
            # What the loop calls when the socket's buffer is full.
            protocol.pause_writing()
            client.send(QUESTION.to_wire())
            await registry.ask()
            assert responder.made == 0
            protocol.resume_writing()
            client.send(QUESTION.to_wire())
            assert await loop.sock_recv(client, 512)
        transport.close()


@pytest.mark.parametrize("kind", [socket.SOCK_DGRAM, socket.SOCK_STREAM])
async def test_a_taken_port_is_told_with_what_to_do(serve, kind):
    async with asyncio.timeout(20), serve() as registry:
        with socket.socket(socket.AF_INET, kind) as other:
            other.bind((HOST, port := free_port()))
            with pytest.raises(
                PortTaken, match=f"DNS cannot listen on {HOST}:{port}: Address already in use"
            ) as caught:
                async with answering(registry.engine, (HOST, port)):
                    pass
        assert "--dns" in caught.value.remedy
        async with answering(registry.engine, (HOST, port)):
            pass


async def test_it_ends_with_open_connections(serve):
    async with asyncio.timeout(20):
        async with serve() as registry:
            reader, writer = await asyncio.open_connection(HOST, registry.port)
            writer.write(framed(QUESTION.to_wire()))
            await answer(reader)
        assert await ended(reader)
        writer.close()


def test_it_serves_on_the_event_loop_of_the_daemons(serve):
    async def asked() -> None:
        async with asyncio.timeout(20), serve() as registry:
            registry.many_goats(100)
            short = await registry.ask(kind="SRV")
            assert short.flags & dns.flags.TC
            assert len((await registry.ask(kind="SRV", tcp=True)).answer[0]) == 100
            async with connected(registry.port) as (reader, writer):
                writer.write(framed(QUESTION.to_wire()) * 200)
                writer.write_eof()
                for _ in range(200):
                    await answer(reader)
                assert await ended(reader)

    uvloop.run(asked())
