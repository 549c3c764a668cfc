"""A real HAProxy that knows nothing of Milkrun finds its servers by SRV records."""

from __future__ import annotations

import asyncio
import contextlib
import csv
import io
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from ports import free_ports

from milkrun.router.haproxy import binary

HOST = "127.0.0.1"
WITHIN_S = 30.0

CONFIG = """
global
    stats socket {socket} mode 600 level admin
defaults
    mode http
    timeout connect 2s
    timeout client 5s
    timeout server 5s
resolvers registry
    nameserver milkrun {nameserver}
    accepted_payload_size 65535
    resolve_retries 2
    timeout resolve 200ms
    timeout retry 200ms
    hold valid 200ms
    hold nx 200ms
    hold obsolete 200ms
frontend door
    bind {door}
    default_backend goats
backend goats
    server-template goat {slots} _goat._tcp.service.consul resolvers registry resolve-opts allow-dup-ip init-addr none
"""


class HAProxy:
    """A running one; `weights` are those of the servers that it sends requests to, by port."""

    def __init__(self, socket: Path, door: int) -> None:
        self.door = door
        self._socket = socket

    async def show(self, what: str) -> str:
        reader, writer = await asyncio.open_unix_connection(str(self._socket))
        writer.write(f"show {what}\n".encode())
        text = (await reader.read()).decode()
        writer.close()
        return text

    async def weights(self) -> dict[int, int]:
        text = await self.show("servers state goats")
        rows = csv.DictReader(io.StringIO("\n".join(text.splitlines()[1:]).removeprefix("# ")), delimiter=" ")
        return {
            int(row["srv_port"]): int(row["srv_uweight"])
            for row in rows
            if row["srv_name"] and row["srv_addr"] != "-" and not int(row["srv_admin_state"]) & 0x20
        }

    async def until(self, wanted: dict[int, int]) -> None:
        """HAProxy says when it resolved, but only in answer to a question."""
        found: dict[int, int] = {}
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(WITHIN_S):
                while found != wanted:
                    found = await self.weights()
                    await asyncio.sleep(0.05)
        assert found == wanted


@asynccontextmanager
async def haproxy(folder: Path, nameserver: str, slots: int) -> AsyncIterator[HAProxy]:
    (door,) = free_ports(1)
    socket = folder / "s"
    config = folder / "haproxy.cfg"
    config.write_text(CONFIG.format(socket=socket, nameserver=nameserver, door=f"{HOST}:{door}", slots=slots))
    with (folder / "log").open("w") as log:
        process = await asyncio.create_subprocess_exec(
            binary.find().path, "-db", "-f", str(config), stdout=log, stderr=log
        )
        try:
            async with asyncio.timeout(WITHIN_S):
                while not socket.exists():
                    assert process.returncode is None, (folder / "log").read_text()
                    await asyncio.sleep(0.02)
            yield HAProxy(socket, door)
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()


Goat = Callable[[int], contextlib.AbstractAsyncContextManager[None]]


@asynccontextmanager
async def goat(port: int) -> AsyncIterator[None]:
    """An instance that answers each request with its port."""

    async def milk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        body = str(port).encode()
        writer.write(
            b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)
        )
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(milk, HOST, port):
        yield


async def milked(door: int) -> int:
    reader, writer = await asyncio.open_connection(HOST, door)
    writer.write(b"GET /milk HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    answer = await reader.read()
    writer.close()
    assert answer.startswith(b"HTTP/1.1 200"), answer
    return int(answer.split(b"\r\n\r\n", 1)[1])


@pytest.mark.parametrize("over", ["udp", "tcp"])
async def test_haproxy_follows_instances_and_their_weights(serve, tmp_path: Path, over: str):
    ports = free_ports(3)
    async with contextlib.AsyncExitStack() as held:
        registry = await held.enter_async_context(serve(srv_weight_scale=256))
        for port in ports:
            await held.enter_async_context(goat(port))
        nameserver = f"tcp@{HOST}:{registry.port}" if over == "tcp" else f"{HOST}:{registry.port}"
        proxy = await held.enter_async_context(haproxy(tmp_path, nameserver, 4))
        await registry.goat(0, port=ports[0], weight=90)
        await registry.goat(1, port=ports[1], weight=10)
        await proxy.until({ports[0]: 90, ports[1]: 10})
        served = [await milked(proxy.door) for _ in range(100)]
        # Round robin is exact by weight; where in its round it starts is not known.
        assert 88 <= served.count(ports[0]) <= 92

        await registry.goat(2, port=ports[2], weight=256)
        await proxy.until({ports[0]: 90, ports[1]: 10, ports[2]: 256})
        await registry.goat(1, port=ports[1], weight=33)
        await proxy.until({ports[0]: 90, ports[1]: 33, ports[2]: 256})
        await registry.check(2, "critical")
        await proxy.until({ports[0]: 90, ports[1]: 33})
        await registry.drop(0)
        await proxy.until({ports[1]: 33})
        assert {await milked(proxy.door) for _ in range(10)} == {ports[1]}
        await registry.check(2, "passing")
        await proxy.until({ports[1]: 33, ports[2]: 256})
        await registry.drop(1)
        await registry.drop(2)
        await proxy.until({})


async def test_without_the_scale_haproxy_takes_every_weight_for_one(serve, tmp_path: Path):
    """Which is why the scale exists: HAProxy divides by 256 and rounds up."""
    async with serve() as registry, haproxy(tmp_path, f"{HOST}:{registry.port}", 4) as proxy:
        await registry.goat(0, port=20_001, weight=90)
        await registry.goat(1, port=20_002, weight=10)
        await proxy.until({20_001: 1, 20_002: 1})


@pytest.mark.parametrize(("transport", "count"), [("", 100), ("tcp@", 250)])
async def test_haproxy_gets_all_that_it_has_room_for(serve, tmp_path: Path, transport: str, count: int):
    async with serve(srv_weight_scale=256) as registry:
        for number in range(count):
            await registry.goat(number, port=20_000 + number, weight=7)
        async with haproxy(tmp_path, f"{transport}{HOST}:{registry.port}", count + 20) as proxy:
            await proxy.until({20_000 + number: 7 for number in range(count)})
