"""DNS over TCP: bounded in connections, in what each may send ahead, and in how long it may keep silent."""

from __future__ import annotations

import asyncio
import struct
from collections import OrderedDict
from typing import cast

from milkrun.registry.access.authority import is_local
from milkrun.registry.dns.responder import Responder
from milkrun.registry.dns.wire import QUERY_AT_MOST

ANSWER_AT_MOST = 65_535
AHEAD_AT_MOST = 2 * QUERY_AT_MOST
_LENGTH = struct.Struct("!H")


class Connections:
    """The open connections; when there are too many, the one that asked least recently makes room."""

    def __init__(self, responder: Responder, *, at_most: int, idle_s: float) -> None:
        self.responder = responder
        self.idle_s = idle_s
        self._at_most = at_most
        self._open: OrderedDict[Connection, None] = OrderedDict()

    def accept(self) -> Connection:
        """The protocol of one new connection."""
        return Connection(self)

    def used(self, connection: Connection) -> None:
        """The connection is the last one to make room."""
        self._open[connection] = None
        self._open.move_to_end(connection)
        while len(self._open) > self._at_most:
            oldest, _ = self._open.popitem(last=False)
            oldest.abort()

    def gone(self, connection: Connection) -> None:
        """The connection counts no more."""
        self._open.pop(connection, None)

    def close(self) -> None:
        """All connections are closed."""
        for connection in list(self._open):
            connection.abort()


class Connection(asyncio.Protocol):
    """One client. Its questions are answered in their order, one in a turn of the event loop."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections
        self._loop = asyncio.get_running_loop()
        self._unread = bytearray()
        self._coming = False
        """Whether the next turn is arranged."""
        self._blocked = False
        """Whether the client takes no answers now."""
        self._ended = False
        """Whether the client said that no question follows."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The client has a place."""
        self._transport = cast("asyncio.Transport", transport)
        peer = transport.get_extra_info("peername")
        self._local = bool(peer) and is_local(peer[0])
        self._silence = self._loop.call_later(self._connections.idle_s, self.abort)
        self._connections.used(self)

    def connection_lost(self, _exc: Exception | None) -> None:
        """Its place is free."""
        self._silence.cancel()
        self._unread.clear()
        self._connections.gone(self)

    def data_received(self, data: bytes) -> None:
        """What came is answered, as far as it is whole."""
        self._unread += data
        if len(self._unread) > AHEAD_AT_MOST:
            self._transport.pause_reading()
        self._turn()

    def eof_received(self) -> bool:
        """What was asked is still answered."""
        self._ended = True
        self._turn()
        return True

    def pause_writing(self) -> None:
        """No answer is made that the client does not take."""
        self._blocked = True

    def resume_writing(self) -> None:
        """Answers go on."""
        self._blocked = False
        self._turn()

    def abort(self) -> None:
        """The connection is closed at once."""
        self._transport.abort()

    def _turn(self) -> None:
        if self._coming or self._blocked or self._transport.is_closing():
            return
        message = self._message()
        if message is None:
            if self._ended:
                self._transport.close()
            else:
                self._transport.resume_reading()
            return
        responder = self._connections.responder
        answer = responder.answer(message, ANSWER_AT_MOST, plain=False, local=self._local)
        if answer is None:
            self.abort()
            return
        self._silence.cancel()
        self._silence = self._loop.call_later(self._connections.idle_s, self.abort)
        self._connections.used(self)
        self._coming = True
        self._loop.call_soon(self._next)
        self._transport.writelines((_LENGTH.pack(len(answer)), answer))

    def _next(self) -> None:
        self._coming = False
        self._turn()

    def _message(self) -> bytes | None:
        """The next whole question, taken from what came; None when there is none, yet or any more."""
        if len(self._unread) < _LENGTH.size:
            return None
        (length,) = _LENGTH.unpack_from(self._unread)
        if length > QUERY_AT_MOST:
            self._connections.responder.malformed("it is too long")
            self.abort()
            return None
        end = _LENGTH.size + length
        if len(self._unread) < end:
            return None
        message = bytes(self._unread[_LENGTH.size : end])
        del self._unread[:end]
        return message
