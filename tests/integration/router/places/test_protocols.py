"""What goes through a router in each of its places: WebSocket, server-sent events, HTTP/2, gRPC and plain TCP."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections import Counter
from pathlib import Path

import aiohttp
import grpc.aio
import h2.config
import h2.connection
import h2.events
import msgspec
import pytest
from aiohttp import web
from certificates import Authority

from milkrun.model import InstanceId, VersionName
from milkrun.router.certificates import Certificates
from milkrun.router.desired import Mode, RoutingState, Server
from milkrun.router.haproxy import section
from milkrun.settings.environment import RouteSettings
from milkrun.settings.service import TrafficSettings

WITHIN_S = 20.0
PLACES = {
    "balancer": ({"service": "goat"}, ""),
    "sidecar": ({"sidecar": True}, "/goat"),
    "edge": ({"routes": [RouteSettings(service="goat", path="/shop", strip=True)]}, "/shop"),
}


@pytest.fixture
async def site(stand, stack):
    """Starts a web application as goat's instance behind a router in that place; the URL of its root."""

    async def make(place: str, handler) -> str:
        app = web.Application()
        app.router.add_get("/live", handler)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        listening = web.TCPSite(runner, "127.0.0.1", 0)
        await listening.start()
        settings, prefix = PLACES[place]
        found = stand({"goat": TrafficSettings()}, **settings)
        await found.start(goat=[("goat", runner.addresses[0][1])])
        return f"http://127.0.0.1:{found.port}{prefix}"

    return make


@pytest.mark.parametrize("place", PLACES)
async def test_a_websocket_goes_both_ways(site, place):
    async def echo(request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse(protocols=["milk"])
        await socket.prepare(request)
        await socket.send_str(request.headers.get("connection", ""))
        async for message in socket:
            await socket.send_str(message.data[::-1])
        return socket

    url = await site(place, echo)

    async with (
        aiohttp.ClientSession() as client,
        client.ws_connect(f"{url}/live", protocols=["milk"]) as socket,
        asyncio.timeout(WITHIN_S),
    ):
        assert socket.protocol == "milk"
        assert (await socket.receive_str()).lower() == "upgrade"
        for word in ("goat", "milk"):
            await socket.send_str(word)
            assert await socket.receive_str() == word[::-1]


@pytest.mark.parametrize("place", PLACES)
async def test_events_arrive_one_by_one(site, place):
    received = asyncio.Event()

    async def events(request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await answer.prepare(request)
        for number in range(3):
            await answer.write(b"data: %d\n\n" % number)
            await received.wait()  # the next one is not written before this one has arrived
            received.clear()
        return answer

    url = await site(place, events)

    async with (
        aiohttp.ClientSession() as client,
        client.get(f"{url}/live") as answer,
        asyncio.timeout(WITHIN_S),
    ):
        for number in range(3):
            assert await answer.content.readuntil(b"\n\n") == b"data: %d\n\n" % number
            received.set()


class Http2:
    """A client of HTTP/2 on one connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, scheme: str) -> None:
        self._reader, self._writer, self._scheme = reader, writer, scheme
        self._state = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))
        self._state.initiate_connection()

    async def get(self, *paths: str) -> dict[int, bytes]:
        """The bodies of requests that are all under way at once."""
        for path in paths:
            head = [(":method", "GET"), (":path", path), (":scheme", self._scheme), (":authority", "farm")]
            stream = self._state.get_next_available_stream_id()
            self._state.send_headers(stream, [*head, ("x-forwarded-for", "6.6.6.6")], end_stream=True)
        self._writer.write(self._state.data_to_send())
        bodies: dict[int, bytes] = {}
        ended = 0
        async with asyncio.timeout(WITHIN_S):
            while ended < len(paths):
                for event in self._state.receive_data(await self._reader.read(1 << 16)):
                    if isinstance(event, h2.events.ResponseReceived):
                        bodies[event.stream_id] = dict(event.headers)[":status"].encode()
                    elif isinstance(event, h2.events.DataReceived):
                        bodies[event.stream_id] += b" " + event.data
                    elif isinstance(event, h2.events.StreamEnded):
                        ended += 1
                self._writer.write(self._state.data_to_send())
        return bodies


@pytest.mark.parametrize("tls", [False, True])
async def test_clients_may_speak_http2(stand, instance, tmp_path, tls):
    site = stand(sidecar=True)
    context = None
    if tls:
        (tmp_path / "certificates").mkdir()
        authority = Authority(tmp_path)
        pair = authority.pair("farm")
        whole = Path(pair.cert).read_bytes() + Path(pair.key).read_bytes()
        (tmp_path / "certificates" / "farm.pem").write_bytes(whole)
        site.certificates = Certificates(tmp_path / "certificates", site.folder / "certificates")
        site.certificates.look_first()
        site.plane()
        context = ssl.create_default_context(cafile=authority.file)
        context.set_alpn_protocols(["h2", "http/1.1"])
    await site.start(
        goat=[("goat", (await instance("goat")).port)], farmer=[("farmer", (await instance("farmer")).port)]
    )
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", site.port, ssl=context, server_hostname="farm" if tls else None
    )

    bodies = await Http2(reader, writer, "https" if tls else "http").get("/goat/a?b=c", "/farmer/d", "/x")

    writer.close()
    assert not tls or writer.get_extra_info("ssl_object").selected_alpn_protocol() == "h2"
    found = [bodies[stream].partition(b" ") for stream in sorted(bodies)]
    assert [status for status, _, _ in found] == [b"200", b"200", b"404"]
    first, second = (msgspec.json.decode(body) for _, _, body in found[:2])
    assert (first["who"], first["path"]) == ("goat", "/a?b=c")
    assert (second["who"], second["path"]) == ("farmer", "/d")


class Herd:
    """A gRPC server that answers with its name; without a generated message, its bytes are the messages."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.server = grpc.aio.server()
        self.calls = 0
        methods = {
            "Milk": grpc.unary_unary_rpc_method_handler(self._milk),
            "Chat": grpc.stream_stream_rpc_method_handler(self._chat),
        }
        self.server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("farm.Goat", methods)])
        self.port = self.server.add_insecure_port("127.0.0.1:0")

    async def _milk(self, request: bytes, context: grpc.aio.ServicerContext) -> bytes:
        self.calls += 1
        context.set_trailing_metadata([("x-goat", self.name), ("x-farm-bin", b"\x00\xff")])
        if request == b"no":
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "the goat is dry")
        return self.name.encode() + b" " + request

    async def _chat(self, requests, context):
        async for request in requests:
            yield request[::-1]


@pytest.fixture
def herd(stack):
    async def make(name: str) -> Herd:
        found = Herd(name)
        await found.server.start()
        stack.push_async_callback(found.server.stop, None)
        return found

    return make


def server(name: str, port: int, mode: Mode = Mode.SERVE):
    return Server(id=InstanceId(name), address="127.0.0.1", port=port, mode=mode)


def shared(shares: dict[str, int], **versions):
    return RoutingState(
        shares={VersionName(name): share for name, share in shares.items()},
        versions={VersionName(name): {one.id: one for one in each} for name, each in versions.items()},
    )


@pytest.fixture
async def channel(stand, herd):
    """A client of gRPC before a load balancer, an instance in the file and one that was added at run time."""
    site = stand({"goat": TrafficSettings(protocol="http2")}, service="goat")
    first, second = await herd("first"), await herd("second")
    await site.start(goat=[("first", first.port)])
    both = [server("first", first.port), server("second", second.port)]
    await site.wish("goat", shared({"v1": 10_000}, v1=both))
    assert site.proxy.reloads == 0
    async with grpc.aio.insecure_channel(f"127.0.0.1:{site.port}") as found:
        yield found


async def test_grpc_goes_through_with_its_trailers(channel):
    milk = channel.unary_unary("/farm.Goat/Milk")
    who = Counter()
    for _ in range(8):
        call = milk(b"please", timeout=WITHIN_S)
        name = (await call).split()[0].decode()
        who[name] += 1
        trailers = dict(await call.trailing_metadata())
        assert (trailers["x-goat"], trailers["x-farm-bin"]) == (name, b"\x00\xff")
    assert who == {"first": 4, "second": 4}, "calls of one connection are spread"

    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await milk(b"no", timeout=WITHIN_S)
    assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert refused.value.details() == "the goat is dry"


async def test_grpc_streams_go_both_ways_message_by_message(channel):
    chat = channel.stream_stream("/farm.Goat/Chat")(timeout=WITHIN_S)
    for word in (b"goat", b"milk"):
        await chat.write(word)
        assert await chat.read() == word[::-1]
    await chat.done_writing()
    assert await chat.read() is grpc.aio.EOF
    assert await chat.code() is grpc.StatusCode.OK


async def test_grpc_when_a_versions_only_instance_dies_goes_on_at_another_version(stand, herd):
    """By way of the pool: nobody has moved the shares yet."""
    site = stand({"goat": TrafficSettings(protocol="http2")}, service="goat")
    one, two = await herd("one"), await herd("two")
    await site.start(goat=[("one", one.port)])
    await site.wish(
        "goat", shared({"v1": 9_999, "v2": 1}, v1=[server("one", one.port)], v2=[server("two", two.port)])
    )
    async with grpc.aio.insecure_channel(f"127.0.0.1:{site.port}") as channel:
        milk = channel.unary_unary("/farm.Goat/Milk")
        assert await milk(b"please", timeout=WITHIN_S) == b"one please"

        await one.server.stop(None)

        assert await milk(b"please", timeout=WITHIN_S) == b"two please"


async def test_without_the_word_on_each_server_line_grpc_does_not_work(stand, herd, monkeypatch):
    real = section.server_options

    def without(*given, **named) -> str:
        return real(*given, **named).replace(" proto h2", "")

    monkeypatch.setattr(section, "server_options", without)
    site = stand({"goat": TrafficSettings(protocol="http2")}, service="goat")
    await site.start(goat=[("first", (await herd("first")).port)])

    async with grpc.aio.insecure_channel(f"127.0.0.1:{site.port}") as channel:
        with pytest.raises(grpc.aio.AioRpcError):
            await channel.unary_unary("/farm.Goat/Milk")(b"please", timeout=WITHIN_S)


class Echo:
    """A protocol of its own: it says its name first, then each line backwards."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.port = 0
        self.open = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.open += 1
        with contextlib.suppress(ConnectionError):
            writer.write(self.name.encode() + b"\n")
            while line := await reader.readline():
                writer.write(line.strip()[::-1] + b"\n")
        self.open -= 1
        writer.close()


@pytest.fixture
def echo(stack):
    async def make(name: str) -> Echo:
        found = Echo(name)
        listening = await asyncio.start_server(found.serve, "127.0.0.1", 0)
        stack.callback(listening.close)
        found.port = listening.sockets[0].getsockname()[1]
        return found

    return make


class Caller:
    """One connection to a TCP service."""

    @classmethod
    async def connect(cls, port: int) -> Caller:
        found = cls()
        found.reader, found.writer = await asyncio.open_connection("127.0.0.1", port)
        async with asyncio.timeout(WITHIN_S):
            found.who = (await found.reader.readline()).decode().strip()
        return found

    async def say(self, word: str) -> str:
        self.writer.write(word.encode() + b"\n")
        async with asyncio.timeout(WITHIN_S):
            return (await self.reader.readline()).decode().strip()

    def close(self) -> None:
        self.writer.close()


async def test_a_tcp_service_has_exact_shares_drains_and_changes_without_a_reload(stand, echo):
    site = stand({"echo": TrafficSettings(protocol="tcp")}, service="echo")
    a, b, c = await echo("a"), await echo("b"), await echo("c")
    await site.start(echo=[("a", a.port)])
    long = await Caller.connect(site.port)
    assert (long.who, await long.say("goat")) == ("a", "taog")

    versions = {"v1": [server("a", a.port)], "v2": [server("b", b.port), server("c", c.port)]}
    await site.wish("echo", shared({"v1": 5_000, "v2": 5_000}, **versions))

    who: Counter[str] = Counter()
    for _ in range(400):
        caller = await Caller.connect(site.port)
        who[caller.who] += 1
        caller.close()
    assert 140 <= who["a"] <= 260, "half of them, within six standard deviations"
    assert abs(who["b"] - who["c"]) <= 1

    await site.wish("echo", shared({"v2": 10_000}, v1=[server("a", a.port, Mode.DRAIN)], v2=versions["v2"]))

    fresh = await Caller.connect(site.port)
    assert fresh.who in {"b", "c"}
    plane = site.proxy.of("echo")
    seen = (await plane.observe()).versions[VersionName("v1")][InstanceId("a")]
    assert seen.in_flight == 1, "who still talks is seen"
    assert await long.say("milk") == "klim"
    long.close()
    async with asyncio.timeout(WITHIN_S):
        while (await plane.observe()).versions[VersionName("v1")][InstanceId("a")].in_flight:
            await asyncio.sleep(0.01)
    fresh.close()
    assert site.proxy.reloads == 0


async def test_a_tcp_service_without_anybody_closes_and_a_dead_instance_costs_nobody_a_connection(
    stand, echo
):
    site = stand({"echo": TrafficSettings(protocol="tcp")}, service="echo")
    await site.start(echo=[])
    nobody = await Caller.connect(site.port)
    assert nobody.who == ""
    nobody.close()

    alive = await echo("alive")
    await site.wish("echo", shared({"v1": 10_000}, v1=[server("alive", alive.port), server("dead", 1)]))

    callers = [await Caller.connect(site.port) for _ in range(20)]
    assert {caller.who for caller in callers} == {"alive"}
    for caller in callers:
        caller.close()
    assert site.proxy.reloads == 0
