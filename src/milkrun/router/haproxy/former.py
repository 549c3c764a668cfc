"""What a worker counts after a reload, read to the end: it stays until it has nothing more to do and was read.

A connection to the runtime socket that is open before the reload stays with the worker that the reload makes a
former one, and keeps it from ending (2.8.25). Nothing else can ask it without a gap: it ends with its last request.
"""

from __future__ import annotations

import asyncio
import socket
import weakref
from collections.abc import Callable, Collection, Mapping

import msgspec

from milkrun.errors import DataPlaneError
from milkrun.model import ServiceName
from milkrun.router.haproxy import counting
from milkrun.router.haproxy.counting import Reading
from milkrun.router.haproxy.socket import REPLY_WAIT_S, RuntimeSocket
from milkrun.router.plane import Counted

_PROMPT = b"\n> "
_READ = 1 << 16
REPLY_BYTES_AT_MOST = 64 * 1024 * 1024

Told = Callable[[Reading], list[Counted]]
"""From what a worker said of a service to its counters."""


class Former:
    """A worker held by a connection, until it was read to the end or this object is forgotten.

    `lanes` are how many each of its services has. `counted` is what it last said of each service: all that it ever
    counted, once the worker is `over`.
    """

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._close = weakref.finalize(self, connection.close)
        self.lanes: dict[ServiceName, int] = {}
        self._each: Mapping[ServiceName, Collection[int]] = {}
        self._told: Mapping[ServiceName, Told] = {}
        self.counted: dict[ServiceName, list[Counted]] = {}
        self._until = 0.0
        self.over = False
        self.process = 0

    @staticmethod
    async def held(
        admin: RuntimeSocket,
        lanes: Mapping[ServiceName, int],
        told: Mapping[ServiceName, Told],
        each: Mapping[ServiceName, Collection[int]],
        *,
        until: float,
    ) -> Former:
        """The worker that serves now, before the reload that makes it a former one. `each` are the lanes of which all
        servers are asked for; `until` is when HAProxy makes it end (seconds since 1970).
        """
        connection = socket.socket(socket.AF_UNIX)
        connection.setblocking(False)
        former = Former(connection)
        try:
            async with asyncio.timeout(REPLY_WAIT_S):
                with admin.path() as path:
                    await asyncio.get_running_loop().sock_connect(connection, path)
        except (OSError, TimeoutError) as error:
            former.release()
            raise DataPlaneError(f"HAProxy's worker cannot be held for its counters ({error})") from error
        former.lanes, former._told, former._each, former._until = dict(lanes), told, each, until
        try:
            await former._ask("prompt")
        except DataPlaneError:
            former.release()
            raise
        return former

    async def read(self) -> bool:
        """`counted` is of now. True when that is the end of it: nothing was left to do, and the worker is let go."""
        try:
            ended = True
            for number, (service, lanes) in enumerate(self.lanes.items()):
                found = await self._reading(service, lanes, pool=False)
                self.process = found.process
                if number == 0:
                    ended = found.jobs <= 1  # then all that it says from now on is the end of it
                if counting.pooled(found, service):
                    found = await self._reading(service, lanes, pool=True)
                self.counted[service] = [
                    msgspec.structs.replace(one, until=self._until) for one in self._told[service](found)
                ]
        except DataPlaneError:
            self.release()  # it was cut off: what it said last is what there is
            return False
        if ended:
            self.release()
        return ended

    async def _reading(self, service: ServiceName, lanes: int, *, pool: bool) -> Reading:
        questions = counting.questions(service, lanes, pool=pool, each=self._each.get(service, ()))
        return counting.reading("\n".join([await self._ask(line) for line in questions]))

    async def _ask(self, command: str) -> str:
        """The reply to one command; the prompt ends it."""
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(REPLY_WAIT_S):
                await loop.sock_sendall(self._connection, command.encode("ascii") + b"\n")
                reply = b""
                while not reply.endswith(_PROMPT):
                    chunk = await loop.sock_recv(self._connection, _READ)
                    if not chunk or len(reply) > REPLY_BYTES_AT_MOST:
                        raise DataPlaneError("a former worker is gone")
                    reply += chunk
        except (OSError, TimeoutError) as error:
            raise DataPlaneError(f"a former worker does not answer ({error})") from error
        return reply.removesuffix(_PROMPT).decode("utf-8", errors="replace") + "\n"

    @property
    def in_flight(self) -> int:
        """The requests that it had when it was last read."""
        return sum(one.in_flight for counted in self.counted.values() for one in counted)

    def release(self) -> None:
        """The worker ends as soon as it likes."""
        self.over = True
        self._close()
