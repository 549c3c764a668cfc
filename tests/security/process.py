"""`milkrun registry` as a process of its own, asked over its socket with the tokens that a test names."""

from __future__ import annotations

import contextlib
import http.client
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ports import free_ports

WITHIN_S = 30.0


class Answer:
    def __init__(self, reply: http.client.HTTPResponse) -> None:
        self.status = reply.status
        self.headers = reply.headers
        self.body = reply.read()

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Daemon:
    """One registry with its folder; it can be started again."""

    def __init__(self, folder: Path, acl: str = "default") -> None:
        self.data = folder / "data"
        self.token_file = self.data / "token"
        self.log = folder / "log"
        self.port, self.dns = free_ports(2)
        self.acl = acl
        self.host = "127.0.0.1"
        self.process: subprocess.Popen[bytes]

    @property
    def token(self) -> str:
        return self.token_file.read_text().strip()

    def start(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "milkrun", "registry", "--http", f"{self.host}:{self.port}"]
        command += [
            "--dns",
            f"{self.host}:{self.dns}",
            "--data",
            str(self.data),
            "--host",
            "n1",
            "--acl",
            self.acl,
        ]
        with self.log.open("ab") as sink:
            self.process = subprocess.Popen(command, stdout=sink, stderr=sink, cwd=self.data.parent)
        return self.process

    @contextlib.contextmanager
    def serving(self) -> Iterator[Daemon]:
        """It serves meanwhile, and then ends as it should."""
        process = self.start()
        try:
            end = time.monotonic() + WITHIN_S
            while not self._answers():
                assert process.poll() is None, self.log.read_text()
                assert time.monotonic() < end, "it does not serve"
                time.sleep(0.02)
            yield self
            process.terminate()
            assert process.wait(WITHIN_S) in (0, 143), self.log.read_text()
        finally:
            process.kill()
            process.wait()

    def _answers(self) -> bool:
        with contextlib.suppress(OSError):
            return self.ask("GET", "/v1/status/leader").status == 200
        return False

    def ask(self, method: str, path: str, body: Any = None, token: str = "", **headers: str) -> Answer:
        raw = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        if token:
            headers["X-Consul-Token"] = token
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        with contextlib.closing(connection):
            connection.request(method, path, body=raw, headers=headers)
            return Answer(connection.getresponse())

    def must(self, method: str, path: str, body: Any = None) -> Any:
        """What the holder of the registry's own token is answered."""
        answer = self.ask(method, path, body, self.token)
        assert answer.status == 200, answer.body
        return json.loads(answer.body) if answer.body else None

    def must_bytes(self, path: str) -> bytes:
        """The bytes that the holder of the registry's own token is sent."""
        answer = self.ask("GET", path, token=self.token)
        assert answer.status == 200, answer.body
        return answer.body

    def made(self, rules: str, name: str = "p") -> tuple[str, str, str]:
        """A token with a policy of its own: its secret, its accessor, and the policy's id."""
        policy = self.must("PUT", "/v1/acl/policy", {"Name": name, "Rules": rules})["ID"]
        token = self.must("PUT", "/v1/acl/token", {"Description": name, "Policies": [{"ID": policy}]})
        return token["SecretID"], token["AccessorID"], policy


def asked(port: int, method: str, path: str, body: bytes | None = None) -> tuple[int, bytes]:
    """How somebody on this machine without any token is answered."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    with contextlib.closing(connection):
        connection.request(method, path, body=body)
        reply = connection.getresponse()
        return reply.status, reply.read()
