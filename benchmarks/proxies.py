"""The proxies that benchmarks/peers.py compares: each started with one service of four instances."""

from __future__ import annotations

import asyncio
import json
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import msgspec
from ports import free_port
from router import running

from milkrun.model import InstanceId, ServiceName, VersionName
from milkrun.router.desired import RoutingState, Server
from milkrun.router.diff import diff
from milkrun.router.envoy import binary as envoy_binary
from milkrun.router.front import Front, Route
from milkrun.router.haproxy import binary
from milkrun.router.haproxy.plane import HAProxy
from milkrun.settings.service import TrafficSettings

GOAT = ServiceName("goat")
UNPACKED = Path(__file__).parent.parent / ".parts" / "peers" / "usr"
SHORT = """\
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
{servers}"""
CAREFUL = """\
global
  stats socket unix@admin.sock mode 600 level admin
defaults
  mode http
  timeout connect 500ms
  timeout http-request 10s
  timeout http-keep-alive 30s
  timeout client 1m
  timeout server 1m
  retries 3
  option redispatch 1
  retry-on conn-failure empty-response
  option idle-close-on-response
  option forwardfor
frontend front
  bind 127.0.0.1:{port}
  http-request disable-l7-retry unless METH_GET
  http-request set-header x-forwarded-proto http
  use_backend second if {{ rand(100) lt 10 }}
  default_backend first
backend first
  balance roundrobin
{first}backend second
  balance roundrobin
{second}"""
NGINX = """\
worker_processes auto;
daemon off;
user root;
pid nginx.pid;
error_log stderr;
events {{ worker_connections 4096; }}
http {{
  access_log off;
  client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi; uwsgi_temp_path uwsgi;
  scgi_temp_path scgi;
  upstream goat {{ {servers} keepalive 64; }}
  server {{
    listen 127.0.0.1:{port};
    keepalive_requests 1000000000;
    location / {{ proxy_pass http://goat; proxy_http_version 1.1; proxy_set_header Connection ""; }}
  }}
}}
"""


class Load(msgspec.Struct, frozen=True):
    """What one proxy carried in one run."""

    rate: float
    p99_ms: float
    cpu_us: float


class Proxy(msgspec.Struct):
    """One that runs: where it listens, and the folder that all its processes work in. `together` are the ratios of its
    processor time a request to that of the one beside which it was loaded.
    """

    port: int
    folder: Path
    loads: list[Load] = []
    together: list[float] = []


def addresses(upstream: int) -> list[str]:
    return [f"127.0.0.{number}:{upstream}" for number in range(1, 5)]


@contextmanager
def _started(command: list[str], folder: Path, port: int) -> Iterator[Proxy]:
    with running(command, folder / "log", cwd=folder, start_new_session=True):
        yield Proxy(port, folder)


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


def _haproxy(folder: Path, port: int, text: str) -> AbstractContextManager[Proxy]:
    (folder / "haproxy.cfg").write_text(text)
    return _started([binary.find().path, "-db", "-f", "haproxy.cfg"], folder, port)


def short(folder: Path, upstream: int) -> AbstractContextManager[Proxy]:
    """The shortest file by hand: one backend, checks, no retries."""
    port = free_port()
    lines = [f"  server s{number} {address} check\n" for number, address in enumerate(addresses(upstream))]
    return _haproxy(folder, port, SHORT.format(port=port, servers="".join(lines)))


def careful(folder: Path, upstream: int) -> AbstractContextManager[Proxy]:
    """A file by hand with the driven one's duties: a split in hundredths, checks that also see traffic, retries that
    lose no GET and repeat no POST, who called. It counts no latency, believes forged headers and needs a reload.
    """
    port = free_port()
    watched = "check observe layer4 error-limit 1 on-error mark-down"
    lines = [
        f"  server s{number} {address} {watched}\n" for number, address in enumerate(addresses(upstream))
    ]
    text = CAREFUL.format(port=port, first="".join(lines[::2]), second="".join(lines[1::2]))
    return _haproxy(folder, port, text)


def traefik(folder: Path, upstream: int) -> AbstractContextManager[Proxy]:
    port = free_port()
    servers = [{"url": f"http://{address}"} for address in addresses(upstream)]
    dynamic = {
        "http": {
            "routers": {"goat": {"rule": "PathPrefix(`/`)", "service": "goat"}},
            "services": {"goat": {"loadBalancer": {"servers": servers}}},
        }
    }
    (folder / "dynamic.yml").write_text(json.dumps(dynamic))  # JSON is YAML
    command = [
        str(Path(sys.executable).parent / "traefik"),
        f"--entrypoints.web.address=127.0.0.1:{port}",
        "--providers.file.filename=dynamic.yml",
        "--log.level=ERROR",
        "--global.sendanonymoususage=false",
        "--global.checknewversion=false",
    ]
    return _started(command, folder, port)


def nginx(folder: Path, upstream: int) -> AbstractContextManager[Proxy]:
    port = free_port()
    servers = " ".join(f"server {address};" for address in addresses(upstream))
    (folder / "nginx.conf").write_text(NGINX.format(port=port, servers=servers))
    return _started([_program("nginx"), "-p", str(folder), "-c", "nginx.conf", "-e", "stderr"], folder, port)


def caddy(folder: Path, upstream: int) -> AbstractContextManager[Proxy]:
    port = free_port()
    handler = {"handler": "reverse_proxy", "upstreams": [{"dial": each} for each in addresses(upstream)]}
    handler["load_balancing"] = {"selection_policy": {"policy": "round_robin"}}
    server = {
        "listen": [f"127.0.0.1:{port}"],
        "routes": [{"handle": [handler]}],
        "automatic_https": {"disable": True},
    }
    config = {"admin": {"disabled": True}, "apps": {"http": {"servers": {"goat": server}}}}
    (folder / "caddy.json").write_text(json.dumps(config))
    return _started([_program("caddy"), "run", "--config", "caddy.json"], folder, port)


def envoy(folder: Path, upstream: int) -> AbstractContextManager[Proxy]:
    port = free_port()
    (folder / "envoy.json").write_text(json.dumps(_envoy(port, upstream)))
    command = [envoy_binary.find().path, "-c", "envoy.json", "--concurrency", "2", "--disable-hot-restart"]
    return _started([*command, "--log-level", "error"], folder, port)


def _envoy(port: int, upstream: int) -> dict[str, object]:
    """One listener, one route, one cluster, in round robin."""
    types = "type.googleapis.com/envoy.extensions.filters"

    def at(host: str, number: int) -> dict[str, object]:
        return {"socket_address": {"address": host, "port_value": number}}

    everything = {"match": {"prefix": "/"}, "route": {"cluster": "goat"}}
    manager = {
        "@type": f"{types}.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "goat",
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [everything]}]},
        "http_filters": [
            {"name": "router", "typed_config": {"@type": f"{types}.http.router.v3.Router"}},
        ],
    }
    chain = {"filters": [{"name": "http", "typed_config": manager}]}
    endpoints = [{"endpoint": {"address": at(each.split(":")[0], upstream)}} for each in addresses(upstream)]
    cluster = {
        "name": "goat",
        "type": "STATIC",
        "connect_timeout": "1s",
        "circuit_breakers": {"thresholds": [{"max_connections": 9000, "max_requests": 9000}]},
        "load_assignment": {"cluster_name": "goat", "endpoints": [{"lb_endpoints": endpoints}]},
    }
    listener = {"name": "front", "address": at("127.0.0.1", port), "filter_chains": [chain]}
    return {"static_resources": {"listeners": [listener], "clusters": [cluster]}}


def _program(name: str) -> str:
    """This machine's own, or the one that benchmarks/parts.sh unpacked; empty when there is none."""
    unpacked = [UNPACKED / folder / name for folder in ("sbin", "bin")]
    return shutil.which(name) or next((str(path) for path in unpacked if path.is_file()), "")


def all_here() -> dict[str, Callable[[Path, int], AbstractContextManager[Proxy]]]:
    """The proxies that this machine has."""
    here: dict[str, Callable[[Path, int], AbstractContextManager[Proxy]]] = {
        "driven": driven,
        "careful file": careful,
        "short file": short,
        "Traefik": traefik,
        "Envoy": envoy,
    }
    if _program("nginx"):
        here["nginx"] = nginx
    if _program("caddy"):
        here["Caddy"] = caddy
    return here
