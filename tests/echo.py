"""Instances that say who they are and what they were asked, and clients that say what they were answered."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, Mapping
from typing import Self

import msgspec

from milkrun.model import InstanceId
from milkrun.router.desired import Mode, Server


class Answer(msgspec.Struct, frozen=True):
    """What came back: the status, the headers as they came, who answered, and the headers that the instance saw."""

    status: int
    headers: list[tuple[str, str]]
    name: str
    seen: list[tuple[str, str]]

    def header(self, name: str) -> list[str]:
        return [value for key, value in self.headers if key == name]

    def saw(self, name: str) -> list[str]:
        return [value for key, value in self.seen if key == name]


class Echo:
    """An instance within the test. `requests` counts what it was asked; its answers wait while `gate` is cleared.

    `lines` and `heads` are what it was asked, `body` what it says in place of that.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.port = 0
        self.requests = 0
        self.lines: list[str] = []
        self.heads: list[list[tuple[str, str]]] = []
        self.body = b""
        self.gate = asyncio.Event()
        self.gate.set()
        self._connections: set[asyncio.StreamWriter] = set()

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        self._server.close()
        self.gate.set()
        for writer in list(self._connections):
            writer.close()
        await self._server.wait_closed()

    def server(self, mode: Mode = Mode.SERVE, weight: int = 1) -> Server:
        return Server(id=InstanceId(self.name), address="127.0.0.1", port=self.port, weight=weight, mode=mode)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._connections.add(writer)
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                self.requests += 1
                self.lines.append(head.decode("latin-1").partition("\r\n")[0])
                self.heads.append(_headers(head))
                await self.gate.wait()
                body = self.body or json.dumps({"name": self.name, "seen": _headers(head)}).encode()
                length = f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n\r\n"
                writer.write(length.encode() + body)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self._connections.discard(writer)
            writer.close()


class Client:
    """One connection to a router, kept open."""

    def __init__(self, address: tuple[str, int], *, source: str = "127.0.0.1") -> None:
        self._address, self._source = address, source
        self._stream: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def __aenter__(self) -> Self:
        self._stream = await asyncio.open_connection(*self._address, local_addr=(self._source, 0))
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._stream
        self._stream[1].close()

    async def ask(self, path: str = "/", headers: Mapping[str, str] | None = None) -> Answer:
        assert self._stream
        reader, writer = self._stream
        lines = [f"GET {path} HTTP/1.1", "Host: goat", *(f"{k}: {v}" for k, v in (headers or {}).items())]
        writer.write("\r\n".join([*lines, "", ""]).encode())
        return await _answer(reader)

    async def names(self, asked: Iterable[Mapping[str, str]], path: str = "/") -> list[str]:
        """Who answered each of the requests with these headers, sent without waiting in between."""
        assert self._stream
        reader, writer = self._stream
        found: list[str] = []
        pending = list(asked)
        for start in range(0, len(pending), 100):
            batch = pending[start : start + 100]
            for headers in batch:
                lines = "".join(f"{key}: {value}\r\n" for key, value in headers.items())
                writer.write(f"GET {path} HTTP/1.1\r\nHost: goat\r\n{lines}\r\n".encode())
            for _ in batch:
                found.append((await _answer(reader)).name)  # noqa: PERF401
        return found


async def _answer(reader: asyncio.StreamReader) -> Answer:
    async with asyncio.timeout(20):
        head = await reader.readuntil(b"\r\n\r\n")
        headers = _headers(head)
        body = await reader.readexactly(int(dict(headers)["content-length"]))
    status = int(head.split(b" ", 2)[1])
    said = json.loads(body) if status == 200 else {"name": "", "seen": []}
    return Answer(status, headers, said["name"], [(key, value) for key, value in said["seen"]])


def _headers(head: bytes) -> list[tuple[str, str]]:
    lines = head.decode("latin-1").split("\r\n")[1:]
    return [
        (name.lower(), value.strip()) for name, _, value in (line.partition(":") for line in lines if line)
    ]
