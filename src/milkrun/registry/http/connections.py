"""All connections of one listener: counted by address, checked each second, and ended in order."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from email.utils import formatdate

from milkrun.registry.http.protocol import App, Clock, Connection, Limits

BACKLOG = 2048
TICK_S = 1.0
END_S = 1.5


class Connections:
    """The connections that there are now."""

    def __init__(self, app: App, limits: Limits, tick_s: float) -> None:
        self._app = app
        self._limits = limits
        self._tick_s = tick_s
        self._clock = Clock()
        self._open: set[Connection] = set()
        self._by_address: Counter[str] = Counter()
        self._none_left = asyncio.Event()
        self._tick()

    def __len__(self) -> int:
        return len(self._open)

    def connection(self) -> Connection:
        """A protocol for the next client."""
        return Connection(self._app, self._clock, self._limits, self._made, self._lost)

    def _tick(self) -> None:
        """The clock is right again, and whoever takes too long is cut off."""
        loop = asyncio.get_running_loop()
        self._clock.now = loop.time()
        self._clock.date = formatdate(usegmt=True).encode()
        self._ticking = loop.call_later(self._tick_s, self._tick)
        for connection in list(self._open):
            connection.check()

    async def end(self) -> None:
        """No connection is left: those that wait for replies got them, if that was quick enough."""
        for connection in list(self._open):
            connection.finish()
        try:
            async with asyncio.timeout(END_S):
                while self._open:
                    self._none_left.clear()
                    await self._none_left.wait()
        except TimeoutError:
            for connection in list(self._open):
                connection.abort()
        self._ticking.cancel()

    def _made(self, connection: Connection) -> bool:
        self._open.add(connection)
        self._by_address[connection.peer] += 1
        return self._by_address[connection.peer] <= self._limits.per_address

    def _lost(self, connection: Connection) -> None:
        self._open.discard(connection)
        self._by_address[connection.peer] -= 1
        if not self._by_address[connection.peer]:
            del self._by_address[connection.peer]
        if not self._open:
            self._none_left.set()


@asynccontextmanager
async def listening(
    app: App,
    listener: socket.socket,
    *,
    limits: Limits = Limits(),  # noqa: B008  a frozen value
    tick_s: float = TICK_S,
    tls: ssl.SSLContext | None = None,
) -> AsyncIterator[Connections]:
    """`app` answers whoever connects to `listener` meanwhile; afterwards nobody is connected any more."""
    connections = Connections(app, limits, tick_s)
    server = await asyncio.get_running_loop().create_server(
        connections.connection, sock=listener, backlog=BACKLOG, ssl=tls
    )
    try:
        yield connections
    finally:
        server.close()
        await connections.end()
