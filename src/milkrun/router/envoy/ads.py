"""The discovery server that Envoy asks for its configuration: gRPC on a UNIX socket in the router's folder.

Any Envoy that may open the socket gets what the router's own gets, which is the one waited for. Where the operator
wants it, others ask by TCP (`outside.py`) and get what their node id says (`strangers.py`), and report what they carry
(`loads.py`).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections import Counter
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import grpc
import structlog
from envoy.service.discovery.v3 import ads_pb2_grpc
from envoy.service.discovery.v3.discovery_pb2 import DiscoveryRequest, DiscoveryResponse
from envoy.service.load_stats.v3 import lrs_pb2_grpc
from google.protobuf.any_pb2 import Any as AnyMessage

from milkrun.errors import DataPlaneError, InputRefused, NotFound
from milkrun.router.envoy.bootstrap import ADS_SOCKET
from milkrun.router.envoy.conversation import Answer, Conversation, Request
from milkrun.router.envoy.load_desk import LoadDesk
from milkrun.router.envoy.loads import Loads
from milkrun.router.envoy.outside import Outside
from milkrun.router.envoy.resources import Kind, Snapshot
from milkrun.router.envoy.strangers import Asked, asked
from milkrun.router.envoy.tls import credentials

SETTLED_WAIT_S = 5.0
AGAIN_S = 2.0
ERROR_CHARACTERS_AT_MOST = 800
STRANGERS_AT_MOST = 1000
STRANGERS_BYTES_AT_MOST = 4 * 1024 * 1024
"""Of a request: it names what an Envoy has, a cluster for each version."""
SILENT_MS = 30_000
"""After that, a stranger is asked whether it is still there."""
SPEAKS_S = 5.0
"""So soon an Envoy that asks reports what it carries, if it ever does."""
_NO_LIMIT = -1

ForOther = Callable[[Asked], Snapshot]


class Ads:
    """Tells each Envoy that asks what it should have. `node` is the id of the router's own."""

    def __init__(self, folder: Path, node: str) -> None:
        self._folder = folder
        self._node = node
        self._snapshot: Snapshot | None = None
        self._for_other: ForOther | None = None
        self._server: grpc.aio.Server | None = None
        self._outside: grpc.aio.Server | None = None
        self._again_at = 0.0
        self._streams: dict[Conversation, _Stream] = {}
        self._own: Conversation | None = None
        self._heard = asyncio.Condition()
        self._published = 0
        self.loads = Loads()
        self._log = structlog.get_logger("envoy")
        self.closed = ""
        """Why others cannot ask at the address that was named; empty when they can, or should not."""

    async def start(self, snapshot: Snapshot) -> None:
        """It answers. Not before there is something to say: an empty answer would take everything away."""
        self._snapshot = snapshot
        if self._server:
            return
        server = grpc.aio.server(
            options=[
                ("grpc.max_receive_message_length", _NO_LIMIT),
                ("grpc.max_send_message_length", _NO_LIMIT),
            ]
        )
        ads_pb2_grpc.add_AggregatedDiscoveryServiceServicer_to_server(_Desk(self.talk), server)
        descriptor = os.open(
            self._folder, os.O_PATH | os.O_DIRECTORY
        )  # whatever the length of the folder's path
        try:
            server.add_insecure_port(f"unix:/proc/self/fd/{descriptor}/{ADS_SOCKET}")
        except RuntimeError as error:
            raise DataPlaneError(f"the discovery server cannot listen in {self._folder}: {error}") from error
        finally:
            os.close(descriptor)
        (self._folder / ADS_SOCKET).chmod(0o600)
        await server.start()
        self._server = server

    async def open(self, place: Outside | None, for_other: ForOther) -> None:
        """Others may ask there, as soon as it can be had: `closed` says why not, and another call tries again."""
        self._for_other = for_other
        now = asyncio.get_running_loop().time()
        if place is None or self._outside or now < self._again_at:
            return
        self._again_at = now + AGAIN_S
        try:
            loads = LoadDesk(self.loads, self._followed_by, STRANGERS_AT_MOST)
            self._outside = await _listening(place, _Desk(self.talk_outside), loads)
            self.closed = ""
        except (OSError, RuntimeError) as error:
            host, port = place.listen
            self.closed = f"other Envoys cannot ask at {host} port {port}: {error}"

    async def stop(self) -> None:
        """It answers nobody; each Envoy goes on with what it has."""
        servers, self._server, self._outside = (self._server, self._outside), None, None
        self._again_at = 0.0
        for server in servers:
            if server:
                await server.stop(grace=None)

    def publish(self, snapshot: Snapshot) -> int:
        """From now on every Envoy should have this, and others what `open` says that they get. Returns the number of
        this wish.
        """
        self._snapshot = snapshot
        self._published += 1
        others: dict[Asked, Snapshot | None] = {}
        for conversation, stream in self._streams.items():
            new: Snapshot | None = snapshot
            if (who := stream.asked) is not None:
                if who not in others:
                    others[who] = self._other(who)
                new = others[who]
            if new:
                conversation.wish(new)
                stream.news.set()
            stream.wish = self._published
            stream.note()
        return self._published

    @property
    def silent(self) -> list[str]:
        """The node ids of others that ask, and for SPEAKS_S have not reported what they carry."""
        by = asyncio.get_running_loop().time() - SPEAKS_S
        asking = Counter(
            stream.node for stream in self._streams.values() if stream.asked and stream.since < by
        )
        reporting = Counter(reporter.node for reporter in self.loads.reporters)
        return sorted((asking - reporting).elements())

    def _followed_by(self, node: str) -> int:
        """The newest wish that all Envoys of this node id have followed. Nobody waits for one that does not ask."""
        followed = (
            stream.followed for stream in self._streams.values() if stream.asked and stream.node == node
        )
        return min(followed, default=self._published)

    def _other(self, who: Asked) -> Snapshot | None:
        """None when the router has nothing for it any more: then it keeps what it has."""
        try:
            return self._for_other(who) if self._for_other else None
        except (DataPlaneError, InputRefused, NotFound) as error:
            self._log.warning("another Envoy keeps what it has", whose=who.whose, why=str(error))
            return None

    async def settled(self, within_s: float = SETTLED_WAIT_S) -> dict[Kind, str]:
        """The router's own Envoy has taken all, but for what it refuses: why, by kind. Raises DataPlaneError when
        it does not answer.
        """
        try:
            async with asyncio.timeout(within_s), self._heard:
                await self._heard.wait_for(lambda: self._own is not None and self._own.settled)
        except TimeoutError as error:
            what = (
                "does not ask for its configuration"
                if self._own is None
                else "did not take its configuration"
            )
            raise DataPlaneError(f"Envoy {what} within {within_s:.0f} s") from error
        return self._own.refused if self._own else {}

    async def talk(self, requests: AsyncIterator[DiscoveryRequest], context: Any) -> None:
        """One Envoy's stream on the router's own socket, until it ends."""
        if self._snapshot is None:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "the router does not know yet what to serve")
            return
        await self._talk(_Stream(self._snapshot), requests, context)

    async def talk_outside(self, requests: AsyncIterator[DiscoveryRequest], context: Any) -> None:
        """The stream of an Envoy elsewhere. Only its first request says who it is."""
        if sum(stream.asked is not None for stream in self._streams.values()) >= STRANGERS_AT_MOST:
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "too many Envoys ask this router")
        if self._for_other is None:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "the router does not know yet what to serve")
            return
        try:
            first = await anext(aiter(requests))
            fields = first.node.metadata.fields
            who = asked(first.node.id, fields["listen"].string_value if "listen" in fields else "")
            snapshot = self._for_other(who)
        except StopAsyncIteration:
            return
        except (InputRefused, NotFound, DataPlaneError) as error:
            code = grpc.StatusCode.INVALID_ARGUMENT
            if isinstance(error, NotFound):
                code = grpc.StatusCode.NOT_FOUND
            self._log.warning("another Envoy is refused", node=first.node.id[:200], why=str(error))
            await context.abort(code, str(error))
            return
        self._log.info("another Envoy asks", node=first.node.id[:200], peer=context.peer())
        stream = _Stream(snapshot, who, first.node.id, self._published)
        await self._talk(stream, requests, context, first)

    async def _talk(
        self,
        stream: _Stream,
        requests: AsyncIterator[DiscoveryRequest],
        context: Any,
        first: DiscoveryRequest | None = None,
    ) -> None:
        conversation = stream.conversation
        self._streams[conversation] = stream
        try:
            async with asyncio.TaskGroup() as tasks:
                speaker = tasks.create_task(_speak(stream, context))
                if first:
                    await self._hear(stream, first)
                async for request in requests:
                    await self._hear(stream, request)
                speaker.cancel()
        finally:
            del self._streams[conversation]
            if self._own is conversation:
                self._own = None

    async def _hear(self, stream: _Stream, message: DiscoveryRequest) -> None:
        try:
            kind = Kind(message.type_url)
        except ValueError:
            return  # nothing of that kind is served
        own = stream.asked is None and message.node.id == self._node
        if own:  # only the first request of a stream has it
            self._own = stream.conversation
        error = message.error_detail.message[:ERROR_CHARACTERS_AT_MOST]
        if message.HasField("error_detail"):
            error = error or "it does not say why"
            self._log.error("Envoy refuses its configuration", kind=kind.name.lower(), why=error)
        names = frozenset(message.resource_names)
        async with self._heard:
            stream.conversation.hear(
                Request(kind=kind, names=names, nonce=message.response_nonce, error=error)
            )
            self._heard.notify_all()
        stream.note()
        stream.news.set()


class _Stream:
    """One Envoy's stream; `asked` is None where it gets what the router's own gets.

    `wish` is the number of what it should have, `followed` that of the newest that it has.
    """

    def __init__(self, snapshot: Snapshot, who: Asked | None = None, node: str = "", wish: int = 0) -> None:
        self.conversation = Conversation(snapshot)
        self.news = asyncio.Event()
        self.asked = who
        self.node = node
        self.wish = wish
        self.followed = 0
        self.since = asyncio.get_running_loop().time()

    def note(self) -> None:
        """What it has followed by now."""
        if self.conversation.followed:
            self.followed = self.wish


class _Desk(ads_pb2_grpc.AggregatedDiscoveryServiceServicer):  # type: ignore[misc]
    """Hands each stream of one address to `talk`."""

    def __init__(self, talk: Callable[[AsyncIterator[DiscoveryRequest], Any], Any]) -> None:
        self._talk = talk

    # The name is the protocol's.
    async def StreamAggregatedResources(  # noqa: N802
        self, requests: AsyncIterator[DiscoveryRequest], context: Any
    ) -> None:
        """One Envoy's stream, until it ends."""
        await self._talk(requests, context)


async def _listening(place: Outside, desk: _Desk, loads: LoadDesk) -> grpc.aio.Server:
    server = grpc.aio.server(
        options=[
            ("grpc.max_receive_message_length", STRANGERS_BYTES_AT_MOST),
            ("grpc.max_send_message_length", _NO_LIMIT),
            ("grpc.keepalive_time_ms", SILENT_MS),
            ("grpc.keepalive_timeout_ms", SILENT_MS),
            ("grpc.so_reuseport", 0),  # two routers at one address would each have some of the callers
        ]
    )
    ads_pb2_grpc.add_AggregatedDiscoveryServiceServicer_to_server(desk, server)
    lrs_pb2_grpc.add_LoadReportingServiceServicer_to_server(loads, server)
    host, port = place.listen
    address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    if place.tls:
        server.add_secure_port(address, credentials(place))
    else:
        server.add_insecure_port(address)
    await server.start()
    return server


async def _speak(stream: _Stream, context: Any) -> None:
    while True:
        await stream.news.wait()
        stream.news.clear()
        while answer := stream.conversation.next():
            with contextlib.suppress(grpc.aio.UsageError):  # the stream has just ended
                await context.write(_message(answer))


def _message(answer: Answer) -> DiscoveryResponse:
    url = answer.kind.value
    return DiscoveryResponse(
        version_info=answer.version,
        type_url=url,
        nonce=answer.nonce,
        resources=[AnyMessage(type_url=url, value=each) for each in answer.resources.values()],
    )
