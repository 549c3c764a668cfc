"""A real Traefik in front of tiny backends; it knows of them only what a real `milkrun registry` tells it."""

from __future__ import annotations

import contextlib
import http.client
import shutil
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from conformance.registries import Server, eventually, milkrun
from ports import free_port

SEEN_IN = 30
"""Requests in a row among which each instance must show up: Traefik takes turns."""
STEADY = 200


class Backend(ThreadingHTTPServer):
    """Answers every request with its name."""

    daemon_threads = True

    def __init__(self, name: str) -> None:
        super().__init__(("127.0.0.1", 0), _Named)
        self.name = name
        self.port = int(self.server_address[1])


class _Named(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        assert isinstance(self.server, Backend)
        body = self.server.name.encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


class Traefik:
    """What its users see."""

    def __init__(self, port: int) -> None:
        self._port = port

    def listens(self) -> bool:
        with contextlib.suppress(ConnectionRefusedError):
            return bool(self.ask("/"))
        return False

    def ask(self, path: str) -> str:
        """The name of the backend that answered, or the status that Traefik gave instead."""
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=10)
        with contextlib.closing(connection):
            connection.request("GET", path)
            reply = connection.getresponse()
            body = reply.read().decode()
            return body if reply.status == 200 else str(reply.status)

    def count(self, path: str, times: int) -> Counter[str]:
        return Counter(self.ask(path) for _ in range(times))

    def comes_to(self, path: str, *names: str) -> None:
        """These answer, all of them; and from then on nobody else does."""
        eventually(lambda: set(self.count(path, SEEN_IN)) == set(names), f"{path} is answered by {names}")
        found = self.count(path, STEADY)
        assert set(found) == set(names), found


@pytest.fixture(scope="session")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with milkrun(tmp_path_factory.mktemp("traefik-registry")) as server:
        yield server


@pytest.fixture(scope="module")
def traefik(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., AbstractContextManager[Traefik]]:
    """Starts one, which listens and asks on loopback only."""

    @contextmanager
    def start(*options: str) -> Iterator[Traefik]:
        folder = tmp_path_factory.mktemp("traefik")
        binary = shutil.which("traefik", path=str(Path(sys.executable).parent)) or "traefik"
        port, log = free_port(), folder / "log"
        command = [
            binary,
            "--global.checknewversion=false",
            "--global.sendanonymoususage=false",
            f"--entrypoints.web.address=127.0.0.1:{port}",
            "--providers.providersthrottleduration=100ms",
            "--log.level=WARN",
            *options,
        ]
        with (
            log.open("w") as sink,
            subprocess.Popen(command, stdout=sink, stderr=subprocess.STDOUT, cwd=folder) as process,
        ):
            try:
                front = Traefik(port)
                eventually(lambda: process.poll() is None and front.listens(), f"Traefik serves: {log}")
                yield front
                assert process.poll() is None, f"Traefik ended by itself:\n{log.read_text()[-4000:]}"
            finally:
                process.terminate()
                process.wait(30)

    return start


@pytest.fixture
def backend() -> Iterator[Callable[[str], Backend]]:
    """Starts one; all end with the test."""
    with contextlib.ExitStack() as held:

        def start(name: str) -> Backend:
            server = held.enter_context(Backend(name))
            thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
            thread.start()
            held.callback(thread.join)
            held.callback(server.shutdown)
            return server

        yield start
