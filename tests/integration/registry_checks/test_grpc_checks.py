"""gRPC checks against a real gRPC server, and against what only says that it is one."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
import ssl
import struct
import subprocess
import sys
import threading
from concurrent import futures
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from hypothesis import given, settings
from hypothesis import strategies as st
from ports import free_port

from milkrun.registry.checks.definition import Grpc, Http
from milkrun.registry.checks.looks import Looks
from milkrun.registry.checks.pin import system_names
from milkrun.registry.checks.reach import Reach, plain

OWN = "127.0.0.1"
PEM = Path(__file__).parent / "self-signed.pem"
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
UNHEALTHY = "gRPC application didn't report service healthy"
CLOSED = "rpc error: code = Unavailable desc = connection closed"
LATE = "rpc error: code = DeadlineExceeded desc = context deadline exceeded"


def unreached(why):
    return (
        "rpc error: code = Unavailable desc = connection error: "
        f'desc = "transport: Error while dialing {why}"'
    )


class Strange(health_pb2_grpc.HealthServicer):
    """Answers by the service's name."""

    def __init__(self) -> None:
        self.released = threading.Event()

    def Check(self, request, context):  # noqa: N802  the name that gRPC calls
        match request.service:
            case "hangs":
                self.released.wait(20)
            case "fails":
                context.abort(grpc.StatusCode.INTERNAL, "broken: é 100%\n2")
            case "huge":
                context.abort(grpc.StatusCode.INTERNAL, "x" * 7000)
            case "flood":
                context.set_trailing_metadata([("x", "y" * 500_000)])
        return health_pb2.HealthCheckResponse(status=SERVING)


class Server:
    """A gRPC server: `set` says how its services are, `port` is plain, `tls_port` needs TLS."""

    def __init__(self, servicer: health_pb2_grpc.HealthServicer | None) -> None:
        self._server = grpc.server(futures.ThreadPoolExecutor(4), options=[("grpc.so_reuseport", 0)])
        if servicer:
            health_pb2_grpc.add_HealthServicer_to_server(servicer, self._server)
        pem = PEM.read_bytes()
        end = b"-----END CERTIFICATE-----\n"
        start = pem.index(b"-----BEGIN CERTIFICATE")
        certificate = pem[start : pem.index(end) + len(end)]
        credentials = grpc.ssl_server_credentials([(pem.replace(certificate, b""), certificate)])
        self.port = self._server.add_insecure_port("127.0.0.1:0")
        self.tls_port = self._server.add_secure_port("127.0.0.1:0", credentials)
        self._server.start()

    def stop(self) -> None:
        self._server.stop(None).wait()


@contextlib.contextmanager
def served(servicer):
    server = Server(servicer)
    try:
        yield server
    finally:
        if isinstance(servicer, Strange):
            servicer.released.set()
        server.stop()


@pytest.fixture
def services():
    found = health.HealthServicer()
    found.set("goat", SERVING)
    found.set("lame", NOT_SERVING)
    return found


@pytest.fixture
def server(services):
    with served(services) as found:
        yield found


@pytest.fixture
def strange():
    with served(Strange()) as found:
        yield found


@pytest.fixture
async def looks():
    async with Looks(Reach(door=("127.0.0.1", 8500)), system_names) as found:
        yield found


@pytest.fixture
async def raw():
    """Starts a server that gets the connection as it is; gives its port and how many connections it holds."""
    async with contextlib.AsyncExitStack() as held:
        yield lambda answer, **options: held.enter_async_context(listening(answer, **options))


class Raw:
    def __init__(self) -> None:
        self.port = self.hits = self.open = 0
        self.moved = asyncio.Event()

    async def until(self, holds) -> None:
        async with asyncio.timeout(20):
            while not holds():
                self.moved.clear()
                await self.moved.wait()


@contextlib.asynccontextmanager
async def listening(answer, host="127.0.0.1", **options):
    found = Raw()

    async def handle(reader, writer):
        found.hits += 1
        found.open += 1
        with contextlib.suppress(OSError):
            await answer(reader, writer)
        writer.close()
        found.open -= 1
        found.moved.set()

    server = await asyncio.start_server(handle, host, 0, **options)
    found.port = server.sockets[0].getsockname()[1]
    try:
        yield found
    finally:
        server.close()


def says(data: bytes):
    async def answer(reader, writer):
        await reader.read(10)
        writer.write(data)
        await writer.drain()

    return answer


async def look(looks, address, timeout_s=10.0, **options):
    return await looks.grpc(Grpc(address=address, **options), OWN, timeout_s)


async def test_what_the_server_says(looks, server):
    at = f"127.0.0.1:{server.port}"
    for address in (at, f"{at}/", f"{at}/goat", f"localhost:{server.port}/goat"):
        result = await look(looks, address)
        assert (result.status, result.output) == ("passing", f"gRPC check {address}: success")
    result = await look(looks, f"{at}/lame")
    assert (result.status, result.output) == ("critical", UNHEALTHY)
    result = await look(looks, f"{at}/nobody")
    assert (result.status, result.output) == ("critical", "rpc error: code = NotFound desc = ")


async def test_a_server_without_a_health_service(looks):
    with served(None) as server:
        result = await look(looks, f"127.0.0.1:{server.port}")
    assert (result.status, result.output) == (
        "critical",
        "rpc error: code = Unimplemented desc = Method not found!",
    )


async def test_a_check_follows_the_status(registry, services, server):
    await registry.register("goat", GRPC=f"127.0.0.1:{server.port}/goat")
    await registry.until("goat", lambda it: it.status == "passing")
    services.set("goat", NOT_SERVING)
    check = await registry.until("goat", lambda it: it.status == "critical")
    assert check.output == UNHEALTHY
    services.set("goat", SERVING)
    await registry.until("goat", lambda it: it.status == "passing")
    server.stop()
    check = await registry.until("goat", lambda it: it.status == "critical")
    assert check.output == unreached(f"dial tcp 127.0.0.1:{server.port}: connect: connection refused")


async def test_tls_is_verified_unless_the_check_says_otherwise(looks, server, monkeypatch):
    at = f"localhost:{server.tls_port}/goat"
    refused = await look(looks, at, tls=True)
    assert refused.status == "critical"
    assert (
        'desc = "transport: authentication handshake failed: x509: self-signed certificate"' in refused.output
    )
    assert (await look(looks, at, tls=True, skip_verify=True)).status == "passing"
    monkeypatch.setenv("SSL_CERT_FILE", str(PEM))
    async with Looks(Reach(), system_names) as trusting:
        assert (await look(trusting, at, tls=True)).status == "passing"
        assert (await look(trusting, f"127.0.0.1:{server.tls_port}", tls=True)).status == "passing"
        wrong = await look(trusting, at, tls=True, server_name="other.example")
        assert "x509: Hostname mismatch" in wrong.output


async def test_plain_and_tls_do_not_mix(looks, server):
    assert (await look(looks, f"127.0.0.1:{server.tls_port}")).output.startswith(CLOSED)
    result = await look(looks, f"127.0.0.1:{server.port}", tls=True, skip_verify=True)
    assert result.status == "critical"
    assert "authentication handshake failed" in result.output


async def test_a_server_that_knows_no_http2_over_tls(looks, raw):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(PEM)
    web = await raw(says(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"), ssl=context)
    result = await look(looks, f"127.0.0.1:{web.port}", tls=True, skip_verify=True)
    assert result.output == f"{CLOSED}: the answer is not HTTP/2"


async def test_the_servers_own_words(looks, strange):
    at = f"127.0.0.1:{strange.port}"
    result = await look(looks, f"{at}/fails")
    assert result.output == "rpc error: code = Internal desc = broken: é 100%\n2"
    assert len((await look(looks, f"{at}/huge")).output) < 5000
    result = await look(looks, f"{at}/flood")
    assert result.status == "critical"
    assert len(result.output) < 500


async def test_a_call_that_hangs_is_left_in_time(looks, strange):
    result = await look(looks, f"127.0.0.1:{strange.port}/hangs", 0.3)
    assert (result.status, result.output) == ("critical", LATE)


async def test_a_server_that_says_nothing_is_left_in_time(looks, raw, hangs):
    silent = await raw(hangs)
    for tls in (False, True):
        result = await look(looks, f"127.0.0.1:{silent.port}", 0.3, tls=tls)
        assert (result.status, result.output) == ("critical", LATE)
    await silent.until(lambda: not silent.open)


@pytest.mark.parametrize("piece", [b"\0", b"\0\0\0\x04\0\0\0\0\0", b"\0\0\x08\x06\0\0\0\0\0" + b"p" * 8])
async def test_a_server_that_trickles_or_never_reads_is_left(looks, raw, piece):
    async def trickle(_, writer):
        writer.write(b"\0\0\0\x04\0\0\0\0\0")
        while not writer.is_closing():
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0.01)  # the pace of the trickle

    endless = await raw(trickle)
    result = await look(looks, f"127.0.0.1:{endless.port}", 0.5)
    assert result.status == "critical"
    await endless.until(lambda: not endless.open)


async def test_a_message_without_end_is_left_when_its_length_comes(looks, raw):
    sent = 0

    async def flood(_, writer):
        nonlocal sent
        writer.write(b"\0\0\0\x04\0\0\0\0\0")
        # :status 200 and content-type application/grpc, as literals, then a message of 2 GiB.
        headers = b"\x88\x0f\x10\x10application/grpc"
        writer.write(len(headers).to_bytes(3, "big") + b"\x01\x04\0\0\0\x01" + headers)
        data = b"\0\x7f\xff\xff\xff" + b"x" * 16_000
        while sent < 10_000_000:
            writer.write(len(data).to_bytes(3, "big") + b"\0\0\0\0\0\x01" + data)
            await writer.drain()
            sent += len(data)

    huge = await raw(flood)
    result = await look(looks, f"127.0.0.1:{huge.port}")
    assert result.output == (
        "rpc error: code = ResourceExhausted desc = grpc: received message larger than max (2147483647 vs. 4096)"
    )
    await huge.until(lambda: not huge.open)
    assert sent < 10_000_000


async def test_nobody_there(looks):
    port = free_port()
    for address, why in (
        (f"127.0.0.1:{port}", f"dial tcp 127.0.0.1:{port}: connect: connection refused"),
        ("127.0.0.1", "dial tcp: address 127.0.0.1: missing port in address"),
        ("unix:/run/docker.sock", "dial tcp: address : invalid port"),
    ):
        assert (await look(looks, address)).output == unreached(why)
        assert (await look(looks, address, tls=True)).output == unreached(why)


async def test_garbage(looks, raw):
    garbage = await raw(says(b"\xff\x00garbage" * 1000))
    assert (await look(looks, f"127.0.0.1:{garbage.port}")).output.startswith(CLOSED)


async def test_a_connection_that_is_reset(looks, raw):
    async def reset(reader, writer):
        await reader.read(10)
        linger = struct.pack("ii", 1, 0)
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        writer.transport.abort()

    for answer in (reset, says(b"")):
        rude = await raw(answer)
        assert (await look(looks, f"127.0.0.1:{rude.port}")).output == CLOSED
        output = (await look(looks, f"127.0.0.1:{rude.port}", tls=True)).output
        assert output.endswith('desc = "transport: authentication handshake failed: EOF"')


async def test_a_plain_connection_that_is_reset_before_it_stands_names_no_handshake(looks, monkeypatch):
    async def reset(*_, **__):
        raise ConnectionResetError(errno.ECONNRESET, "")

    monkeypatch.setattr(asyncio, "open_connection", reset)
    output = (await look(looks, "127.0.0.1:1")).output
    assert output == unreached("dial tcp 127.0.0.1:1: connect: connection reset by peer")


async def test_all_addresses_of_a_name_are_tried(server):
    async def two(_host, _port):
        return ["127.0.0.2", "127.0.0.1"]

    async with Looks(Reach(), two) as looks:
        assert (await look(looks, f"two.example:{server.port}")).status == "passing"
        server.stop()
        output = (await look(looks, f"two.example:{server.port}")).output
        assert output == unreached(f"dial tcp 127.0.0.2:{server.port}: connect: connection refused")


@pytest.mark.parametrize("name", ["a\0b", "x" * 64, "a..b", "é", "a b", "[::1]"])
async def test_a_server_name_that_is_none_is_never_asked_for(looks, server, name):
    """uvloop would log the whole traceback of such a handshake, at each look."""
    result = await look(looks, f"127.0.0.1:{server.tls_port}", tls=True, server_name=name)
    assert result.status == "critical"
    assert "TLSServerName is not a host's name" in result.output
    url = f"https://127.0.0.1:{server.tls_port}/"
    result = await looks.http(Http(url=url, server_name=name), OWN, 5.0)
    assert result.output == f'Get "{url}": tls: TLSServerName is not a host\'s name'


async def test_a_name_is_asked_once_and_the_connection_goes_where_it_was_judged(raw):
    answers = iter([["127.0.0.2"], ["127.0.0.3"], ["127.0.0.3"]])

    async def rebinding(_host, _port):
        return next(answers)

    good = await raw(says(b""), host="127.0.0.2")
    canary = await raw(says(b""), host="127.0.0.3")
    async with Looks(Reach(door=("127.0.0.1", 8500)), rebinding) as looks:
        assert (await look(looks, f"rebind.example:{good.port}")).output == CLOSED
    assert (good.hits, canary.hits) == (1, 0)


async def test_what_is_not_permitted_gets_no_connection(raw):
    class Strict(Reach, frozen=True):
        def refusal(self, address, port, own):
            return super().refusal(address, port, own) if str(plain(address)) != "127.0.0.3" else "not there"

    canary = await raw(says(b""), host="127.0.0.3")
    async with Looks(Strict(), system_names) as looks:
        for host in ("127.0.0.3", "127.0.3", "2130706435", "[::ffff:127.0.0.3]"):
            assert (await look(looks, f"{host}:{canary.port}/x")).output == unreached("not there")
    assert canary.hits == 0


async def test_the_registry_and_other_hosts_are_not_asked(registry):
    await registry.register("itself", GRPC=f"127.0.0.1:{registry.port}")
    check = await registry.until("itself", lambda it: it.output)
    assert "this registry's own" in check.output
    await registry.register("thief", "10.20.30.40", GRPC="10.20.30.41:80")
    check = await registry.until("thief", lambda it: it.output)
    assert "milkrun registry --check-allow 10.20.30.41/32" in check.output


async def test_no_proxy_of_the_environment_is_asked(looks, server, raw, monkeypatch):
    proxy = await raw(says(b"HTTP/1.1 200 OK\r\n\r\n"))
    for name in ("http_proxy", "https_proxy", "grpc_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
    assert (await look(looks, f"127.0.0.1:{server.port}")).status == "passing"
    assert (await look(looks, f"localhost:{server.tls_port}", tls=True, skip_verify=True)).status == "passing"
    assert proxy.hits == 0


def test_http2_is_read_in_only_when_a_grpc_check_runs():
    code = "import sys, milkrun.registry.server; sys.exit('h2' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=20), st.booleans(), st.booleans(), st.text(max_size=5))
async def test_any_definition_comes_to_a_result(text, tls, skip_verify, name):
    async with Looks(Reach(), system_names) as looks:
        for address in (text, f"127.0.0.1:1/{text}"):
            look = Grpc(address=address, tls=tls, skip_verify=skip_verify, server_name=name)
            result = await looks.grpc(look, OWN, 1.0)
            assert result.status == "critical"
            assert result.output
