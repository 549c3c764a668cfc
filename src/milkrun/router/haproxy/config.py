"""HAProxy's configuration file and map, written from values. Pure.

The file names its sockets and map relative to its own folder, which is HAProxy's working directory.

- `idle-close-on-response`: without it each reload costs keep-alive clients errors (research: M1).
- `retry-on conn-failure empty-response`, GET and HEAD only: a killed instance costs no idempotent request; a
  POST is sent again only when it surely never arrived (its connection was refused).
- `retries 30`: a killed instance's idle connections end one after the other, and each try may be given one of
  them. Three tries lost requests on a machine under load (1 of 4,000 around a kill); a refused connection ends the
  tries on that server at once.
- `timeout connect` is also the pause before the same server is tried again.
- `observe layer4 error-limit 1`: one refused connection takes a server out until it accepts again.
- the server `spill` in each lane: when a lane has nobody left, its requests go to the whole service's pool, so a
  version whose last instance died costs nobody a request before the shares have moved.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import msgspec

from milkrun.model import ServiceName, VersionName
from milkrun.router.desired import Mode, RoutingState, Server
from milkrun.router.haproxy import encode

CHECK = "check inter 1s fastinter 200ms downinter 500ms fall 2 rise 1 observe layer4 error-limit 1 on-error mark-down"
ADMIN_SOCKET = "admin.sock"
MASTER_SOCKET = "master.sock"
SPILL_SOCKET = "spill.sock"
CONFIG_FILE = "haproxy.cfg"


class Layout(msgspec.Struct, frozen=True, kw_only=True):
    """What only a reload can change: addresses and the number of lanes."""

    service: ServiceName
    listen: tuple[str, int]
    stats: tuple[str, int]
    lanes: int


def map_name(service: ServiceName) -> str:
    """The map's file, which is also its name on the socket."""
    return f"{service}.map"


def pool_name(service: ServiceName) -> str:
    """The backend with every instance that has a share."""
    return f"{service}.all"


def render(layout: Layout, lanes: Mapping[VersionName, int], state: RoutingState) -> str:
    """The whole file. Started from it, HAProxy serves `state`."""
    versions = {number: version for version, number in lanes.items()}
    lines = [*_head(layout)]
    for number in range(layout.lanes):
        lines += [
            "",
            f"backend {encode.lane(layout.service, number)}",
            "  balance roundrobin",
            f"  server spill unix@{SPILL_SOCKET} backup",
        ]
        if number in versions:
            lines += [_server_line(server) for server in state.versions.get(versions[number], {}).values()]
    lines += ["", f"backend {pool_name(layout.service)}", "  balance roundrobin"]
    lines += [_server_line(server) for server in pool(state).values()]
    return "\n".join(lines) + "\n"


def render_map(service: ServiceName, state: RoutingState, lanes: Mapping[VersionName, int]) -> str:
    """The map's file: which of the 10,000 slots goes to which lane."""
    return "".join(f"{slots} {lane}\n" for slots, lane in encode.ranges(service, state.shares, lanes))


def pool(state: RoutingState) -> dict[str, Server]:
    """The servers that catch what a lane cannot serve: all that take requests and whose version has a share."""
    return {
        server.id: server
        for version in state.shares
        for server in state.versions.get(version, {}).values()
        if server.mode is Mode.SERVE
    }


def _server_line(server: Server) -> str:
    name, address, weight = encode.server(server)
    out = " disabled" if server.mode is Mode.DRAIN else ""
    return f"  server {name} {address} {CHECK} weight {weight}{out}"


def _head(layout: Layout) -> Iterator[str]:
    service = layout.service
    yield f"""\
# Written by milkrun's router for the service {service}. It always equals what runs: edits here are overwritten.
global
  stats socket unix@{ADMIN_SOCKET} mode 600 level admin
  stats maxconn 32
  stats timeout 2m
  hard-stop-after 10m
  mworker-max-reloads 8

defaults
  mode http
  timeout connect 500ms
  timeout http-request 10s
  timeout http-keep-alive 30s
  timeout queue 5s
  timeout client 1m
  timeout server 1m
  timeout tunnel 1h
  retries 30
  option redispatch 1
  retry-on conn-failure empty-response
  option idle-close-on-response
  option forwardfor

frontend {service}
  description requests for {service}, split by version
  bind {encode.bind(*layout.listen)}
  http-request disable-l7-retry unless METH_GET
  use_backend %[rand(10000),map_int({map_name(service)})]
  default_backend {service}.none

frontend {service}.spill
  description what a lane with nobody left hands on
  bind unix@{SPILL_SOCKET} mode 600
  http-request disable-l7-retry unless METH_GET
  default_backend {pool_name(service)}

frontend {service}.stats
  bind {encode.bind(*layout.stats)}
  http-request redirect location /monitor if {{ path / }}
  stats enable
  stats uri /monitor
  stats refresh 5s
  stats show-legends
  stats show-desc milkrun: {service}

backend {service}.none
  description no instance of {service} is in service
  http-request return status 503 content-type text/plain string "no instance of {service} is in service\\n\""""
