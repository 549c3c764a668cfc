"""A relay of bytes to the registry that is as slow as it is told, and counts what waits in it."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from urllib.parse import urlsplit

CHUNK = 1 << 16


class Relay:
    """Listens on `listener` (or a port of its own on loopback) for `upstream`, a URL.

    `open` and `most` are its connections, now and at most; `crept` counts the answers that began to come slowly, and
    `given_up` those that nobody waited for to their end.
    """

    def __init__(self, upstream: str, listener: socket.socket | None = None) -> None:
        self._upstream = urlsplit(upstream)
        self._listener = listener or socket.create_server(("127.0.0.1", 0))
        self.url = "http://{}:{}".format(*self._listener.getsockname()[:2])
        self._first_s = self._byte_s = 0.0
        self._quick = asyncio.Event()
        self._quick.set()
        self._writers: set[asyncio.StreamWriter] = set()
        self.open = self.most = self.crept = self.given_up = 0

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[Relay]:
        server = await asyncio.start_server(self._relay, sock=self._listener)
        try:
            yield self
        finally:
            server.close()
            self.heal()
            self.cut()
            while self.open:
                await asyncio.sleep(0.01)

    def slow(self, *, first_s: float, byte_s: float) -> None:
        """Answers wait so long, and then have so long between their bytes."""
        self._first_s, self._byte_s = first_s, byte_s
        self._quick.clear()

    def heal(self) -> None:
        self._quick.set()

    def cut(self) -> None:
        """Every connection is broken."""
        for writer in list(self._writers):
            writer.transport.abort()

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.open += 1
        self.most = max(self.most, self.open)
        self._writers.add(writer)
        try:
            with contextlib.suppress(OSError):
                upstream = await asyncio.open_connection(self._upstream.hostname, self._upstream.port)
                self._writers.add(upstream[1])
                try:
                    await self._both(reader, writer, *upstream)
                finally:
                    self._writers.discard(upstream[1])
                    upstream[1].transport.abort()
        finally:
            self._writers.discard(writer)
            writer.transport.abort()
            self.open -= 1

    async def _both(self, reader, writer, up_reader, up_writer) -> None:
        """Bytes went both ways until one side ended."""
        async with asyncio.TaskGroup() as tasks:
            down = tasks.create_task(self._down(up_reader, writer))
            up = tasks.create_task(_up(reader, up_writer))
            await asyncio.wait([down, up], return_when=asyncio.FIRST_COMPLETED)
            down.cancel()
            up.cancel()

    async def _down(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(CHUNK):
                if not self._quick.is_set():
                    data = await self._creep(data, writer)
                writer.write(data)
                await writer.drain()

    async def _creep(self, data: bytes, writer: asyncio.StreamWriter) -> bytes:
        """What is left of the data when it is quick again."""
        self.crept += 1
        try:
            await self._wait(self._first_s)
            while data and not self._quick.is_set():
                writer.write(data[:1])
                await writer.drain()
                data = data[1:]
                await self._wait(self._byte_s)
        except (asyncio.CancelledError, OSError):
            self.given_up += 1
            raise
        return data

    async def _wait(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._quick.wait()


async def _up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(CHUNK):
            writer.write(data)
            await writer.drain()
