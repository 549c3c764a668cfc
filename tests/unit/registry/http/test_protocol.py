from __future__ import annotations

import asyncio
import socket
import struct

import pytest
import structlog

from milkrun.registry.http.limits import Limits
from milkrun.registry.http.protocol import PIPELINED_AT_MOST, WRITE_BUFFER_BYTES


async def until(holds) -> None:
    async with asyncio.timeout(10):
        while not holds():
            await asyncio.sleep(0.001)


async def test_requests_on_one_connection_are_answered_with_consuls_headers(site):
    async with site.client() as client:
        client.get("/a?bc")
        head = await client.head()
        assert head.startswith(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\nDate: ")
        for line in (b"Content-Type: text/plain", b"X-Consul-Index: 7", b"X-Consul-Knownleader: true"):
            assert line + b"\r\n" in head
        assert b"Connection" not in head
        assert await client.reader.readexactly(10) == b"GET /a?bc "
        client.send(b"PUT /b HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc")
        assert await client.reply() == (200, b"PUT /b abc")


async def test_pipelined_requests_are_answered_in_their_order_though_the_first_one_waits(site):
    async with site.client() as client:
        client.get("/wait/1")
        for number in range(2, 40):
            client.get(f"/{number}")
        await until(lambda: site.asked)
        await asyncio.sleep(0.05)
        assert site.asked == ["/wait/1"]
        site.gate.set_result(None)
        assert await client.reply() == (200, b"GET /wait/1 ")
        for number in range(2, 40):
            assert await client.reply() == (200, f"GET /{number} ".encode())


async def test_a_client_that_sends_on_and_on_without_its_turn_is_not_read_any_more(site):
    async with site.client() as client:
        client.get("/wait")
        await until(lambda: site.asked)
        (connection,) = site.connections._open
        for _ in range(PIPELINED_AT_MOST):
            client.get("/a")
        await until(lambda: connection._paused)
        assert not connection._transport.is_reading()
        site.gate.set_result(None)
        for _ in range(PIPELINED_AT_MOST + 1):
            assert (await client.reply())[0] == 200
        assert connection._transport.is_reading()


async def test_a_head_is_answered_without_a_body(site):
    async with site.client() as client:
        client.send(b"HEAD /a HTTP/1.1\r\nHost: x\r\n\r\n")
        assert b"Content-Length: 8\r\n" in await client.head()
        client.get("/b")
        assert await client.reply() == (200, b"GET /b ")


@pytest.mark.parametrize(
    ("request_head", "stays"),
    [
        (b"GET /a HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", False),
        (b"GET /a HTTP/1.0\r\n\r\n", False),
        (b"GET /a HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", True),
        (b"GET /a HTTP/1.1\r\nHost: x\r\n\r\n", True),
    ],
)
async def test_the_connection_stays_when_the_client_wants_it(site, request_head, stays):
    async with site.client() as client:
        client.send(request_head)
        head = await client.head()
        assert (b"Connection: close" in head) is not stays
        assert (b"Connection: keep-alive" in head) is (stays and b"HTTP/1.0" in request_head)
        assert await client.reader.readexactly(7) == b"GET /a "
        if stays:
            client.get("/b", "Connection: close")
        assert (await client.rest()).endswith(b"GET /b " if stays else b"")


async def test_a_client_that_waits_to_hear_that_its_body_is_wanted_hears_it_in_its_turn(site):
    start = b"PUT /a HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n"
    async with site.client() as client:
        client.send(start)
        assert await client.head() == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.send(b"abc")
        assert await client.reply() == (200, b"PUT /a abc")
        client.get("/wait")
        client.send(start)
        await until(lambda: "/wait" in site.asked)
        site.gate.set_result(None)
        assert await client.reply() == (200, b"GET /wait ")
        assert await client.head() == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.send(b"abc")
        assert await client.reply() == (200, b"PUT /a abc")


async def test_a_refusal_comes_after_the_replies_before_it_and_ends_the_connection(site):
    async with site.client() as client:
        client.get("/wait")
        client.send(b"nonsense\r\n\r\n")
        await until(lambda: site.asked)
        site.gate.set_result(None)
        assert await client.reply() == (200, b"GET /wait ")
        assert (await client.rest()).startswith(b"HTTP/1.1 400")


async def test_a_client_that_has_said_its_last_word_gets_its_answers(site):
    async with site.client() as client:
        for number in range(3):
            client.get(f"/{number}")
        client.writer.write_eof()
        for number in range(3):
            assert await client.reply() == (200, f"GET /{number} ".encode())
        assert await client.rest() == b""


async def test_a_handler_hears_that_its_client_is_gone(site):
    async with site.client() as client:
        client.get("/wait/1")
        await until(lambda: site.asked)
    await until(lambda: site.left)
    assert len(site.connections) == 1  # the answer is still owed
    site.gate.set_result(None)
    await until(lambda: not len(site.connections))


async def test_a_connection_that_breaks_is_forgotten_and_its_handler_hears_it(site):
    async with site.client() as client:
        client.get("/wait/1")
        client.get("/never")
        await until(lambda: site.asked)
        held = client.writer.get_extra_info("socket")
        held.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.writer.transport.abort()
        await until(lambda: not len(site.connections))
    assert site.left == ["/wait/1"]
    site.gate.set_result(None)
    for _ in range(10):
        await asyncio.sleep(0)
    assert site.asked == ["/wait/1"]


@pytest.mark.parametrize("target", ["/mistake", "/later-mistake"])
async def test_a_mistake_of_ours_is_reported_and_its_client_is_not_left_waiting(site, target):
    reported = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context["exception"]))
    async with site.client() as client:
        client.get(target)
        assert (await client.reply())[0] == 500
        await until(lambda: reported)
    assert [type(each) for each in reported] == [KeyError]
    async with site.client() as client:
        client.get("/a")
        assert await client.reply() == (200, b"GET /a ")


async def test_a_value_that_repeats_what_a_client_sent_does_not_become_a_second_header(site):
    async with site.client() as client:
        client.send(b"PUT /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 13\r\n\r\na\r\nEvil: yes\0")
        assert b"\r\nx-echo: a  Evil: yes \r\n" in await client.head()


async def test_a_head_or_a_body_that_does_not_come_is_not_waited_for(hasty):
    slow = b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n"
    async with hasty.client() as client:
        for place in range(len(slow)):
            client.send(slow[place : place + 1])
            await asyncio.sleep(0.01)
            if client.reader._buffer:
                break
        assert (await client.reply())[0] == 408
        assert await client.rest() == b""
    async with hasty.client() as client:
        client.send(slow + b"\r\nab")
        assert (await client.reply())[0] == 408


async def test_a_head_has_its_whole_time_also_on_a_connection_that_was_idle(hasty):
    async with hasty.client() as client:
        client.get("/a")
        await client.reply()
        await asyncio.sleep(0.2)
        client.send(b"GET /b HTTP/1.1\r\nHo")
        await asyncio.sleep(0.05)
        client.send(b"st: x\r\n\r\n")
        assert await client.reply() == (200, b"GET /b ")


async def test_who_was_refused_and_stays_is_cut_off(hasty):
    async with hasty.client() as client:
        client.send(b"nonsense\r\n\r\n")
        assert (await client.rest()).startswith(b"HTTP/1.1 400")
        client.send(b"and on and on")
        await until(lambda: not len(hasty.connections))


async def test_one_that_dawdles_does_not_slow_another(hasty):
    async with hasty.client() as slow, hasty.client() as client:
        slow.send(b"GET / HTTP/1.1\r\nHo")
        client.get("/a")
        assert await client.reply() == (200, b"GET /a ")


async def test_a_connection_that_does_nothing_is_closed_but_not_one_that_waits_for_its_answer(hasty):
    async with hasty.client() as idle, hasty.client() as waiting:
        waiting.get("/wait")
        idle.get("/a")
        assert await idle.reply() == (200, b"GET /a ")
        assert await idle.rest() == b""
        await asyncio.sleep(0.5)
        hasty.gate.set_result(None)
        assert await waiting.reply() == (200, b"GET /wait ")


async def test_an_address_holds_so_many_connections_and_no_more(hasty):
    async with hasty.client() as one, hasty.client() as two:
        one.get("/wait")
        two.get("/wait")
        await until(lambda: len(hasty.asked) == 2)
        async with hasty.client() as third:
            assert (await third.reply())[0] == 429
            assert await third.rest() == b""
        await until(lambda: len(hasty.connections) == 2)
        hasty.gate.set_result(None)
        assert (await one.reply(), await two.reply()) == ((200, b"GET /wait "),) * 2
    await until(lambda: not len(hasty.connections))
    assert not hasty.connections._by_address
    async with hasty.client() as client:
        client.get("/a")
        assert (await client.reply())[0] == 200


async def test_who_does_not_read_its_replies_fills_no_memory_and_is_cut_off(hasty):
    size = 8 * WRITE_BUFFER_BYTES
    with structlog.testing.capture_logs() as logs:
        async with hasty.client() as client:
            client.writer.transport.pause_reading()
            for _ in range(5):
                client.get(f"/large/{size}")
            await until(lambda: hasty.asked)
            await until(lambda: not len(hasty.connections))
    assert len(hasty.asked) == 1
    assert [each["event"] for each in logs] == ["a client that does not read its replies is cut off"]


async def test_who_reads_slowly_but_reads_is_served(still):
    """Each time that some of its reply has gone, nearly all the time that it may read nothing goes by."""
    size = 16 * WRITE_BUFFER_BYTES
    async with still.client() as client:
        client.get(f"/large/{size}")
        client.get("/a")
        await client.head()
        (connection,) = still.connections._open
        left, times = size, 0
        while left:
            unsent = connection._transport.get_write_buffer_size()
            while left and (not unsent or connection._transport.get_write_buffer_size() >= unsent):
                read = await client.reader.read(min(left, 1 << 16))
                assert read, "it was cut off"
                left -= len(read)
            times += connection._choked
            still.connections._clock.now += 0.9 * Limits().stalled_s
            connection.check()
        assert times > 3
        assert await client.reply() == (200, b"GET /a ")


async def test_the_end_answers_who_waits_and_closes_who_does_not(site):
    async with site.client() as idle, site.client() as waiting:
        idle.get("/a")
        await idle.reply()
        waiting.get("/wait")
        await until(lambda: "/wait" in site.asked)
        async with asyncio.TaskGroup() as tasks:
            ending = tasks.create_task(site.connections.end())
            assert await idle.rest() == b""
            assert not ending.done()
            site.gate.set_result(None)
            head = await waiting.head()
            assert b"Connection: close" in head
            assert await waiting.rest() == b"GET /wait "
    assert len(site.connections) == 0


async def test_the_end_does_not_wait_for_ever(site, monkeypatch):
    monkeypatch.setattr("milkrun.registry.http.connections.END_S", 0.05)
    async with site.client() as client:
        client.get("/wait")
        await until(lambda: site.asked)
        await site.connections.end()
        await until(lambda: not len(site.connections))
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            await client.head()
