"""What one client may take of the registry, and what it hears when it wants more; through real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import json
import resource
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from milkrun.registry import server
from milkrun.registry.engine import Engine
from milkrun.registry.http.app import ROUTES
from milkrun.registry.http.connections import REFUSED_AT_MOST
from milkrun.registry.http.limits import KEY_CHARACTERS_AT_MOST, Limits
from milkrun.registry.server import running

FILES = 32
SMALL = Limits.by_files(FILES)
OTHER = "127.0.0.2"


class Client:
    """One connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def send(self, method: str, target: str, *lines: str, body: bytes = b"") -> None:
        hosts = () if any(line.startswith("Host:") for line in lines) else ("Host: localhost",)
        head = [f"{method} {target} HTTP/1.1", *hosts, *lines, f"Content-Length: {len(body)}", "", ""]
        self.writer.write("\r\n".join(head).encode() + body)

    async def answer(self) -> tuple[int, str]:
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode()
        length = int(head.lower().partition("content-length: ")[2].partition("\r\n")[0])
        return int(head.split()[1]), (await self.reader.readexactly(length)).decode()

    async def ask(self, method: str, target: str, *lines: str, body: bytes = b"") -> tuple[int, str]:
        self.send(method, target, *lines, body=body)
        return await self.answer()

    async def close(self) -> None:
        self.writer.close()
        with contextlib.suppress(OSError):
            await self.writer.wait_closed()


class Site:
    """A registry that serves, and its clients."""

    def __init__(self, engine: Engine, port: int, held: contextlib.AsyncExitStack) -> None:
        self.engine = engine
        self.port = port
        self._held = held

    async def client(self, source: str = "127.0.0.1") -> Client:
        streams = await asyncio.open_connection("127.0.0.1", self.port, local_addr=(source, 0))
        client = Client(*streams)
        self._held.push_async_callback(client.close)
        return client

    async def ask(self, method: str, target: str, *lines: str, body: bytes = b"") -> tuple[int, str]:
        client = await self.client()
        try:
            return await client.ask(method, target, *lines, body=body)
        finally:
            await client.close()


@asynccontextmanager
async def serving(folder: Path, **options: Any) -> AsyncIterator[Site]:
    async with (
        asyncio.timeout(120),
        running(("127.0.0.1", 0), folder, node="n1", **options) as (engine, (_, port)),
        contextlib.AsyncExitStack() as held,
    ):
        yield Site(engine, port, held)


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    async with serving(tmp_path) as found:
        yield found


@pytest.fixture
async def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Site]:
    """A registry that may open few files."""
    monkeypatch.setattr(server, "_files", lambda: FILES)
    async with serving(tmp_path) as found:
        yield found


# One request


async def test_a_key_may_be_so_long_and_no_longer(site):
    longest = "k" * KEY_CHARACTERS_AT_MOST
    assert (await site.ask("PUT", f"/v1/kv/{longest}", body=b"1"))[0] == 200
    status, text = await site.ask("PUT", f"/v1/kv/{longest}k", body=b"1")
    assert status == 413
    assert "8192" in text
    for key, wanted in ((longest, 200), (longest + "k", 413)):
        operations = json.dumps([{"KV": {"Verb": "set", "Key": key, "Value": ""}}]).encode()
        assert (await site.ask("PUT", "/v1/txn", body=operations))[0] == wanted


async def test_a_head_may_be_16_kib(site):
    rest = 16 * 1024 - len("/v1/status/leader") - 200
    assert (await site.ask("GET", "/v1/status/leader", f"X: {'x' * rest}"))[0] == 200
    status, text = await site.ask("GET", "/v1/status/leader", f"X: {'x' * (rest + 400)}")
    assert (status, text) == (431, "Request Header Fields Too Large: at most 16384 bytes")
    assert (await site.ask("GET", "/v1/kv/" + "k" * 17_000))[0] == 431


async def test_there_may_be_a_hundred_parameters(site):
    def query(count: int) -> str:
        return "&".join(f"p{number}=1" for number in range(count))

    assert (await site.ask("GET", f"/v1/catalog/services?{query(100)}"))[0] == 200
    assert await site.ask("GET", f"/v1/catalog/services?{query(101)}") == (400, "Invalid query string")


@pytest.mark.parametrize("path", ["/v1/kv/a", "/v1/txn", "/v1/agent/service/register", "/v1/session/create"])
async def test_no_body_may_be_over_512_kib_however_it_is_sent(site, path):
    body = b" " * (512 * 1024 + 1)
    assert (await site.ask("PUT", path, body=body))[0] == 413
    chunked = await site.client()
    chunked.writer.write(
        f"PUT {path} HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
    )
    chunked.writer.write(b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body))
    assert (await chunked.answer())[0] == 413


# Connections


async def test_an_address_may_hold_so_many_connections_and_the_others_still_come_in(small):
    clients = [await small.client() for _ in range(SMALL.per_address)]
    for client in clients:
        assert (await client.ask("GET", "/v1/status/leader"))[0] == 200
    refused = await small.client()
    assert await refused.answer() == (429, "Your IP is issuing too many concurrent connections")
    assert await refused.reader.read() == b""
    await refused.close()

    others = [await small.client(OTHER) for _ in range(SMALL.connections - SMALL.per_address)]
    for client in others:
        assert (await client.ask("GET", "/v1/status/leader"))[0] == 200
    assert await (await small.client(OTHER)).answer() == (429, "Too many concurrent connections")

    await clients.pop().close()
    while (client := await small.client(OTHER)) and (await client.ask("GET", "/v1/status/leader"))[0] != 200:
        await client.close()  # the registry hears of the end a moment later


async def test_refusing_costs_a_bounded_number_of_files(small):
    held = [await small.client() for _ in range(SMALL.per_address)]
    for client in held:
        await client.ask("GET", "/v1/status/leader")
    open_before = len(list(Path("/proc/self/fd").iterdir()))
    flood = [await small.client() for _ in range(3 * REFUSED_AT_MOST)]
    heard = 0
    for client in flood:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            heard += (await client.answer())[0] == 429
    assert heard >= REFUSED_AT_MOST
    for _ in range(5):
        await asyncio.sleep(0)  # one that was cut off just now closes in the loop's next turn
    others = (
        8  # this process opens and closes files of its own; without the bound it would be all of the flood
    )
    open_now = len(list(Path("/proc/self/fd").iterdir())) - len(flood)  # the clients' own ends are here too
    assert open_now <= open_before + REFUSED_AT_MOST + others
    assert REFUSED_AT_MOST + others < len(flood) / 2


# Watchers


async def parked(site: Site, count: int) -> None:
    while len(site.engine.parked) != count:
        await asyncio.sleep(0.005)


WATCH = "/v1/kv/watched?index=99999&wait=5m"


async def test_an_address_may_park_so_many_queries_and_still_read_and_write(small):
    mine = [await small.client() for _ in range(SMALL.watchers_per_address)]
    for client in mine:
        client.send("GET", WATCH)
    await parked(small, len(mine))
    more = await small.client()
    status, text = await more.ask("GET", WATCH)
    assert (status, text) == (
        429,
        f"Too many blocking queries: {SMALL.watchers_per_address} of your address wait already",
    )
    assert (await more.ask("GET", "/v1/kv/watched"))[0] == 404, "the connection stays, and reads are answered"

    rest = SMALL.watchers - SMALL.watchers_per_address
    others = [await small.client(OTHER) for _ in range(rest)]
    for client in others:
        client.send("GET", WATCH)
    await parked(small, SMALL.watchers)
    one_more = await small.client(OTHER)
    assert await one_more.ask("GET", WATCH) == (
        429,
        f"Too many blocking queries: {SMALL.watchers} wait already",
    )

    assert (await more.ask("PUT", "/v1/kv/watched", body=b"1"))[0] == 200
    for client in (*mine, *others):
        assert (await client.answer())[0] == 200
    assert len(small.engine.parked) == 0


async def test_five_thousand_watchers_of_one_address_wait_and_wake(tmp_path):
    count = 5_000
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    files = 12_500  # both ends of each connection are in this process
    assert hard == resource.RLIM_INFINITY or hard >= files, "this machine allows a process too few open files"
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, files), hard))
    try:
        async with serving(tmp_path) as site:
            clients = [await site.client() for _ in range(count)]
            for client in clients:
                client.send("GET", WATCH)
            await parked(site, count)
            assert (await site.ask("PUT", "/v1/kv/watched", body=b"1"))[0] == 200
            for client in clients:
                assert (await client.answer())[0] == 200
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


# Names


async def test_a_name_of_a_strangers_page_is_misdirected_on_every_route(site):
    for route in ROUTES:
        path = route.path + "x" if route.path.endswith("/") else route.path
        for lines in ((), ("Origin: http://evil.example",)):
            status, text = await site.ask(route.method, path, "Host: evil.example", *lines)
            assert status == 421, (route.method, path)
            assert "evil.example" in text
    assert (await site.ask("GET", "/", "Host: evil.example"))[0] == 421
    assert (await site.ask("BREW", "/no/such/route", "Host: evil.example"))[0] in (400, 421)


async def test_its_own_names_are_answered(tmp_path):
    names = ["localhost:8500", "10.1.2.3", "[::1]:8500", socket.gethostname(), "n1", "n1.node.consul"]
    async with serving(tmp_path, allow_hosts=("registry.example.org",)) as site:
        for name in (*names, "Registry.example.org:443"):
            assert (await site.ask("GET", "/v1/status/leader", f"Host: {name}"))[0] == 200, name
        assert (await site.ask("GET", "/v1/status/leader", "Host: example.org"))[0] == 421
        old = await site.client()
        old.writer.write(b"GET /v1/status/leader HTTP/1.0\r\n\r\n")
        assert (await old.answer())[0] == 200


async def test_a_page_of_another_origin_writes_nothing(site):
    form = "Content-Type: application/x-www-form-urlencoded"
    for lines in (("Origin: http://evil.example",), ("Origin: null",), ("Sec-Fetch-Site: cross-site",)):
        for method in ("POST", "PUT", "DELETE"):
            status, text = await site.ask(method, "/v1/kv/a", form, *lines, body=b"a=1")
            assert (status, text) == (403, "Forbidden: a page of another origin may not write here")
    assert (await site.ask("GET", "/v1/kv/a"))[0] == 404
    assert (await site.ask("PUT", "/v1/kv/a", "Origin: http://localhost", body=b"1"))[0] == 200
    for route in ROUTES:
        if route.method != "GET":
            path = route.path + "x" if route.path.endswith("/") else route.path
            assert (await site.ask(route.method, path, "Sec-Fetch-Site: cross-site"))[0] == 403, path
