"""Status and Output of gRPC checks, against ours and a real Consul 1.8.7, looking at the same real gRPC servers.

`DIFFERENCES` names what is not the same, and why.
"""

from __future__ import annotations

import contextlib
import re
import socketserver
import threading
from concurrent import futures
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from ports import free_port

PEM = Path(__file__).parents[2] / "integration" / "registry_checks" / "self-signed.pem"
CLOSED = free_port()
UNHEALTHY = "gRPC application didn't report service healthy"
UNAVAILABLE = "rpc error: code = Unavailable desc = connection"
UNREACHED = f'{UNAVAILABLE} error: desc = "transport: Error while dialing dial tcp'
DISTRUSTED = f'{UNAVAILABLE} error: desc = "transport: authentication handshake failed:'
LATE = "rpc error: code = DeadlineExceeded desc = context deadline exceeded"
TLS = {"GRPCUseTLS": True}
ANY = {"GRPCUseTLS": True, "TLSSkipVerify": True}

THE_SAME = {
    "g-ok": ("{plain}", {}, "passing", "gRPC check {plain}: success"),
    "g-slash": ("{plain}/", {}, "passing", "gRPC check {plain}/: success"),
    "g-service": ("{plain}/goat", {}, "passing", "gRPC check {plain}/goat: success"),
    "g-odd-name": ("{plain}/a/b c%", {}, "passing", "gRPC check {plain}/a/b c%: success"),
    "g-name": ("localhost:{port}/goat", {}, "passing", "gRPC check localhost:{port}/goat: success"),
    "g-lame": ("{plain}/lame", {}, "critical", UNHEALTHY),
    "g-unknown": ("{plain}/unknown", {}, "critical", UNHEALTHY),
    "g-service-unknown": ("{plain}/service-unknown", {}, "critical", UNHEALTHY),
    "g-nobody": ("{plain}/nobody", {}, "critical", "rpc error: code = NotFound desc = "),
    "g-odd-status": ("{odd}/odd", {}, "critical", UNHEALTHY),
    "g-fails": ("{odd}/fails", {}, "critical", "rpc error: code = Internal desc = broken: é 100%\n2"),
    "g-raises": (
        "{odd}/raises",
        {},
        "critical",
        "rpc error: code = Unknown desc = Exception calling application: x",
    ),
    "g-login": ("{odd}/login", {}, "critical", "rpc error: code = Unauthenticated desc = "),
    "g-hangs": ("{odd}/hangs", {"Timeout": "1s"}, "critical", LATE),
    "g-silent": ("{silent}", {"Timeout": "1s"}, "critical", LATE),
    "g-none": ("{bare}", {}, "critical", "rpc error: code = Unimplemented desc = Method not found!"),
    "g-tls": ("{tls}/goat", ANY, "passing", "gRPC check {tls}/goat: success"),
    "g-closes-tls": ("{closes}", TLS, "critical", f'{DISTRUSTED} EOF"'),
    "g-refused": (
        "127.0.0.1:{closed}",
        {},
        "critical",
        f'{UNREACHED} 127.0.0.1:{{closed}}: connect: connection refused"',
    ),
    "g-refused-6": (
        "[::1]:{closed}",
        {},
        "critical",
        f'{UNREACHED} [::1]:{{closed}}: connect: connection refused"',
    ),
    "g-refused-tls": ("127.0.0.1:{closed}", TLS, "critical", re.compile(rf"{UNREACHED} .*refused\"")),
    "g-no-port": ("127.0.0.1", {}, "critical", f'{UNREACHED}: address 127.0.0.1: missing port in address"'),
    "g-port": ("127.0.0.1:99999", {}, "critical", f'{UNREACHED}: address 99999: invalid port"'),
    "g-colons": ("::1:80", {}, "critical", f'{UNREACHED}: address ::1:80: too many colons in address"'),
}

CLOSING = re.compile(r"rpc error: code = Unavailable desc = .*(clos|reset|broken pipe).*")
"""What Consul says of a connection that ends too soon depends on which of its threads sees that first."""

DIFFERENCES = {
    "g-closes": ("ours says always the same", ("{closes}", {}), CLOSING, f"{UNAVAILABLE} closed"),
    "g-plain-to-tls": ("ours says always the same", ("{tls}", {}), CLOSING, f"{UNAVAILABLE} closed"),
    "g-web": (
        "ours says what it met: a web server's port is a likely mistake",
        ("{web}", {}),
        CLOSING,
        f"{UNAVAILABLE} closed: the answer is not HTTP/2",
    ),
    "g-garbage": (
        "the same",
        ("{garbage}", {}),
        CLOSING,
        f"{UNAVAILABLE} closed: the answer is not HTTP/2",
    ),
    "g-distrusted": (
        "OpenSSL's words for a certificate instead of Go's",
        ("{tls}", TLS),
        f'{DISTRUSTED} x509: certificate signed by unknown authority"',
        f'{DISTRUSTED} x509: self-signed certificate"',
    ),
    "g-tls-to-plain": (
        "OpenSSL's words for what is no TLS",
        ("{plain}", ANY),
        f'{DISTRUSTED} tls: first record does not look like a TLS handshake"',
        re.compile(rf'{DISTRUSTED} (tls: .*|dial tcp .*)"'),
    ),
    "g-no-name": (
        "the text does not name the resolver",
        ("no.such.invalid:80", {}),
        re.compile(rf'{UNREACHED}: lookup no.such.invalid.*: (no such host|server misbehaving|.*timeout)"'),
        re.compile(rf'{UNREACHED}: lookup no.such.invalid: (no such host|i/o timeout)"'),
    ),
    "g-socket": (
        "no check reaches a unix socket",
        ("unix:/no/such/socket", {}),
        re.compile(rf"{UNAVAILABLE} error: .*unix.*"),
        f'{UNREACHED}: address : invalid port"',
    ),
}


class Odd(health_pb2_grpc.HealthServicer):
    """Answers by the service's name."""

    def __init__(self) -> None:
        self.released = threading.Event()

    def Check(self, request, context):  # noqa: N802  the name that gRPC calls
        match request.service:
            case "fails":
                context.abort(grpc.StatusCode.INTERNAL, "broken: é 100%\n2")
            case "raises":
                raise ValueError("x")
            case "login":
                context.abort(grpc.StatusCode.UNAUTHENTICATED, "")
            case "hangs":
                self.released.wait(60)
        return health_pb2.HealthCheckResponse(status=7)


def raw(answer: bytes | None, held: contextlib.ExitStack, released: threading.Event) -> str:
    """The address of a server that says this and closes; with None it holds the connection."""

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            if answer is None:
                released.wait(60)
            with contextlib.suppress(OSError):
                self.request.recv(4096)
                self.request.sendall(answer or b"")

    server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    held.callback(server.server_close)
    held.callback(server.shutdown)
    return f"127.0.0.1:{server.server_address[1]}"


def serving(servicer, held: contextlib.ExitStack) -> grpc.Server:
    server = grpc.server(futures.ThreadPoolExecutor(8))
    if servicer:
        health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    held.callback(lambda: server.stop(None).wait())
    return server


def credentials() -> grpc.ServerCredentials:
    key, begin, certificate = PEM.read_bytes().partition(b"-----BEGIN CERTIFICATE")
    return grpc.ssl_server_credentials([(key, begin + certificate)])


@pytest.fixture(scope="module")
def words():
    """Every server's address, by its word."""
    reply = health_pb2.HealthCheckResponse
    good, odd = health.HealthServicer(), Odd()
    for name, status in (
        ("goat", reply.SERVING),
        ("a/b c%", reply.SERVING),
        ("lame", reply.NOT_SERVING),
        ("unknown", reply.UNKNOWN),
        ("service-unknown", reply.SERVICE_UNKNOWN),
    ):
        good.set(name, status)
    with contextlib.ExitStack() as held:
        server, strange, bare = serving(good, held), serving(odd, held), serving(None, held)
        port = server.add_insecure_port("127.0.0.1:0")
        found = {
            "port": port,
            "plain": f"127.0.0.1:{port}",
            "tls": f"127.0.0.1:{server.add_secure_port('127.0.0.1:0', credentials())}",
            "odd": f"127.0.0.1:{strange.add_insecure_port('127.0.0.1:0')}",
            "bare": f"127.0.0.1:{bare.add_insecure_port('127.0.0.1:0')}",
            "silent": raw(None, held, odd.released),
            "closes": raw(b"", held, odd.released),
            "web": raw(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n", held, odd.released),
            "garbage": raw(b"\xff\x00garbage" * 1000, held, odd.released),
            "closed": CLOSED,
        }
        for each in (server, strange, bare):
            each.start()
        held.callback(odd.released.set)
        yield {f"{{{word}}}": str(text) for word, text in found.items()}


def fill(text: str, words: dict[str, str]) -> str:
    for word, value in words.items():
        text = text.replace(word, value)
    return text


@pytest.fixture(scope="module")
def registered(registries, words):
    """Everything is registered with everyone before anything is asked: the checks run side by side."""
    asked = {name: (address, options) for name, (address, options, *_) in THE_SAME.items()}
    asked |= {name: question for name, (_, question, *_) in DIFFERENCES.items()}
    for registry in registries.values():
        for name, (address, options) in asked.items():
            registry.register(name, GRPC=fill(address, words), Interval="1s", **options)


def compare(check, output, words):
    if isinstance(output, re.Pattern):
        assert re.fullmatch(output.pattern, check["Output"]), check["Output"]
    else:
        assert check["Output"] == fill(output, words)


@pytest.mark.usefixtures("registered")
@pytest.mark.parametrize("name", THE_SAME)
def test_the_same(registry, words, name):
    *_, status, output = THE_SAME[name]
    check = registry.until(name, lambda it: it["Output"])
    assert (check["Status"], check["Type"]) == (status, "grpc"), check
    compare(check, output, words)


@pytest.mark.usefixtures("registered")
@pytest.mark.parametrize("name", DIFFERENCES)
def test_not_the_same_and_why(registry, words, name):
    why, _, theirs, ours = DIFFERENCES[name]
    assert why
    check = registry.until(name, lambda it: it["Output"])
    assert check["Status"] == "critical", check
    compare(check, ours if registry.kind == "embedded" else theirs, words)
