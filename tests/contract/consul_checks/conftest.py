"""The embedded registry and a real Consul run the same checks against the same service, at the same time."""

from __future__ import annotations

import contextlib
import http.client
import http.server
import json
import os
import shutil
import socket
import struct
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ports import free_ports

ROOT = Path(__file__).parents[3]
START_S = 20.0
PATIENCE_S = 40.0

EMBEDDED = """
import asyncio, sys
from pathlib import Path
from milkrun.registry.server import serve

asyncio.run(serve(("127.0.0.1", int(sys.argv[1])), Path(sys.argv[2]), node="n1"))
"""


class Registry:
    """A registry under test."""

    def __init__(self, kind: str, port: int) -> None:
        self.kind = kind
        self.port = port

    def call(self, method: str, path: str, body: Any = None) -> tuple[int, str]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        with contextlib.closing(connection):
            connection.request(method, path, json.dumps(body) if body is not None else None)
            reply = connection.getresponse()
            return reply.status, reply.read().decode()

    def checks(self) -> dict[str, dict[str, Any]]:
        found: dict[str, dict[str, Any]] = json.loads(self.call("GET", "/v1/agent/checks")[1])
        return {name.removeprefix("service:"): check for name, check in found.items()}

    def register(self, name: str, **check: Any) -> None:
        assert self.call("PUT", "/v1/agent/service/register", {"Name": name, "Check": check}) == (200, ""), (
            name
        )

    def until(self, name: str, holds: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """The check, once it stands so. Consul's agent shows its checks without an index to wait for."""
        deadline = time.monotonic() + PATIENCE_S
        while not holds(check := self.checks()[name]):
            assert time.monotonic() < deadline, f"{self.kind}: {name}: {check}"
            time.sleep(0.1)
        return check


class Service(http.server.ThreadingHTTPServer):
    """What is looked at: `/seq/NAME` answers by a script of its own for each registry; the rest are oddities."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.registries: dict[str, Registry] = {}
        self.scripts: dict[str, list[int]] = {}
        self.before: dict[tuple[str, str], list[str]] = defaultdict(list)
        """For a registry's kind and a script: the check's status just before each look."""
        self.played = threading.Condition()

    def handle_error(self, *_: Any) -> None:
        """Clients that leave are what some of the cases are about."""

    def next_of(self, kind: str, name: str) -> int:
        status = self.registries[kind].checks()[name]["Status"]
        with self.played:
            seen = self.before[kind, name]
            seen.append(status)
            self.played.notify_all()
            script = self.scripts[name]
            return script[min(len(seen), len(script)) - 1]

    def until_played(self, kind: str, name: str) -> list[str]:
        """The statuses after each of the script's answers."""
        wanted = len(self.scripts[name]) + 1
        with self.played:
            assert self.played.wait_for(lambda: len(self.before[kind, name]) >= wanted, PATIENCE_S), (
                kind,
                name,
            )
            return self.before[kind, name][1:wanted]


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Service

    def log_message(self, *_: Any) -> None:
        pass

    def _answer(self, code: int, body: bytes = b"hello", **headers: str) -> None:
        self.send_response(code)
        for name, value in headers.items():
            self.send_header(name, value)
        if code not in (204, 304):
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if code not in (204, 304) and self.command != "HEAD":
            self.wfile.write(body)

    def _look(self) -> None:
        sent = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        match self.path.strip("/").partition("?")[0].split("/"):
            case ["seq", name]:
                self._answer(self.server.next_of(self.headers["X-Who"], name))
            case ["code", code]:
                self._answer(int(code))
            case ["empty"]:
                self._answer(200, b"")
            case ["long"]:
                self._answer(200, b"".join(b"%05d," % number for number in range(1000)))
            case ["bytes"]:
                self._answer(200, b"\xff\xfe\x00ok")
            case ["echo"]:
                shown = [self.headers[name] for name in ("Host", "User-Agent", "X-A", "Authorization")]
                self._answer(200, json.dumps([self.command, *shown, sent.decode()]).encode())
            case ["redirect"]:
                self._answer(302, Location="/code/200")
            case [oddity]:
                self.close_connection = True
                with contextlib.suppress(OSError):
                    self._odd(oddity)

    def _odd(self, oddity: str) -> None:
        ok = b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n"
        match oddity:
            case "reason":
                self.wfile.write(b"HTTP/1.1 200 Yeah Man\r\nContent-Length: 0\r\n\r\n")
            case "short":
                self.wfile.write(ok + b"abc")
            case "garbage":
                self.wfile.write(b"hello world\r\n\r\n")
            case "trickle":
                self.wfile.write(ok)
                for _ in range(15):
                    self.wfile.write(b"x")
                    time.sleep(0.1)  # the pace of the trickle
            case "hang":
                self.connection.settimeout(15)
                self.connection.recv(1)
            case "reset":
                linger = struct.pack("ii", 1, 0)
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                self.connection.close()

    do_GET = do_POST = do_HEAD = _look  # noqa: N815  names that http.server looks for


@pytest.fixture(scope="session")
def service() -> Iterator[Service]:
    with Service() as found:
        serving = threading.Thread(target=found.serve_forever, daemon=True)
        serving.start()
        yield found
        found.shutdown()


@pytest.fixture(scope="session")
def registries(service: Service, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Registry]]:
    """Both of them, by kind; without Consul when this machine has none (its tests are left out by name)."""
    folder = tmp_path_factory.mktemp("checks")
    consul = os.environ.get("MILKRUN_CONSUL") or shutil.which("consul") or str(ROOT / ".parts" / "consul")
    with contextlib.ExitStack() as held:
        service.registries["embedded"] = held.enter_context(_embedded(folder))
        if Path(consul).is_file():
            service.registries["consul"] = held.enter_context(_consul(consul, folder))
        yield service.registries


@pytest.fixture(params=["embedded", pytest.param("consul", marks=pytest.mark.needs("consul"))])
def registry(request: pytest.FixtureRequest, registries: dict[str, Registry]) -> Registry:
    return registries[request.param]


@contextlib.contextmanager
def _embedded(folder: Path) -> Iterator[Registry]:
    [port] = free_ports(1)
    with _process(
        [sys.executable, "-c", EMBEDDED, str(port), str(folder / "data")], folder / "embedded"
    ) as process:
        yield _up(Registry("embedded", port), process)


@contextlib.contextmanager
def _consul(binary: str, folder: Path) -> Iterator[Registry]:
    ports = dict(zip(("http", "server", "serf_lan"), free_ports(3), strict=True))
    settings = {
        "node_name": "n1",
        "ports": {**ports, "dns": -1, "serf_wan": -1, "grpc": -1},
        "disable_update_check": True,
    }
    (folder / "consul.json").write_text(json.dumps(settings))
    command = [binary, "agent", "-dev", "-bind", "127.0.0.1", "-config-file", str(folder / "consul.json")]
    with _process(command, folder / "consul") as process:
        yield _up(Registry("consul", ports["http"]), process)


def _up(registry: Registry, process: subprocess.Popen[bytes]) -> Registry:
    deadline = time.monotonic() + START_S
    while True:
        with contextlib.suppress(OSError, ValueError):
            if json.loads(registry.call("GET", "/v1/health/node/n1")[1]):
                return registry
        assert process.poll() is None, f"{registry.kind} ended"
        assert time.monotonic() < deadline, f"{registry.kind} did not start"
        time.sleep(0.05)


@contextlib.contextmanager
def _process(command: list[str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("w") as sink, subprocess.Popen(command, stdout=sink, stderr=sink) as process:
        try:
            yield process
        finally:
            process.kill()
