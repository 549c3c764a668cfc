"""All connections of one listener: counted by address, checked each second, and ended in order."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from email.utils import formatdate
from typing import Any

from milkrun.registry.http.hosts import Hosts
from milkrun.registry.http.limits import Limits
from milkrun.registry.http.protocol import App, Clock, Connection
from milkrun.registry.http.reading import Cap
from milkrun.registry.refusal import Refused

BACKLOG = 2048
TICK_S = 1.0
END_S = 1.5
REFUSED_AT_MOST = 64
"""So many connections over the limit hear why; what comes beyond is cut off, or refusing would cost the files."""


class Connections:
    """The connections that there are now."""

    def __init__(
        self,
        app: App,
        listener: socket.socket,
        limits: Limits,
        tick_s: float,
        *,
        hosts: Hosts | None,
        cap: Cap | None,
    ) -> None:
        self._app = app
        self._limits = limits
        self._tick_s = tick_s
        self._hosts, self._cap = hosts, cap
        self._clock = Clock()
        self._open: set[Connection] = set()
        self._by_address: Counter[str] = Counter()
        self._refused: set[Connection] = set()
        self._none_left = asyncio.Event()
        self._listener = listener
        self._server: asyncio.Server | None = None
        self._tick()

    def __len__(self) -> int:
        return len(self._open)

    async def meet(self, tls: ssl.SSLContext | None) -> None:
        """Whoever connects from now on speaks TLS by this context, or none; who is connected already stays so."""
        more: dict[str, Any] = {}
        if tls:
            more = {
                "ssl": tls,
                "ssl_handshake_timeout": self._limits.head_s,
                "ssl_shutdown_timeout": self._limits.linger_s,
            }
        # Each server closes the socket that it was given; the kernel's queue behind it is one and the same.
        before, self._server = (
            self._server,
            await asyncio.get_running_loop().create_server(
                self._connection, sock=self._listener.dup(), backlog=BACKLOG, **more
            ),
        )
        if before:
            before.close()

    def _connection(self) -> Connection:
        return Connection(
            self._app, self._clock, self._limits, self._hosts, made=self._made, lost=self._lost, cap=self._cap
        )

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
        if self._server:
            self._server.close()
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

    def _made(self, connection: Connection) -> None:
        self._open.add(connection)
        self._by_address[connection.peer] += 1
        if self._by_address[connection.peer] > self._limits.per_address:
            self._refuse(connection, "Your IP is issuing too many concurrent connections")
        elif len(self._open) - len(self._refused) > self._limits.connections:
            self._refuse(connection, "Too many concurrent connections")

    def _refuse(self, connection: Connection, why: str) -> None:
        if len(self._refused) < REFUSED_AT_MOST:
            self._refused.add(connection)
            connection.refuse(Refused(429, why))
        else:
            connection.abort()

    def _lost(self, connection: Connection) -> None:
        self._open.discard(connection)
        self._refused.discard(connection)
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
    hosts: Hosts | None = None,
    cap: Cap | None = None,
    tls: ssl.SSLContext | None = None,
) -> AsyncIterator[Connections]:
    """`app` answers whoever connects to `listener` meanwhile; afterwards nobody is connected any more.

    Without `hosts` it answers to every name; without `cap` no body is longer than most are.
    """
    connections = Connections(app, listener, limits, tick_s, hosts=hosts, cap=cap)
    try:
        await connections.meet(tls)
        yield connections
    finally:
        await connections.end()
