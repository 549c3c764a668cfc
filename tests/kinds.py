"""Clients of kinds that `milkrun load` has not: HTTP/2, WebSocket sessions, slow uploads. Open loop, each with an id.

Nothing is repeated but what HTTP/2 itself asks its clients to send again, and that is counted: a stream above the
last one that a GOAWAY names, or one that was refused, was not processed (RFC 9113, 6.8 and 8.7).
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

import h2.config
import h2.connection
import h2.errors
import h2.events
import msgspec
from kinds_app import CLOSE, TEXT, frame, read_frame

ANSWER_S = 20.0
WORDS, WORD_S = 8, 0.12
PIECES, PIECE_S = 8, 0.12
"""A session, and an upload, take about a second."""
HTTP2_CONNECTIONS = 3
_GOAWAY = 7
_TRIES = 5


class Asked(msgspec.Struct):
    """One request, session or word of a session: when it began and ended, who took it, and why it failed if it did.

    `taken` is set once the head of an answer has come: from then on a session is with one instance.
    """

    kind: str
    id: str
    begun: float
    ended: float = 0.0
    by: str = ""
    why: str = ""
    taken: bool = False


class Book:
    """What the clients sent, and what came of each.

    `unprocessed` counts what was sent again because HTTP/2 asks for that, `connections` those of HTTP/2.
    """

    def __init__(self) -> None:
        self.asked: dict[str, Asked] = {}
        self.unprocessed = 0
        self.connections = 0
        self._numbers = itertools.count()

    def begins(self, kind: str) -> Asked:
        found = Asked(kind, f"{kind}-{next(self._numbers)}", time.monotonic())
        self.asked[found.id] = found
        return found

    def of(self, kind: str) -> list[Asked]:
        return [asked for asked in self.asked.values() if asked.kind == kind]

    def under_way(self, before: float) -> bool:
        """Whether something that began before that moment has not ended."""
        return any(not asked.ended and asked.begun < before for asked in self.asked.values())

    def longest_s(self, kind: str) -> float:
        return max(asked.ended - asked.begun for asked in self.of(kind))

    def counts(self) -> Counter[str]:
        return Counter(asked.kind for asked in self.asked.values())


Send = Callable[[Asked], Awaitable[None]]


class Broken(Exception):
    """An answer that is none."""


class Unprocessed(Exception):
    """The server says that it did not look at the request: it may be sent again."""


@contextlib.asynccontextmanager
async def clients(address: tuple[str, int], rates: dict[str, float]) -> AsyncIterator[Book]:
    """Requests of each kind leave at its rate a second meanwhile; afterwards each has ended."""
    book, stop = Book(), asyncio.Event()
    async with asyncio.TaskGroup() as reading:
        http2 = Http2(address, book, reading)
        send: dict[str, Send] = {
            "http2": http2.get,
            "socket": lambda asked: _session(address, asked, book),
            "post": lambda asked: _upload(address, asked),
        }
        try:
            async with asyncio.TaskGroup() as tasks:
                for kind, rate in rates.items():
                    tasks.create_task(_arrive(book, kind, send[kind], _schedule(rate, stop)))
                try:
                    yield book
                finally:
                    stop.set()
        finally:
            http2.close()


async def _schedule(rate: float, stop: asyncio.Event) -> AsyncIterator[None]:
    """A turn when each one is due, until the stop."""
    clock = asyncio.get_running_loop().time
    start = clock()
    for number in itertools.count():
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(start + number / rate):
                await stop.wait()
                return
        yield


async def _arrive(book: Book, kind: str, send: Send, schedule: AsyncIterator[None]) -> None:
    """They leave on schedule, whether or not earlier ones were answered, and each has ended."""
    async with asyncio.TaskGroup() as tasks:
        async for _ in schedule:
            tasks.create_task(_ended(book.begins(kind), send))


async def _ended(asked: Asked, send: Send) -> None:
    try:
        async with asyncio.timeout(ANSWER_S + WORDS * WORD_S):
            await send(asked)
    except (Broken, OSError, EOFError, TimeoutError, asyncio.IncompleteReadError) as error:
        asked.why = f"{type(error).__name__}: {error}"
    asked.ended = time.monotonic()


async def _upload(address: tuple[str, int], asked: Asked) -> None:
    """A POST whose body takes its time."""
    reader, writer = await asyncio.open_connection(*address)
    try:
        writer.write(
            f"POST / HTTP/1.1\r\nHost: goat\r\nX-Request-Id: {asked.id}\r\nConnection: close\r\n"
            f"Content-Length: {PIECES * 4}\r\n\r\n".encode()
        )
        for _ in range(PIECES):
            await asyncio.sleep(PIECE_S)
            writer.write(b"milk")
            await writer.drain()
        status, _, body = (await reader.read()).partition(b"\r\n\r\n")
        _answered(asked, status.split(b" ")[1:2] == [b"200"], status[:60] + b" " + body)
    finally:
        writer.close()


def _answered(asked: Asked, good: bool, body: bytes) -> None:
    if not good:
        raise Broken(body.decode(errors="replace")[:200] or "closed")
    said = json.loads(body[body.index(b"{") :])
    if said["request"] != asked.id:
        raise Broken(f"the answer is of {said['request']}")
    asked.by = said["by"]


async def _session(address: tuple[str, int], asked: Asked, book: Book) -> None:
    """A WebSocket on which each word comes back before the next one goes; the client ends it."""
    reader, writer = await asyncio.open_connection(*address)
    try:
        writer.write(
            f"GET / HTTP/1.1\r\nHost: goat\r\nX-Request-Id: {asked.id}\r\nUpgrade: websocket\r\n"
            "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n".encode()
        )
        head = await reader.readuntil(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 101"):
            raise Broken(head[:60].decode())
        asked.taken = True
        asked.by = (await _said(reader, TEXT)).decode()
        for _ in range(WORDS):
            await asyncio.sleep(WORD_S)
            word = book.begins("word")
            word.by = asked.by
            try:
                writer.write(frame(TEXT, word.id.encode(), b"goat"))
                await writer.drain()
                if (said := await _said(reader, TEXT)) != word.id.encode():
                    raise Broken(f"the echo is of {said!r}")
            except (Broken, OSError, EOFError):
                word.why = "its session ended"
                raise
            finally:
                word.ended = time.monotonic()
        writer.write(frame(CLOSE, b"", b"goat"))
        await _said(reader, CLOSE)
    finally:
        writer.close()


async def _said(reader: asyncio.StreamReader, wanted: int) -> bytes:
    kind, said = await read_frame(reader)
    if kind != wanted:
        raise Broken(f"a message of kind {kind}")
    return said


class Http2:
    """A client of HTTP/2 with a few connections, each with many requests at once."""

    def __init__(self, address: tuple[str, int], book: Book, reading: asyncio.TaskGroup) -> None:
        self._address, self._book, self._reading = address, book, reading
        self._connections: list[_Connection | None] = [None] * HTTP2_CONNECTIONS
        self._opening = [asyncio.Lock() for _ in range(HTTP2_CONNECTIONS)]
        self._turn = itertools.count()

    async def get(self, asked: Asked) -> None:
        for _ in range(_TRIES):
            connection = await self._connection(next(self._turn) % HTTP2_CONNECTIONS)
            try:
                status, body = await connection.get(asked.id)
            except Unprocessed:
                self._book.unprocessed += 1
                continue
            return _answered(asked, status == "200", body if status == "200" else status.encode() + body)
        raise Broken(f"not processed {_TRIES} times")

    async def _connection(self, place: int) -> _Connection:
        async with self._opening[place]:
            found = self._connections[place]
            if found is None or not found.takes or found.full:
                found = _Connection(*await asyncio.open_connection(*self._address))
                self._connections[place] = found
                self._reading.create_task(found.read())
                self._book.connections += 1
            return found

    def close(self) -> None:
        for connection in self._connections:
            if connection:
                connection.close()


class _Connection:
    """One connection. `takes` is false once the server wants no more requests on it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._state = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))
        self._state.initiate_connection()
        self._answers: dict[int, asyncio.Future[tuple[str, bytes]]] = {}
        self._statuses: dict[int, str] = {}
        self._bodies: dict[int, bytes] = {}
        self.takes = True
        self._flush()

    def close(self) -> None:
        self._writer.close()

    @property
    def full(self) -> bool:
        """Whether so many are under way that the server takes no more: an open loop goes on elsewhere."""
        return self._state.open_outbound_streams >= self._state.remote_settings.max_concurrent_streams

    async def get(self, request: str) -> tuple[str, bytes]:
        """The status and the body."""
        stream = self._state.get_next_available_stream_id()
        answer = self._answers[stream] = asyncio.get_running_loop().create_future()
        head = [(":method", "GET"), (":path", "/"), (":scheme", "http"), (":authority", "goat")]
        self._state.send_headers(stream, [*head, ("x-request-id", request)], end_stream=True)
        self._flush()
        try:
            return await answer
        except asyncio.CancelledError:  # nobody waits any more
            self._answers.pop(stream, None)
            if self.takes:
                self._state.reset_stream(stream, h2.errors.ErrorCodes.CANCEL)
                self._flush()
            raise

    def _flush(self) -> None:
        self._writer.write(self._state.data_to_send())

    async def read(self) -> None:
        """Every request has its answer, or why there is none. Returns when the connection ends."""
        why: Exception = EOFError("the connection ended")
        try:
            rest = b""
            while data := await self._reader.read(1 << 16):
                *whole, rest = frames(rest + data)
                for one in whole:
                    self._take(one)
                self._flush()
        except OSError as error:
            why = error
        finally:
            self.takes = False
            self._writer.close()
            for stream in list(self._answers):
                self._over(stream, why)

    def _take(self, one: bytes) -> None:
        if one[3] == _GOAWAY:  # h2 takes nothing more after one, and what is under way must end
            self.takes = False
            last = int.from_bytes(one[9:13]) & 0x7FFFFFFF
            for stream in [stream for stream in self._answers if stream > last]:
                self._over(stream, Unprocessed())
            self._close_if_done()
            return
        for event in self._state.receive_data(one):
            match event:
                case h2.events.ResponseReceived(stream_id=stream, headers=headers):
                    self._statuses[stream] = dict(headers)[":status"]
                case h2.events.DataReceived(stream_id=stream, data=data):
                    self._bodies[stream] = self._bodies.get(stream, b"") + data
                    self._state.acknowledge_received_data(event.flow_controlled_length, stream)
                case h2.events.StreamEnded(stream_id=stream):
                    self._over(stream)
                case h2.events.StreamReset(stream_id=stream, error_code=code):
                    refused = code == h2.errors.ErrorCodes.REFUSED_STREAM
                    self._over(stream, Unprocessed() if refused else Broken(f"reset: {code}"))

    def _over(self, stream: int, why: Exception | None = None) -> None:
        answer = self._answers.pop(stream, None)
        if answer is None or answer.done():
            return
        if why:
            answer.set_exception(why)
        else:
            answer.set_result((self._statuses.pop(stream), self._bodies.pop(stream, b"")))
        self._close_if_done()

    def _close_if_done(self) -> None:
        """Else HAProxy would keep the former worker for it, up to its limit for silence."""
        if not self.takes and not self._answers:
            self.close()


def frames(data: bytes) -> Iterator[bytes]:
    """Each whole frame (RFC 9113, 4.1), and in the end what is left."""
    while len(data) >= 9 and len(data) >= (end := 9 + int.from_bytes(data[:3])):
        yield data[:end]
        data = data[end:]
    yield data
