"""One connection: requests go to the handlers, replies go out in the order of the requests.

Handlers run without a task of their own: a request that waits for nothing is answered in the call that read it,
and one that awaits a future goes on when the future is done.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, assert_never, cast

import structlog

from milkrun.registry.http.hosts import Hosts
from milkrun.registry.http.limits import Limits
from milkrun.registry.http.message import Reply, Request, encoded
from milkrun.registry.http.reading import Cap, Phase, Reader
from milkrun.registry.refusal import Refused

PIPELINED_AT_MOST = 8
WRITE_BUFFER_BYTES = 1024 * 1024
_JOINED_BYTES_AT_MOST = 64 * 1024
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"

App = Callable[[Request], Coroutine[Any, Any, Reply]]


class Clock:
    """The time and the date header, good to a tick: no request asks the system."""

    now: float = 0.0
    date: bytes = b""


class Connection(asyncio.Protocol):
    """A client's connection. `made` is told of it and may refuse it or cut it off, `lost` that it is gone."""

    def __init__(
        self,
        app: App,
        clock: Clock,
        limits: Limits,
        hosts: Hosts | None,
        *,
        made: Callable[[Connection], None],
        lost: Callable[[Connection], None],
        cap: Cap | None = None,
    ) -> None:
        self._app, self._clock, self._limits, self._made, self._lost = app, clock, limits, made, lost
        self._hosts, self._cap = hosts, cap
        self._reader = Reader()
        self.peer = ""
        self._began = 0
        self._since = clock.now
        self._current: Request | None = None
        self._choked = self._paused = self._lingers = self._half_closes = False
        self._unsent = 0

    # The transport's calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The connection is counted, and refused when there are too many."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is none by its class
        self._transport.set_write_buffer_limits(high=WRITE_BUFFER_BYTES)
        name = transport.get_extra_info("peername")
        self.peer = str(name[0]) if name else ""
        self._half_closes = self._transport.can_write_eof()
        self._reader = Reader(self.peer, self._hosts, self._cap)
        self._made(self)

    def data_received(self, data: bytes) -> None:
        """The requests in `data` are answered, or wait for their turn."""
        reader = self._reader
        reader.feed(data)
        if reader.began != self._began:
            self._began = reader.began
            self._since = self._clock.now
        self._next()

    def eof_received(self) -> bool:
        """What was asked is still answered; a query that waits for news is answered as it stands."""
        if self._lingers or not (self._current or self._reader.requests) or not self._half_closes:
            return False  # also under TLS, where the end of what is read is the end of the connection
        self._reader.phase = Phase.NOTHING
        if self._current:
            self._current.leave()
        return True

    def connection_lost(self, _: Exception | None) -> None:
        """Nobody waits for an answer any more; a write that has begun is still carried out."""
        self._reader.phase = Phase.NOTHING
        self._reader.requests.clear()
        if self._current:
            self._current.leave()
        self._lost(self)

    def pause_writing(self) -> None:
        """No further request is begun: the client does not read its replies."""
        self._choked = True
        self._since = self._clock.now
        self._unsent = self._transport.get_write_buffer_size()

    def resume_writing(self) -> None:
        """The requests that waited for the client are answered."""
        self._choked = False
        self._since = self._clock.now
        self._next()

    # From requests to replies

    def _next(self) -> None:
        """As many of the waiting requests as can be are answered."""
        requests = self._reader.requests
        while requests and self._current is None and not self._choked:
            request = requests.popleft()
            if isinstance(request, Refused):
                self._say_no(request)
            else:
                self._current = request
                self._step(self._app(request))
        if self._reader.owes_continue and self._current is None and not requests:
            self._reader.owes_continue = False
            self._transport.write(_CONTINUE)
        full = len(requests) >= PIPELINED_AT_MOST
        if full is not self._paused and not self._transport.is_closing():
            self._paused = full
            if full:
                self._transport.pause_reading()
            else:
                self._transport.resume_reading()

    def _step(self, handler: Coroutine[Any, Any, Reply]) -> None:
        """The handler has run to its end, and its reply is sent, or to the next future that it awaits."""
        reply = Reply.text(500, "the registry made a mistake; its log says which")
        waits_for: asyncio.Future[Any] | None = None
        ended = True
        try:
            waits_for = handler.send(None)
            ended = False
        except StopIteration as end:
            reply = end.value
        finally:
            # Also after a mistake of ours, which the event loop reports: its client is not left waiting.
            if ended:
                self._send(reply)
        if ended:
            return
        if waits_for is None:
            asyncio.get_running_loop().call_soon(self._go_on, handler)
        else:
            waits_for.add_done_callback(lambda _: self._go_on(handler))

    def _go_on(self, handler: Coroutine[Any, Any, Reply]) -> None:
        self._step(handler)
        self._next()

    def _send(self, reply: Reply) -> None:
        request, self._current = self._current, None
        transport, reader = self._transport, self._reader
        if request is None or transport.is_closing():
            return
        last = request.last or reply.close or (reader.phase is Phase.NOTHING and not reader.requests)
        head = encoded(reply, self._clock.date, last=last, keep=request.old)
        if request.method == "HEAD":
            transport.write(head)
        elif len(reply.body) < _JOINED_BYTES_AT_MOST:
            transport.write(head + reply.body)
        else:
            transport.writelines((head, reply.body))
        if last:
            self._end(linger=reply.close or request.size > request.cap)
        elif reader.phase is Phase.IDLE:
            self._since = self._clock.now

    def _say_no(self, refusal: Refused) -> None:
        reply = Reply.text(refusal.status, refusal.message)
        self._transport.write(encoded(reply, self._clock.date, last=True, keep=False) + reply.body)
        self._end(linger=True)

    def _end(self, *, linger: bool) -> None:
        """Nothing more is said. A client that may still be sending is heard for a while, or it sees a reset."""
        self._reader.requests.clear()
        self._reader.phase = Phase.NOTHING
        if linger:
            self._lingers = True
            self._since = self._clock.now
            if self._half_closes:
                self._transport.write_eof()
        else:
            self._transport.close()

    # The listener's calls

    def refuse(self, refusal: Refused) -> None:
        """The connection ends with this refusal, after the replies to what was asked before."""
        self._reader.refuse(refusal)
        self._next()

    def finish(self) -> None:
        """The connection closes, after the replies that its client waits for."""
        if self._current or self._reader.requests:
            self._reader.phase = Phase.NOTHING
        elif not self._lingers:
            self._transport.close()

    def abort(self) -> None:
        """The connection is gone."""
        self._transport.abort()

    def check(self) -> None:
        """A client that takes too long over a head, a body, its replies or doing nothing is cut off."""
        past_s = self._clock.now - self._since
        if self._lingers:
            if past_s > self._limits.linger_s:
                self.abort()
        elif self._choked:
            self._check_unsent(past_s)
        else:
            self._check_reading(past_s)

    def _check_reading(self, past_s: float) -> None:
        limits = self._limits
        match self._reader.phase:
            case Phase.HEAD | Phase.BODY as phase:
                if past_s > (limits.head_s if phase is Phase.HEAD else limits.message_s):
                    self.refuse(Refused(408, "Request Timeout"))
            case Phase.IDLE:
                if past_s > limits.idle_s and self._current is None:
                    self._transport.close()
            case Phase.NOTHING:
                pass
            case phase:
                assert_never(phase)

    def _check_unsent(self, past_s: float) -> None:
        unsent = self._transport.get_write_buffer_size()
        if unsent < self._unsent:
            self._unsent, self._since = unsent, self._clock.now
        elif past_s > self._limits.stalled_s:
            structlog.get_logger("registry").warning(
                "a client that does not read its replies is cut off", client=self.peer, unsent_bytes=unsent
            )
            self.abort()
