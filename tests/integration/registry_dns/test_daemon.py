"""`milkrun registry --dns`: the daemon as people start it."""

from __future__ import annotations

import contextlib
import http.client
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import dns.message
import dns.query
import pytest
from ports import free_ports

HOST = "127.0.0.1"
WITHIN_S = 20.0


@contextlib.contextmanager
def registry(folder: Path, http_port: int, *options: str) -> Iterator[None]:
    command = [
        sys.executable,
        "-m",
        "milkrun",
        "registry",
        "--acl",
        "open",
        "--http",
        f"{HOST}:{http_port}",
        *options,
    ]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            [*command, "--data", str(folder / "data")], stdout=log, stderr=log, cwd=folder
        )
        try:
            deadline = time.monotonic() + WITHIN_S
            while True:
                with contextlib.suppress(OSError):
                    call(http_port, "GET", "/v1/status/leader")
                    break
                assert process.poll() is None, (folder / "log").read_text()
                assert time.monotonic() < deadline
                time.sleep(0.05)
            yield
        finally:
            process.kill()
            process.wait()


def call(port: int, method: str, path: str, body: object = None) -> None:
    connection = http.client.HTTPConnection(HOST, port, timeout=10)
    with contextlib.closing(connection):
        connection.request(method, path, json.dumps(body) if body is not None else None)
        assert connection.getresponse().status == 200


def goats(port: int) -> str:
    query = dns.message.make_query("goat.service.consul", "SRV")
    return dns.query.udp(query, HOST, port=port, timeout=5).answer[0][0].to_text()


def test_what_is_registered_over_http_is_found_by_dns_also_after_a_restart(tmp_path: Path):
    http_port, dns_port = free_ports(2)
    options = ("--dns", f"{HOST}:{dns_port}", "--srv-weight-scale", "256")
    with registry(tmp_path, http_port, *options):
        goat = {"Name": "goat", "Address": "10.0.0.1", "Port": 8101, "Weights": {"Passing": 9, "Warning": 1}}
        call(http_port, "PUT", "/v1/agent/service/register", goat)
        assert goats(dns_port) == "1 2304 8101 0a000001.addr.dc1.consul."
    with registry(tmp_path, http_port, *options):
        assert goats(dns_port) == "1 2304 8101 0a000001.addr.dc1.consul."


def test_without_the_option_there_is_no_dns(tmp_path: Path):
    http_port, dns_port = free_ports(2)
    with registry(tmp_path, http_port), pytest.raises(ConnectionRefusedError):
        dns.query.tcp(dns.message.make_query("consul", "SOA"), HOST, port=dns_port, timeout=5)
