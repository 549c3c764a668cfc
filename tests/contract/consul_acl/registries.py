"""The registry with `--acl closed` and a real Consul that denies by default, with the same policies and tokens."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from conformance.registries import Answer, Server
from ports import free_ports

ROOT = Path(__file__).parents[3]
START_S = 30.0
MASTER = "11111111-2222-3333-4444-555555555555"
"""The secret that may do everything on both: in our token file, and Consul's master token."""

POLICIES = {
    "shop": 'key_prefix "shop/" { policy = "write" }\nkey "shop/secret" { policy = "deny" }',
    "shop-reads": 'key_prefix "shop/" { policy = "read" }\nkey "shop/a" { policy = "deny" }',
    "goat": 'service "goat" { policy = "write" }\nnode_prefix "" { policy = "read" }',
    "goat-alone": 'service "goat" { policy = "read" }',
    "goat-looks": 'service "goat" { policy = "read" }\nnode "n1" { policy = "read" }',
    "nodes": 'node_prefix "" { policy = "read" }',
    "node-two": 'node "n2" { policy = "write" }',
    "locks": 'session "n1" { policy = "write" }\nkey_prefix "lock/" { policy = "write" }',
    "reads": "\n".join(
        [
            *(
                f'{kind}_prefix "" {{ policy = "read" }}'
                for kind in ("agent", "event", "key", "node", "query", "service", "session")
            ),
            'operator = "read"',
        ]
    ),
    "runs": 'operator = "write"\nkeyring = "read"\nagent "n1" { policy = "write" }',
    "milk": 'event "milk" { policy = "write" }',
    "looks-at-tokens": 'acl = "read"',
    "all-tokens": 'acl = "write"',
    "as-json": '{"key_prefix": {"shop/": {"policy": "read"}}, "operator": "read"}',
}
TOKENS: dict[str, dict[str, Any]] = {
    **{name: {"Policies": [{"Name": name}]} for name in POLICIES},
    "nothing": {},
    "identity": {"ServiceIdentities": [{"ServiceName": "goat"}]},
    "shop-twice": {"Policies": [{"Name": "shop"}, {"Name": "shop-reads"}]},
    "managing": {"Policies": [{"Name": "global-management"}]},
}


def secret(name: str) -> str:
    """The same one on both."""
    return f"aaaaaaaa-0000-0000-0000-{list(TOKENS).index(name):012d}"


class Held(Server):
    """A registry, asked with the headers that a case names."""

    def ask(self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None) -> Answer:
        raw = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        with contextlib.closing(connection):
            connection.request(method, path, body=raw, headers=headers or {})
            return Answer(connection.getresponse())

    def must(self, method: str, path: str, body: Any = None) -> Any:
        """What the holder of everything is answered."""
        answer = self.ask(method, path, body, {"X-Consul-Token": MASTER})
        assert answer.status == 200, f"{self.kind}: {method} {path}: {answer.status} {answer.text}"
        return json.loads(answer.body) if answer.body else None


class Both(NamedTuple):
    ours: Held
    consul: Held


@contextlib.contextmanager
def ours(folder: Path) -> Iterator[Held]:
    """`milkrun registry --acl closed` serves meanwhile."""
    folder.mkdir()
    token = folder / "token"
    token.write_text(MASTER)
    token.chmod(0o600)
    server = Held("milkrun", free_ports(1)[0])
    command = [
        sys.executable,
        "-m",
        "milkrun",
        "registry",
        "--http",
        f"127.0.0.1:{server.port}",
        "--host",
        "n1",
    ]
    command += ["--acl", "closed", "--token-file", str(token), "--data", str(folder / "data")]
    with _process(command, folder) as alive:
        _until(lambda: server.must("GET", "/v1/catalog/node/n1"), alive)
        yield server


@contextlib.contextmanager
def consul(folder: Path) -> Iterator[Held]:
    """A real Consul that denies by default serves meanwhile, out of its legacy mode."""
    folder.mkdir()
    binary = os.environ.get("MILKRUN_CONSUL") or shutil.which("consul") or str(ROOT / ".parts" / "consul")
    port, rpc, serf = free_ports(3)
    settings = {
        "node_name": "n1",
        "ports": {"http": port, "server": rpc, "serf_lan": serf, "dns": -1, "serf_wan": -1, "grpc": -1},
        "disable_update_check": True,
        "acl": {"enabled": True, "default_policy": "deny", "tokens": {"master": MASTER, "agent": MASTER}},
    }
    (folder / "consul.json").write_text(json.dumps(settings))
    command = [binary, "agent", "-dev", "-bind", "127.0.0.1", "-log-level", "err"]
    server = Held("consul", port)
    with _process([*command, "-config-file", str(folder / "consul.json")], folder) as alive:
        _until(lambda: server.must("GET", "/v1/acl/token/self"), alive)  # refused while it is in legacy mode
        _until(lambda: server.must("GET", "/v1/health/node/n1"), alive)
        yield server


@contextlib.contextmanager
def _process(command: list[str], folder: Path) -> Iterator[Callable[[], None]]:
    log = folder / "log"
    with log.open("w") as sink, subprocess.Popen(command, stdout=sink, stderr=sink) as process:

        def alive() -> None:
            assert process.poll() is None, log.read_text()[-2000:]

        try:
            yield alive
        finally:
            process.kill()


def _until(holds: Callable[[], Any], alive: Callable[[], None]) -> None:
    """Until another process has made it true."""
    deadline = time.monotonic() + START_S
    while True:
        why: Exception | None = None
        try:
            if holds():
                return
        except (OSError, AssertionError, ValueError) as error:
            why = error
        alive()
        assert time.monotonic() < deadline, f"not within {START_S} s: {why}"
        time.sleep(0.05)


def populate(server: Held) -> None:
    """What the cases are about."""
    for name in ("goat", "hen"):
        check = {"CheckID": f"check-{name}", "Name": f"check-{name}", "TTL": "1h", "Status": "passing"}
        server.must("PUT", "/v1/agent/service/register", {"ID": f"{name}-1", "Name": name, "Check": check})
    server.must(
        "PUT",
        "/v1/catalog/register",
        {"Node": "n2", "Address": "10.0.0.2", "Service": {"ID": "cow-1", "Service": "cow"}},
    )
    server.must(
        "PUT",
        "/v1/catalog/register",
        {"Node": "n3", "Address": "10.0.0.3", "Service": {"ID": "goat-3", "Service": "goat"}},
    )
    for key in ("shop/a", "shop/b/c", "shop/secret", "other", "lock/a"):
        server.must("PUT", f"/v1/kv/{key}", b"v")
    server.must("PUT", "/v1/session/create", {"Name": "of-one", "Checks": []})
    server.must("PUT", "/v1/session/create", {"Name": "of-two", "Node": "n2", "Checks": []})
    server.must("PUT", "/v1/agent/service/register", {"ID": "duck-1", "Name": "duck"})
    server.must("PUT", "/v1/event/fire/milk")
    for name, rules in POLICIES.items():
        server.must("PUT", "/v1/acl/policy", {"Name": name, "Rules": rules})
    for name, body in TOKENS.items():
        accessor = f"99999999-{secret(name)[9:]}"
        server.must(
            "PUT",
            "/v1/acl/token",
            {"SecretID": secret(name), "AccessorID": accessor, "Description": name, **body},
        )
    # Consul's agent brings what it knows into the catalog a little later.
    _until(
        lambda: {"goat", "hen", "cow", "duck"} <= server.must("GET", "/v1/catalog/services").keys(),
        lambda: None,
    )
    _until(lambda: len(server.must("GET", "/v1/health/checks/goat")) == 1, lambda: None)
    _until(lambda: len(server.must("GET", "/v1/health/checks/hen")) == 1, lambda: None)
    _until(lambda: server.must("GET", "/v1/event/list"), lambda: None)
