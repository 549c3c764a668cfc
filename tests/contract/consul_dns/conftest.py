"""The embedded registry and a real Consul with the same catalog, both asked by dnspython."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import dns.flags
import dns.message
import dns.query
import dns.rcode
import dns.rdatatype
import pytest
from ports import free_ports

ROOT = Path(__file__).parents[3]
START_S = 20.0

EMBEDDED = """
import asyncio, sys
from pathlib import Path
from milkrun.registry.server import serve

http, dns, folder = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
asyncio.run(serve(("127.0.0.1", http), folder, node="n1", dns=("127.0.0.1", dns)))
"""


class Row(NamedTuple):
    """One record, as text."""

    owner: str
    ttl: int
    type: str
    data: str


class Answer(NamedTuple):
    """One answer without its id; sections are sorted, for both servers shuffle."""

    rcode: str
    flags: str
    edns: int
    answer: list[Row]
    authority: list[Row]
    additional: list[Row]

    def __str__(self) -> str:
        """In a word: how it ended, or the types that it holds."""
        if self.rcode != "NOERROR":
            return self.rcode
        return " ".join(row.type for row in self.answer) or "NODATA"


class Server:
    def __init__(self, http_port: int, dns_port: int) -> None:
        self.http_port = http_port
        self.dns_port = dns_port

    def call(self, method: str, path: str, body: Any = None) -> Any:
        connection = http.client.HTTPConnection("127.0.0.1", self.http_port, timeout=10)
        with contextlib.closing(connection):
            connection.request(method, path, json.dumps(body) if body is not None else None)
            reply = connection.getresponse()
            data = reply.read()
            assert reply.status == 200, f"{path}: {reply.status} {data!r}"
            return json.loads(data) if data else None

    def ask(self, name: str, kind: str, *, tcp: bool = False, payload: int = 0) -> Answer:
        query = dns.message.make_query(name, kind, use_edns=0 if payload else False, payload=payload or 512)
        send = dns.query.tcp if tcp else dns.query.udp
        reply = send(query, "127.0.0.1", port=self.dns_port, timeout=5)
        assert reply.id == query.id
        assert reply.question[0].name.to_text() == query.question[0].name.to_text(), "letters are kept"
        return Answer(
            dns.rcode.to_text(reply.rcode()),
            dns.flags.to_text(reply.flags),
            reply.edns,
            *(_rows(section) for section in (reply.answer, reply.authority, reply.additional)),
        )

    def send(self, data: bytes) -> bytes | None:
        """What comes back for the datagram within half a second."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.settimeout(0.5)
            client.sendto(data, ("127.0.0.1", self.dns_port))
            with contextlib.suppress(TimeoutError):
                return client.recv(65535)
        return None


class Both(NamedTuple):
    ours: Server
    consul: Server


def _rows(section: list[Any]) -> list[Row]:
    rows = []
    for rrset in section:
        for record in rrset:
            kind = dns.rdatatype.to_text(rrset.rdtype)
            data = record.to_text()
            if kind == "SOA":
                fields = data.split()
                data = " ".join([*fields[:2], "SERIAL", *fields[3:]])
            rows.append(Row(rrset.name.to_text(), rrset.ttl, kind, data))
    return sorted(rows)


@pytest.fixture(scope="session")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Both]:
    folder = tmp_path_factory.mktemp("dns")
    binary = os.environ.get("MILKRUN_CONSUL") or shutil.which("consul") or str(ROOT / ".parts" / "consul")
    http_a, dns_a, http_b, dns_b, server, serf = free_ports(6)
    ports = {"http": http_b, "dns": dns_b, "server": server, "serf_lan": serf, "serf_wan": -1, "grpc": -1}
    settings = folder / "consul.json"
    settings.write_text(json.dumps({"node_name": "n1", "ports": ports, "disable_update_check": True}))
    consul = [
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
    ours = [sys.executable, "-c", EMBEDDED, str(http_a), str(dns_a), str(folder / "data")]
    with _process(ours, folder / "ours.log"), _process(consul, folder / "consul.log"):
        found = Both(Server(http_a, dns_a), Server(http_b, dns_b))
        for each in found:
            _until(lambda each=each: each.call("GET", "/v1/health/node/n1"))
            seed(each)
        yield found


def _until(holds: Any) -> None:
    deadline = time.monotonic() + START_S
    while True:
        with contextlib.suppress(OSError, AssertionError):
            if holds():
                return
        assert time.monotonic() < deadline, "not within 20 s"
        time.sleep(0.05)


@contextlib.contextmanager
def _process(command: list[str], log: Path) -> Iterator[None]:
    with log.open("w") as sink, subprocess.Popen(command, stdout=sink, stderr=sink) as process:
        try:
            yield
        finally:
            process.kill()


def seed(server: Server) -> None:
    """The catalog that the questions are about."""

    def service(service_id: str, name: str, address: str = "", port: int = 80, **more: Any) -> None:
        body = {"ID": service_id, "Name": name, "Address": address, "Port": port, **more}
        server.call("PUT", "/v1/agent/service/register", body)

    def check(status: str, check_id: str) -> dict[str, str]:
        return {"CheckID": check_id, "TTL": "1h", "Status": status}

    def node(name: str, address: str, service: str = "", port: int = 0, **more: Any) -> None:
        body = {"Node": name, "Address": address, **more}
        if service:
            body["Service"] = {"ID": f"{service}-1", "Service": service, "Port": port}
        server.call("PUT", "/v1/catalog/register", body)

    weights = {"Passing": 10, "Warning": 3}
    service("web-1", "web", "127.0.0.11", 8001, Tags=["v1", "Prod"], Weights=weights)
    service("web-2", "web", "127.0.0.12", 8002, Tags=["v2"], Weights=weights, Check=check("warning", "c2"))
    service("web-3", "web", "127.0.0.13", 8003, Tags=["v2"], Check=check("critical", "c3"))
    service("web-4", "web", "", 8004, Tags=["v1"])
    service("web-5", "web", "127.0.0.15", 8005)
    server.call("PUT", "/v1/agent/service/maintenance/web-5?enable=true&reason=milking")
    service("six-1", "six", "2001:db8::15", 9001)
    service("dual-1", "dual", "127.0.0.16", 9002)
    service("dual-2", "dual", "2001:DB8:0::16", 9003)
    service("named-1", "named", "some.host.example.com", 9004)
    service("alias-1", "alias", "web.service.consul", 9005)
    service("mix-1", "mix", "other.host.example.com", 9006)
    service("mix-2", "mix", "127.0.0.17", 9007)
    service("odd-1", "odd", "not a host", 9008)
    service("cat-1", "Cat", "127.0.0.21", 9100, Tags=["Big", "version=0.0.1"])
    service("dotted-1", "dotted", "127.0.0.22", 9101, Tags=["a.b"])
    service("same-1", "same", "127.0.0.30", 9200)
    service("same-2", "same", "127.0.0.30", 9201)
    service("own-1", "own", "127.0.0.1", 9202)
    service("dead-1", "dead", "127.0.0.31", 9203, Check=check("critical", "dead"))
    service("portless-1", "portless", "127.0.0.32", 0)
    service("under_score-1", "under_score", "127.0.0.33", 9204)
    service("heavy-1", "heavy", "127.0.0.34", 9205, Weights={"Passing": 65535, "Warning": 1})
    for number in range(60):
        service(f"many-{number}", "many", f"127.0.1.{number + 1}", 9300 + number)
    ill = {"Node": "ext", "CheckID": "nc", "Name": "nc", "Status": "critical"}
    node("ext", "10.1.2.3", "ext", 77, NodeMeta={"rack": "r2", "rfc1035-note": "plain"}, Check=ill)
    node("ext2", "10.1.2.4", "ext", 78)
    node("host.name", "ext.example.com", "far", 79)
    node("sixth", "2001:db8::7", "sixth", 79)
    node("Upper", "10.1.2.9", "upper", 79)
    node("bad node", "10.1.2.5", "bad", 79)
    # An agent brings its services into the catalog a little later.
    _until(lambda: {"web", "many", "heavy"} <= server.call("GET", "/v1/catalog/services").keys())
    _until(lambda: len(server.call("GET", "/v1/health/service/many")) == 60)
    _until(
        lambda: (
            sorted(
                each["Status"]
                for row in server.call("GET", "/v1/health/service/web")
                for each in row["Checks"]
            ).count("critical")
            == 2
        )
    )
    _until(lambda: server.call("GET", "/v1/health/service/dead")[0]["Checks"][1:])
