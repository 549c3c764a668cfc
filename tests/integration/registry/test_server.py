from __future__ import annotations

import asyncio
import json
import resource
import signal
import socket
import time
from pathlib import Path

import pytest

from milkrun.consul import Address, Registry, Watch
from milkrun.errors import Conflict, PortTaken, RegistryUnreachable
from milkrun.registry.access.authority import Mode
from milkrun.registry.server import running, serve
from milkrun.testing.registry import embedded_registry


async def parked(engine, count):
    async with asyncio.timeout(10):
        while len(engine.parked) != count:
            await asyncio.sleep(0.005)


async def test_a_taken_port_is_named_with_what_to_do(tmp_path):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(PortTaken, match=f"127.0.0.1:{port}") as refused:
            await serve(("127.0.0.1", port), tmp_path, node="n1")
    assert f"sport = :{port}" in refused.value.remedy


async def test_a_second_registry_on_the_same_data_is_refused_while_the_first_serves(tmp_path):
    async with embedded_registry(tmp_path) as address, Registry(address) as registry:
        with pytest.raises(Conflict, match="another registry already uses"):
            await serve(("127.0.0.1", 0), tmp_path, node="n1")
        assert await registry.put("a", b"1")


async def test_what_goes_wrong_inside_is_raised_as_it_was(tmp_path):
    with pytest.raises(KeyError, match="mine"):
        async with embedded_registry(tmp_path):
            raise KeyError("mine")


async def test_cancelling_answers_the_parked_and_ends_within_two_seconds(tmp_path):
    ready = asyncio.Event()
    async with running(("127.0.0.1", 0), tmp_path, node="n1") as (engine, (_, port)):
        pass  # a free port, and the state that the next start finds
    async with asyncio.TaskGroup() as tasks:
        serving = tasks.create_task(serve(("127.0.0.1", port), tmp_path, node="n1", ready=ready.set))
        await ready.wait()
        async with Registry(Address(url=f"http://127.0.0.1:{port}")) as registry:
            await registry.put("a", b"1")
            index = (await registry.ask("GET", "/v1/kv/a")).index
            waiting = tasks.create_task(
                registry.ask("GET", "/v1/kv/a", params={"index": str(index), "wait": "5m"}, wait_s=20)
            )
            await asyncio.sleep(0.1)
            assert not waiting.done()
            began = time.monotonic()
            serving.cancel()
            answer = await waiting
            assert (answer.status, answer.index) == (200, index)
            await asyncio.wait([serving])
            assert time.monotonic() - began < 2
            with pytest.raises(RegistryUnreachable):
                await registry.get("a")
    assert serving.cancelled()
    assert engine.parked.closing


async def test_who_may_tells_it_to_leave_and_it_ends_in_order(tmp_path, unused_tcp_port):
    ready = asyncio.Event()
    token = tmp_path / "token"
    listen, url = ("127.0.0.1", unused_tcp_port), f"http://127.0.0.1:{unused_tcp_port}"
    async with asyncio.TaskGroup() as tasks:
        serving = tasks.create_task(
            serve(listen, tmp_path, node="n1", acl=Mode.DEFAULT, token_file=token, ready=ready.set)
        )
        await ready.wait()
        async with Registry(Address(url=url)) as nobody:
            assert (await nobody.ask("PUT", "/v1/agent/leave", accept=(200, 403))).status == 403
            index = (await nobody.ask("GET", "/v1/kv/a", accept=(404,))).index
            parked = {"index": str(index), "wait": "5m"}
            waiting = tasks.create_task(
                nobody.ask("GET", "/v1/kv/a", params=parked, wait_s=20, accept=(404,))
            )
            async with Registry(Address(url=url, token=token.read_text().strip())) as holder:
                await holder.put("b", b"1")
                assert (await holder.ask("PUT", "/v1/agent/leave")).status == 200
            assert (await waiting).status == 404
        async with asyncio.timeout(20):
            await serving
    async with running(listen, tmp_path, node="n1") as (engine, _):
        assert engine.machine.kv.get("b").value == b"1", "what was acknowledged is there"


async def test_a_client_that_goes_away_leaves_no_parked_query_behind(tmp_path):
    async with running(("127.0.0.1", 0), tmp_path, node="n1") as (engine, (host, port)):
        reader, writer = await asyncio.open_connection(host, port)
        writer.write(b"GET /v1/kv/a?index=99999&wait=5m HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await parked(engine, 1)
        writer.close()
        await writer.wait_closed()
        await parked(engine, 0)
        assert await reader.read() == b""


async def test_a_signal_is_the_business_of_whoever_runs_it(tmp_path):
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    async with embedded_registry(tmp_path):
        assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before


async def test_the_node_keeps_its_id_and_a_new_name_replaces_the_old_one(tmp_path):
    async with embedded_registry(tmp_path, node="old") as address, Registry(address) as registry:
        first = (await registry.ask("GET", "/v1/catalog/nodes")).body
    async with embedded_registry(tmp_path, node="new") as address, Registry(address) as registry:
        second = (await registry.ask("GET", "/v1/catalog/nodes")).body
    (one,), (two,) = json.loads(first), json.loads(second)
    assert (one["Node"], two["Node"]) == ("old", "new")
    assert one["ID"] == two["ID"]


async def test_a_watch_sees_every_state_in_order_over_a_restart(tmp_path):
    async with running(("127.0.0.1", 0), tmp_path, node="n1") as (_, (host, port)):
        pass
    async with Registry(Address(url=f"http://{host}:{port}")) as registry:
        seen = []

        async def follow() -> None:
            async for answer in Watch(registry, "/v1/kv/n", {"raw": ""}):
                if answer.status == 200:
                    seen.append(int(answer.body))
                    if seen[-1] == 3:
                        return

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(follow())
            for number in (1, 2, 3):
                async with running((host, port), tmp_path, node="n1"):
                    await registry.put("n", str(number).encode())
                    async with asyncio.timeout(10):
                        while not seen or seen[-1] < number:
                            await asyncio.sleep(0.01)
    assert seen == [1, 2, 3]


async def test_keep_alive_serves_many_requests_and_pipelined_ones(tmp_path):
    async with embedded_registry(tmp_path) as address:
        host, port = address.url.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(b"PUT /v1/kv/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n\r\n1" * 3)
        for _ in range(3):
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200")
            assert await reader.readexactly(4) == b"true"
        writer.close()


async def test_what_is_too_large_is_refused_and_the_next_request_is_served(tmp_path):
    async with embedded_registry(tmp_path) as address, Registry(address) as registry:
        host, port = address.url.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(b"PUT /v1/kv/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 6000000\r\n\r\n")
        for _ in range(60):
            writer.write(b"x" * 100_000)
            await writer.drain()
        assert (await reader.read()).startswith(b"HTTP/1.1 413")
        writer.close()
        assert await registry.put("a", b"x" * 500_000)


async def test_bytes_that_are_no_utf8_in_a_path_are_refused(tmp_path):
    async with embedded_registry(tmp_path) as address:
        host, port = address.url.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(b"GET /v1/kv/%FF HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        assert (await reader.read()).startswith(b"HTTP/1.1 400")
        writer.close()


async def test_the_daemon_takes_as_many_files_as_the_system_gives_it(start, tmp_path, unused_tcp_port):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
    try:
        async with start(tmp_path, unused_tcp_port) as running:
            limits = Path(f"/proc/{running.process.pid}/limits").read_text()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    (line,) = [each for each in limits.splitlines() if each.startswith("Max open files")]
    assert int(line.split()[3]) == min(65_536, hard if hard != resource.RLIM_INFINITY else 65_536)


async def test_a_body_far_over_the_cap_is_refused_before_it_is_sent(tmp_path):
    async with embedded_registry(tmp_path) as address:
        host, port = address.url.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(b"PUT /v1/kv/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99000000\r\n\r\n")
        async with asyncio.timeout(5):
            answer = await reader.read()
        assert answer.startswith(b"HTTP/1.1 413")
        assert b"Request body(99000000 bytes) too large, max size: 524288 bytes." in answer
        writer.close()


async def test_a_name_that_a_client_chose_cannot_add_a_header_to_the_answer(tmp_path):
    async with embedded_registry(tmp_path) as address:
        host, port = address.url.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        path = b"/v1/agent/health/service/id/x%0d%0aEvil:%20yes"
        writer.write(b"GET " + path + b" HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        head = (await reader.read()).partition(b"\r\n\r\n")[0]
        assert b"Evil: yes" in head
        assert b"\nEvil" not in head
        writer.close()


async def test_a_proxy_may_send_the_whole_address(tmp_path):
    async with embedded_registry(tmp_path) as address, Registry(address) as registry:
        await registry.put("a", b"1")
        host, port = address.url.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(
            b"GET http://registry:8500/v1/kv/a?raw HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        )
        assert (await reader.read()).endswith(b"\r\n\r\n1")
        writer.close()
