"""The DNS server: UDP and TCP on the same address, answering from the registry's own memory."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeVar, cast

from milkrun.errors import PortTaken
from milkrun.registry.access.authority import is_local
from milkrun.registry.dns.connection import Connections
from milkrun.registry.dns.responder import Responder
from milkrun.registry.engine import Engine

UDP_AT_MOST = 8192
"""More is not sent in one datagram, whatever the client takes: more would come in too many pieces."""
CONNECTIONS_AT_MOST = 256
IDLE_S = 30.0
"""How long a connection over TCP may go without a whole question."""
BACKLOG = 256

_Item = TypeVar("_Item")


@asynccontextmanager
async def answering(
    engine: Engine,
    listen: tuple[str, int],
    *,
    srv_weight_scale: int = 1,
    connections_at_most: int = CONNECTIONS_AT_MOST,
    idle_s: float = IDLE_S,
) -> AsyncIterator[None]:
    """Questions are answered meanwhile. Raises PortTaken."""
    loop = asyncio.get_running_loop()
    responder = Responder(engine, _Random(), loop.time, srv_weight_scale=srv_weight_scale)
    with contextlib.ExitStack() as held:
        datagrams = held.enter_context(_bound(listen, socket.SOCK_DGRAM, socket.IPPROTO_UDP))
        listener = held.enter_context(_bound(listen, socket.SOCK_STREAM, socket.IPPROTO_TCP))
        listener.listen(BACKLOG)
        connections = Connections(responder, at_most=connections_at_most, idle_s=idle_s)
        transport, _ = await loop.create_datagram_endpoint(lambda: Datagrams(responder), sock=datagrams)
        server = await loop.create_server(connections.accept, sock=listener, backlog=BACKLOG)
        try:
            yield
        finally:
            transport.abort()
            server.close()
            connections.close()


class Datagrams(asyncio.DatagramProtocol):
    """Answers each datagram at once; while the system takes no more answers, they are dropped."""

    def __init__(self, responder: Responder) -> None:
        self._responder = responder
        self._blocked = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Answers have a way out."""
        self._transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, addr: tuple[str | Any, int]) -> None:
        """One answer, or none."""
        if self._blocked:
            return
        if answer := self._responder.answer(data, UDP_AT_MOST, plain=True, local=is_local(addr[0])):
            self._transport.sendto(answer, addr)

    def pause_writing(self) -> None:
        """No more answers are made."""
        self._blocked = True

    def resume_writing(self) -> None:
        """Answers go on."""
        self._blocked = False


class _Random:
    """Picks without favour; it spreads load and guards nothing, so it need not be unguessable."""

    def __init__(self) -> None:
        self._random = random.Random()

    def __call__(self, items: Sequence[_Item], count: int) -> list[_Item]:
        return self._random.sample(items, min(count, len(items)))


@contextlib.contextmanager
def _bound(listen: tuple[str, int], kind: socket.SocketKind, protocol: int) -> Iterator[socket.socket]:
    host, port = listen
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, kind, protocol) as bound:
        if kind is socket.SOCK_STREAM:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            bound.bind((host, port))
        except OSError as error:
            show = f"[{host}]" if family is socket.AF_INET6 else host
            raise PortTaken(
                f"DNS cannot listen on {show}:{port}: {error.strerror}",
                remedy=f"see who does: `ss -lntup 'sport = :{port}'`, or choose another with --dns HOST:PORT",
            ) from error
        bound.setblocking(False)
        yield bound
