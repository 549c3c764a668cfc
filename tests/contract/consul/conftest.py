"""The same cases against the embedded registry and against a real Consul, each in a process of its own."""

from __future__ import annotations

import contextlib
import http.client
import itertools
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

ROOT = Path(__file__).parents[3]
START_S = 20.0

EMBEDDED = """
import asyncio, sys
from pathlib import Path
import structlog
from milkrun.registry.server import running

structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))

async def main():
    async with running(("127.0.0.1", 0), Path(sys.argv[1]), node=sys.argv[2]) as (_, address):
        print(address[1], flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""


class Answer:
    """One HTTP answer."""

    def __init__(self, reply: http.client.HTTPResponse) -> None:
        self.status = reply.status
        self.headers = reply.headers
        self.body = reply.read()

    @property
    def text(self) -> str:
        return self.body.decode()

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def index(self) -> int:
        return int(self.headers["X-Consul-Index"])


class Server:
    """A registry under test. `unique` gives names that no other test uses."""

    def __init__(self, kind: str, port: int) -> None:
        self.kind = kind
        self.port = port
        self._names = itertools.count()

    def unique(self, stem: str) -> str:
        return f"{stem}-{next(self._names)}"

    def ask(self, method: str, path: str, body: Any = None, **params: str) -> Answer:
        raw = body if isinstance(body, bytes | None) else body.encode() if isinstance(body, str) else None
        if body is not None and raw is None:
            raw = json.dumps(body).encode()
        query = f"?{urlencode(params)}" if params else ""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        with contextlib.closing(connection):
            connection.request(method, path + query, body=raw)
            return Answer(connection.getresponse())

    def get(self, path: str, **params: str) -> Answer:
        return self.ask("GET", path, **params)

    def put(self, path: str, body: Any = None, **params: str) -> Answer:
        return self.ask("PUT", path, body, **params)

    def delete(self, path: str, **params: str) -> Answer:
        return self.ask("DELETE", path, **params)

    def session(self, **body: Any) -> str:
        created = self.put("/v1/session/create", {"LockDelay": "0s", **body})
        assert created.status == 200, created.text
        return str(created.json["ID"])

    def wait_until(self, what: str, path: str, holds: Any) -> Answer:
        """The first answer that `holds`; a blocking query brings each next one."""
        deadline = time.monotonic() + 10
        index = 0
        while time.monotonic() < deadline:
            answer = self.get(path, **({"index": str(index), "wait": "2s"} if index else {}))
            if holds(answer):
                return answer
            index = answer.index
        raise AssertionError(f"{what}: not within 10 s; last {answer.status} {answer.text}")

    def parked(self, path: str, index: int, **params: str) -> Parked:
        return Parked(self, path, {"index": str(index), "wait": "20s", **params})


class Parked:
    """A blocking query that runs in a thread."""

    def __init__(self, server: Server, path: str, params: dict[str, str]) -> None:
        self.answer: Answer | None = None
        self._thread = threading.Thread(
            target=lambda: setattr(self, "answer", server.get(path, **params)), daemon=True
        )
        self._thread.start()

    def still_waits(self, for_s: float = 0.3) -> bool:
        self._thread.join(for_s)
        return self._thread.is_alive()

    def result(self) -> Answer:
        self._thread.join(15)
        assert self.answer is not None, "the blocking query did not come back"
        return self.answer


@pytest.fixture(
    scope="session", params=["embedded", pytest.param("consul", marks=pytest.mark.needs("consul"))]
)
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp(f"contract-{request.param}")
    with embedded(folder) if request.param == "embedded" else consul(folder) as server:
        yield server


@contextlib.contextmanager
def embedded(folder: Path, node: str = "n1") -> Iterator[Server]:
    """The embedded registry serves meanwhile."""
    with _process([sys.executable, "-c", EMBEDDED, str(folder / "data"), node], folder / "log") as process:
        assert process.stdout
        yield Server("embedded", int(process.stdout.readline()))


@contextlib.contextmanager
def consul(folder: Path, node: str = "n1", **more: Any) -> Iterator[Server]:
    """A real Consul serves meanwhile, with some settings more."""
    binary = os.environ.get("MILKRUN_CONSUL") or shutil.which("consul") or str(ROOT / ".parts" / "consul")
    ports = dict(zip(("http", "server", "serf_lan"), _free_ports(3), strict=True))
    settings = folder / "consul.json"
    settings.write_text(
        json.dumps(
            {
                "node_name": node,
                "ports": {**ports, "dns": -1, "serf_wan": -1, "grpc": -1},
                "disable_update_check": True,
                "limits": {"http_max_conns_per_client": 1000},
                **more,
            }
        )
    )
    command = [
        binary,
        "agent",
        "-dev",
        "-bind",
        "127.0.0.1",
        "-config-file",
        str(settings),
        "-log-level",
        "err",
    ]
    with _process(command, folder / "log") as process:
        server = Server("consul", ports["http"])
        deadline = time.monotonic() + START_S
        while True:
            with contextlib.suppress(OSError, AssertionError, ValueError):  # an error, in words
                # Its own node must be in the catalog, or sessions are refused.
                assert server.get(f"/v1/catalog/node/{node}").json
                assert server.get(f"/v1/health/node/{node}").json
                break
            if process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"Consul did not start:\n{(folder / 'log').read_text()[-2000:]}")
            time.sleep(0.1)
        yield server


@contextlib.contextmanager
def _process(command: list[str], log: Path) -> Iterator[subprocess.Popen[str]]:
    with (
        log.open("w") as sink,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=sink, text=True) as process,
    ):
        try:
            yield process
        finally:
            process.kill()


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


@pytest.fixture
def same() -> Any:
    """Compares JSON with what is wanted: only the fields that `wanted` names, and patterns match whole texts."""

    def check(found: Any, wanted: Any) -> None:
        if isinstance(wanted, dict):
            assert isinstance(found, dict), f"{found!r} is not an object"
            for name, each in wanted.items():
                assert name in found, f"{name} is missing in {found}"
                check(found[name], each)
        elif isinstance(wanted, list):
            assert isinstance(found, list)
            assert len(found) == len(wanted), f"{found!r} has not {len(wanted)} items"
            for one, other in zip(found, wanted, strict=True):
                check(one, other)
        elif isinstance(wanted, re.Pattern):
            assert wanted.fullmatch(found), f"{found!r} is not {wanted.pattern!r}"
        else:
            assert found == wanted

    return check
