"""What goes through Envoy: every protocol, and what instances are told of who called."""

from __future__ import annotations

import asyncio

import aiohttp
import grpc
import msgspec
import pytest
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from milkrun.router.desired import Mode, Server
from milkrun.router.front import Route
from milkrun.settings.service import TrafficSettings

from .conftest import GOAT, asked, converge, of, state


async def test_a_websocket_goes_through_and_is_in_flight(stand, apps, session):
    envoy = await stand.start(of(apps["a1"]))

    async with session.ws_connect(f"{stand.url}/chat") as socket:
        await socket.send_str("hello")

        assert await socket.receive_str() == "a1 hello"
        assert (await envoy.of(GOAT).observe()).versions["1"]["a1"].in_flight == 1


async def test_an_instance_sees_what_the_caller_sent_and_who_called(stand, apps, session):
    await stand.start(of(apps["a1"]))
    headers = {"X-Request-Id": "4711", "Host": "goats.example:99"}

    async with session.get(f"{stand.url}/x", headers=headers) as answer:
        seen = await answer.json()
        assert "x-envoy-upstream-service-time" not in answer.headers

    assert (seen["X-Request-Id"], seen["Host"]) == ("4711", "goats.example:99")
    assert (seen["X-Forwarded-For"], seen["X-Forwarded-Prefix"]) == ("127.0.0.1", "")
    async with session.get(f"{stand.url}/x") as answer:
        assert (await answer.json())["X-Request-Id"] == ""


@pytest.mark.parametrize("local", [True, False])
async def test_only_a_sidecars_callers_are_believed(stand, apps, session, local):
    front = msgspec.structs.replace(
        stand.front, local=local, routes=(Route(service=GOAT, path="/goat", strip=True),)
    )
    await stand.start(of(apps["a1"]), front)
    said = {"X-Forwarded-For": "9.9.9.9", "X_Forwarded_For": "8.8.8.8", "X-Real-IP": "7.7.7.7"}

    async with session.get(f"{stand.url}/goat/x", headers=said | {"X-Milkrun-Version": "2"}) as answer:
        seen = await answer.json()

    theirs = {name.lower(): value for name, value in seen["all"].items() if name.lower() != "host"}
    for name in ("accept", "accept-encoding", "user-agent"):
        theirs.pop(name)
    ours = {"x-forwarded-prefix": "/goat", "x-forwarded-proto": "http"}
    if local:
        kept = {name.lower(): value for name, value in said.items()} | {"x-milkrun-version": "2"}
        assert theirs == ours | kept
    else:
        assert theirs == ours | {"x-forwarded-for": "127.0.0.1"}


async def test_a_caller_cannot_make_envoy_send_a_post_again(stand, apps):
    await stand.start(of(apps["a1"]))
    apps["a1"].breaks = True
    says = {"x-envoy-retry-on": "reset,5xx", "x-envoy-max-retries": "5"}
    async with aiohttp.ClientSession(headers=says) as session:
        assert (await asked(session, stand.url, "/", "POST"))[0] == 503
    assert len(apps["a1"].asked) == 1


async def test_a_tcp_service_is_split_drained_and_closed_when_nobody_serves(stand):
    async def echo(name, reader, writer):
        while data := await reader.read(100):
            writer.write(name + b" " + data)
        writer.close()

    servers = [
        await asyncio.start_server(lambda r, w, name=name: echo(name, r, w), "127.0.0.1", 0)
        for name in (b"a", b"b")
    ]
    a, b = (_server(name, server) for name, server in zip("ab", servers, strict=True))
    front = msgspec.structs.replace(stand.front, services={GOAT: TrafficSettings(protocol="tcp")})
    envoy = await stand.start(state({"1": 10_000}, **{"1": [a], "2": [b]}), front)
    plane = envoy.of(GOAT)
    reader, writer = await asyncio.open_connection(*stand.front.listen)
    writer.write(b"one")
    assert await reader.read(100) == b"a one"
    assert (await plane.observe()).versions["1"]["a"].in_flight == 1

    moved = state({"2": 10_000}, **{"1": [msgspec.structs.replace(a, mode=Mode.DRAIN)], "2": [b]})
    assert (await converge(envoy, moved)).shares == {"2": 10_000}

    writer.write(b"two")
    assert await reader.read(100) == b"a two", "a connection stays where it is"
    assert (await plane.observe()).versions["1"]["a"].in_flight == 1
    other, out = await asyncio.open_connection(*stand.front.listen)
    out.write(b"three")
    assert await other.read(100) == b"b three"
    out.close()
    writer.close()
    nobody = state({}, **{"2": [b]})
    assert (await converge(envoy, nobody)).shares == {}
    reader, writer = await asyncio.open_connection(*stand.front.listen)
    assert await reader.read(100) == b""
    writer.close()
    for server in servers:
        server.close()


async def test_grpc_goes_through_with_its_trailers_and_its_status(stand):
    server = grpc.aio.server()
    servicer = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    await servicer.set("goat", health_pb2.HealthCheckResponse.SERVING)
    front = msgspec.structs.replace(stand.front, services={GOAT: TrafficSettings(protocol="http2")})
    await stand.start(state({"1": 10_000}, **{"1": [Server(id="g", address="127.0.0.1", port=port)]}), front)
    async with grpc.aio.insecure_channel("{}:{}".format(*stand.front.listen)) as channel:
        stub = health_pb2_grpc.HealthStub(channel)

        answer = await stub.Check(health_pb2.HealthCheckRequest(service="goat"))
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await stub.Check(health_pb2.HealthCheckRequest(service="cow"))
        assert error.value.code() is grpc.StatusCode.NOT_FOUND
        watch = stub.Watch(health_pb2.HealthCheckRequest(service="goat"))
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
        await servicer.set("goat", health_pb2.HealthCheckResponse.NOT_SERVING)
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
        watch.cancel()
    await server.stop(None)


def _server(name, server):
    return Server(id=name, address="127.0.0.1", port=server.sockets[0].getsockname()[1])
