"""What the router's HAProxy carries against a hand-written one, and against Traefik and nginx, on the same upstream.

    .venv/bin/python benchmarks/peers.py [--rounds N] [--seconds S] [--json]

Each has one service with four instances (one HAProxy that answers by itself), and is loaded by `wrk` (Debian's package)
on 64 kept connections, one after the other in every round. Of each round the ratio to the hand-written HAProxy is
taken, and of the ratios the median: throughput, p99, and the processor time that the proxy itself took for a request,
which other programs on the machine disturb less. The driven one splits the requests over two versions, knows its
callers, counts latency and probes its instances; the hand-written one does what a short file does. nginx is left out
where it is not installed.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
sys.path.insert(0, str(Path(__file__).parent))

import msgspec
from ports import free_port
from router import answered, haproxies, running, used

from milkrun.model import InstanceId, ServiceName, VersionName
from milkrun.router.desired import RoutingState, Server
from milkrun.router.diff import diff
from milkrun.router.front import Front, Route
from milkrun.router.haproxy import binary
from milkrun.router.haproxy.plane import HAProxy
from milkrun.settings.service import TrafficSettings

GOAT = ServiceName("goat")
HAND = "hand-written"
UPSTREAM = """\
defaults
  mode http
  timeout client 1m
  timeout connect 1s
  timeout server 1m
frontend up
  bind 0.0.0.0:{port}
  http-request return status 200 content-type text/plain string "0123456789"
"""
WRITTEN = """\
defaults
  mode http
  timeout client 1m
  timeout connect 1s
  timeout server 1m
frontend front
  bind 127.0.0.1:{port}
  default_backend goat
backend goat
  balance roundrobin
"""
NGINX = """\
worker_processes auto;
daemon off;
pid nginx.pid;
error_log stderr;
events {{ worker_connections 4096; }}
http {{
  access_log off;
  upstream goat {{ {servers} keepalive 64; }}
  server {{
    listen 127.0.0.1:{port};
    location / {{ proxy_pass http://goat; proxy_http_version 1.1; proxy_set_header Connection ""; }}
  }}
}}
"""


class Load(msgspec.Struct, frozen=True):
    """What one proxy carried in one round."""

    rate: float
    p99_ms: float
    cpu_us: float


class Proxy(msgspec.Struct):
    """One that runs: where it listens, and the folder that all its processes work in."""

    port: int
    folder: Path
    loads: list[Load] = []


def addresses(upstream: int) -> list[str]:
    return [f"127.0.0.{number}:{upstream}" for number in range(1, 5)]


@contextmanager
def driven(folder: Path, upstream: int) -> Iterator[Proxy]:
    """The router's own, whose instances and shares came at run time."""
    port = free_port()
    front = Front(
        name="lb-goat",
        listen=("127.0.0.1", port),
        stats=("127.0.0.1", free_port()),
        routes=(Route(service=GOAT),),
        services={GOAT: TrafficSettings()},
    )
    proxy = HAProxy(folder, binary.find(), front)
    versions: dict[VersionName, dict[InstanceId, Server]] = {}
    for number, address in enumerate(addresses(upstream)):
        server = Server(id=InstanceId(f"goat-{number}"), address=address.split(":")[0], port=upstream)
        versions.setdefault(VersionName(f"0.0.{1 + number % 2}"), {})[server.id] = server
    wanted = RoutingState(
        shares={VersionName("0.0.1"): 9_000, VersionName("0.0.2"): 1_000}, versions=versions
    )

    async def serve() -> None:
        plane = proxy.of(GOAT)
        await proxy.start({})
        await plane.apply(diff(await plane.observe(), wanted), wanted)

    asyncio.run(serve())
    try:
        yield Proxy(port, folder)
    finally:
        asyncio.run(proxy.stop())


@contextmanager
def written(folder: Path, upstream: int) -> Iterator[Proxy]:
    port = free_port()
    lines = [f"  server s{number} {address} check" for number, address in enumerate(addresses(upstream))]
    (folder / "haproxy.cfg").write_text(WRITTEN.format(port=port) + "\n".join(lines) + "\n")
    with running(
        [binary.find().path, "-db", "-f", "haproxy.cfg"], folder / "log", cwd=folder, start_new_session=True
    ):
        yield Proxy(port, folder)


@contextmanager
def traefik(folder: Path, upstream: int) -> Iterator[Proxy]:
    port = free_port()
    servers = [{"url": f"http://{address}"} for address in addresses(upstream)]
    dynamic = {
        "http": {
            "routers": {"goat": {"rule": "PathPrefix(`/`)", "service": "goat"}},
            "services": {"goat": {"loadBalancer": {"servers": servers}}},
        }
    }
    (folder / "dynamic.json").write_text(json.dumps(dynamic))  # JSON is YAML
    (folder / "dynamic.json").rename(folder / "dynamic.yml")
    command = [
        str(Path(sys.executable).parent / "traefik"),
        f"--entrypoints.web.address=127.0.0.1:{port}",
        "--providers.file.filename=dynamic.yml",
        "--log.level=ERROR",
        "--global.sendanonymoususage=false",
        "--global.checknewversion=false",
    ]
    with running(command, folder / "log", cwd=folder, start_new_session=True):
        yield Proxy(port, folder)


@contextmanager
def nginx(folder: Path, upstream: int) -> Iterator[Proxy]:
    port = free_port()
    servers = " ".join(f"server {address};" for address in addresses(upstream))
    (folder / "nginx.conf").write_text(NGINX.format(port=port, servers=servers))
    command = [shutil.which("nginx") or "nginx", "-p", str(folder), "-c", "nginx.conf", "-e", "stderr"]
    with running(command, folder / "log", cwd=folder, start_new_session=True):
        yield Proxy(port, folder)


def loaded(proxy: Proxy, seconds: int) -> Load:
    before = sum(used(pid)[0] for pid in haproxies(proxy.folder))
    command = ["wrk", "-t1", "-c64", f"-d{seconds}s", "--latency", f"http://127.0.0.1:{proxy.port}/"]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    cpu_s = sum(used(pid)[0] for pid in haproxies(proxy.folder)) - before
    requests = re.search(r"(\d+) requests in", said)
    rate = re.search(r"Requests/sec: +([\d.]+)", said)
    p99 = re.search(r"99% +([\d.]+)(us|ms|s)", said)
    if not requests or not rate or not p99 or "Non-2xx" in said:
        sys.exit(f"wrk says:\n{said}")
    scale = {"us": 0.001, "ms": 1.0, "s": 1000.0}[p99[2]]
    return Load(float(rate[1]), float(p99[1]) * scale, cpu_s / int(requests[1]) * 1e6)


def measure(folder: Path, rounds: int, seconds: int) -> dict[str, Proxy]:
    makers = {"driven": driven, HAND: written, "Traefik": traefik}
    if shutil.which("nginx"):
        makers["nginx"] = nginx
    upstream = free_port()
    (folder / "upstream.cfg").write_text(UPSTREAM.format(port=upstream))
    with ExitStack() as held:
        held.enter_context(
            running([binary.find().path, "-db", "-f", str(folder / "upstream.cfg")], folder / "log", cwd="/")
        )
        answered(upstream)
        proxies = {}
        for name, make in makers.items():
            (folder / name).mkdir(mode=0o700)
            proxies[name] = held.enter_context(make(folder / name, upstream))
            answered(proxies[name].port)
        for proxy in proxies.values():
            loaded(proxy, 1)  # warm
        for _ in range(rounds):
            for proxy in proxies.values():
                proxy.loads.append(loaded(proxy, seconds))
    return proxies


def ratios(proxies: dict[str, Proxy], name: str) -> dict[str, float]:
    """The medians of the rounds' ratios to the hand-written one; more is better for `rate`, less for the others."""
    rounds = list(zip(proxies[name].loads, proxies[HAND].loads, strict=True))
    return {
        field: statistics.median(getattr(one, field) / getattr(hand, field) for one, hand in rounds)
        for field in ("rate", "p99_ms", "cpu_us")
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    if not shutil.which("wrk"):
        sys.exit("this loads with wrk, which is not here: install Debian's package")
    with tempfile.TemporaryDirectory() as folder:
        proxies = measure(Path(folder), given.rounds, given.seconds)
    rows = []
    for name, proxy in proxies.items():
        medians = {
            field: statistics.median(getattr(load, field) for load in proxy.loads)
            for field in ("rate", "p99_ms", "cpu_us")
        }
        rows.append({"what": name, **medians, "ratios": ratios(proxies, name)})
    if given.json:
        print(json.dumps({"schema_version": 1, "cores": os.cpu_count(), "rows": rows}))
        return
    print(f"{'':14}{'1/s':>10}{'p99 ms':>9}{'cpu us':>8}   ratios to the hand-written one: rate, p99, cpu")
    for row in rows:
        found = row["ratios"]
        print(
            f"{row['what']:14}{row['rate']:>10,.0f}{row['p99_ms']:>9.2f}{row['cpu_us']:>8.1f}"
            f"{found['rate']:>10.3f}{found['p99_ms']:>8.2f}{found['cpu_us']:>8.2f}"
        )


if __name__ == "__main__":
    main()
