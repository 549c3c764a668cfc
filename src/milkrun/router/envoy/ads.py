"""The discovery server that Envoy asks for its configuration: gRPC on a UNIX socket in the router's folder.

Any Envoy that may open the socket can point at it; the one that the router itself started is the one waited for.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import structlog
from envoy.service.discovery.v3 import ads_pb2_grpc
from envoy.service.discovery.v3.discovery_pb2 import DiscoveryRequest, DiscoveryResponse
from google.protobuf.any_pb2 import Any as AnyMessage

from milkrun.errors import DataPlaneError
from milkrun.router.envoy.bootstrap import ADS_SOCKET
from milkrun.router.envoy.conversation import Answer, Conversation, Request
from milkrun.router.envoy.resources import Kind, Snapshot

SETTLED_WAIT_S = 5.0
ERROR_CHARACTERS_AT_MOST = 800
_NO_LIMIT = -1


class Ads(ads_pb2_grpc.AggregatedDiscoveryServiceServicer):  # type: ignore[misc]
    """Tells each Envoy that asks what it should have. `node` is the id of the router's own."""

    def __init__(self, folder: Path, node: str) -> None:
        self._folder = folder
        self._node = node
        self._snapshot: Snapshot | None = None
        self._server: grpc.aio.Server | None = None
        self._streams: dict[Conversation, asyncio.Event] = {}
        self._own: Conversation | None = None
        self._heard = asyncio.Condition()
        self._log = structlog.get_logger("envoy")

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
        ads_pb2_grpc.add_AggregatedDiscoveryServiceServicer_to_server(self, server)
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

    async def stop(self) -> None:
        """It answers nobody; each Envoy goes on with what it has."""
        server, self._server = self._server, None
        if server:
            await server.stop(grace=None)

    def publish(self, snapshot: Snapshot) -> None:
        """From now on every Envoy should have this."""
        self._snapshot = snapshot
        for conversation, news in self._streams.items():
            conversation.wish(snapshot)
            news.set()

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

    # The name is the protocol's.
    async def StreamAggregatedResources(  # noqa: N802
        self, requests: AsyncIterator[DiscoveryRequest], context: Any
    ) -> None:
        """One Envoy's stream, until it ends."""
        if self._snapshot is None:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "the router does not know yet what to serve")
            return
        conversation, news = Conversation(self._snapshot), asyncio.Event()
        self._streams[conversation] = news
        try:
            async with asyncio.TaskGroup() as tasks:
                speaker = tasks.create_task(self._speak(conversation, news, context))
                async for request in requests:
                    await self._hear(conversation, request)
                    news.set()
                speaker.cancel()
        finally:
            del self._streams[conversation]
            if self._own is conversation:
                self._own = None

    async def _hear(self, conversation: Conversation, message: DiscoveryRequest) -> None:
        try:
            kind = Kind(message.type_url)
        except ValueError:
            return  # nothing of that kind is served
        if message.node.id == self._node:  # only the first request of a stream has it
            self._own = conversation
        error = message.error_detail.message[:ERROR_CHARACTERS_AT_MOST]
        if message.HasField("error_detail"):
            error = error or "it does not say why"
            self._log.error("Envoy refuses its configuration", kind=kind.name.lower(), why=error)
        names = frozenset(message.resource_names)
        async with self._heard:
            conversation.hear(Request(kind=kind, names=names, nonce=message.response_nonce, error=error))
            self._heard.notify_all()

    async def _speak(self, conversation: Conversation, news: asyncio.Event, context: Any) -> None:
        while True:
            await news.wait()
            news.clear()
            while answer := conversation.next():
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
