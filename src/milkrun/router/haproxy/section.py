"""One service's backends in HAProxy's file: its lanes, its pool, and what answers when nobody serves. Pure.

- `retry-on conn-failure empty-response`, GET and HEAD only: a killed instance costs no idempotent request; a
  POST is sent again only when it surely never arrived (its connection was refused).
- `observe layer4 error-limit 1`: one refused connection takes a server out until it accepts again.
- the server `spill` in each lane: when a lane has nobody left, its requests go to the whole service's pool, so a
  version whose last instance died costs nobody a request before the shares have moved.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import lru_cache

import msgspec

from milkrun.model import InstanceId, ServiceName, VersionName
from milkrun.router.desired import Mode, RoutingState, Server
from milkrun.router.haproxy import choice, counting, encode, mirror
from milkrun.router.placement import place
from milkrun.settings.service import TrafficSettings

PROBES_A_SECOND = 1000
"""Of one service, at most: each takes HAProxy and an instance a connection."""
POOL_PAUSE = 10
"""The pool's servers are the lanes' own, and only asked when a lane has nobody left: probed so much more seldom."""
POOL_PROBED_AT_MOST = 1000
"""With more servers the pool's are not probed: HAProxy sets a descriptor aside for each that is, and with the lanes'
and the pool's of ten thousand it had none left for callers. What does not take a connection is tried elsewhere, and
soon not there: what the lanes' probes find dead is drained in the pool too.
"""
_BALANCE = {
    "round-robin": "roundrobin",
    "least-connections": "leastconn",
    "two-choices": "random(2)",
}
_LINES_REMEMBERED = 65_536
TUNNEL_S = 3600.0
"""For so long nothing may move once HAProxy reads the bytes no more: on a WebSocket, and in TCP."""


class Section(msgspec.Struct, frozen=True, kw_only=True):
    """What only a reload can change of a service: the number of its lanes, and how it is treated."""

    lanes: int
    traffic: TrafficSettings = TrafficSettings()


def pool_name(service: ServiceName) -> str:
    """The backend with every instance that has a share."""
    return f"{service}.all"


def spill_socket(service: ServiceName) -> str:
    """The socket by which a lane with nobody left reaches the pool."""
    return f"{service}.spill.sock"


class Beside(msgspec.Struct, frozen=True, kw_only=True):
    """A backend beside the lanes, with servers that are theirs: who should be in it, and what stands on their lines."""

    servers: dict[InstanceId, Server]
    options: str


def beside(service: ServiceName, traffic: TrafficSettings, state: RoutingState) -> dict[str, Beside]:
    """The backends beside the lanes by name: the pool, and where copies go."""
    options = server_options(traffic, state.size, pooled=True)
    found = {pool_name(service): Beside(servers=pool(state), options=options)}
    if traffic.mirror:
        copied = Beside(servers=mirror.servers(state, traffic), options=mirror.server_options(traffic))
        found[mirror.backend_name(service)] = copied
    return found


def backends(service: ServiceName, section: Section) -> list[str]:
    """The names of all that have servers: the lanes and those beside them."""
    lanes = (encode.lane(service, number) for number in range(section.lanes))
    return [*lanes, *beside(service, section.traffic, RoutingState())]


def mode(traffic: TrafficSettings) -> str:
    """HAProxy's mode for what the service's instances speak."""
    return "tcp" if traffic.protocol == "tcp" else "http"


def waiting(traffic: TrafficSettings) -> Iterator[str]:
    """How long a backend waits for an instance that says nothing."""
    yield f"  timeout server {encode.milliseconds(traffic.idle_limit_s)}"
    yield f"  timeout tunnel {encode.milliseconds(max(TUNNEL_S, traffic.idle_limit_s))}"


def check(servers: int, *, pooled: bool = False) -> str:
    """How HAProxy probes each of so many servers: every second, and when they are many as often as together makes
    PROBES_A_SECOND. Traffic finds the dead between two probes: one refused connection takes a server out.
    """
    every_s = max(1, -(-servers // PROBES_A_SECOND))
    pause_s = every_s * (POOL_PAUSE if pooled else 1)
    return (
        f"check inter {pause_s}s fastinter 200ms downinter {every_s * 500}ms fall 2 rise 1"
        " observe layer4 error-limit 1 on-error mark-down"
    )


def server_options(traffic: TrafficSettings, servers: int, *, pooled: bool = False) -> str:
    """What stands on the line of each of so many servers, also of one that is added at run time."""
    words = [] if pooled and servers > POOL_PROBED_AT_MOST else [check(servers, pooled=pooled)]
    if traffic.protocol == "http2":
        words.append("proto h2")
    if traffic.slow_start_s:
        words.append(f"slowstart {encode.milliseconds(traffic.slow_start_s)}")
    return " ".join(words)


def render(
    service: ServiceName, section: Section, lanes: Mapping[VersionName, int], state: RoutingState
) -> Iterator[str]:
    """The section's lines. Started from them, HAProxy serves `state`."""
    versions = {number: version for version, number in lanes.items()}
    traffic = section.traffic
    count = state.size
    options, others = server_options(traffic, count), beside(service, traffic, state)
    spilled = " proto h2" if traffic.protocol == "http2" else ""
    shape = [f"  mode {mode(traffic)}", f"  balance {_BALANCE[traffic.balance]}"]
    shape += waiting(traffic)
    rewritten = [*choice.stripped(service, traffic)]
    if traffic.path:
        rewritten.append(f"  http-request set-path {encode.path(traffic.path)}%[path]")
    shape += rewritten
    http = mode(traffic) == "http"
    if http:
        yield from counting.tables(service, section.lanes)
    for number in range(section.lanes):
        yield from (
            "",
            f"backend {encode.lane(service, number)}",
            *shape,
            *(counting.timed(service, number) if http else ()),
            f"  server spill unix@{spill_socket(service)} backup{spilled}",
        )
        if number in versions:
            for server in state.versions.get(versions[number], {}).values():
                yield _server_line(server, options)
    yield from ("", f"backend {pool_name(service)}", f"  mode {mode(traffic)}", shape[1], *waiting(traffic))
    yield from _servers(others[pool_name(service)])
    yield from _spill(service, traffic)
    if traffic.mirror:
        yield from mirror.frontend(service)
        yield from mirror.backend(service, rewritten)
        yield from _servers(others[mirror.backend_name(service)])
    yield from _none(service, traffic)


def _spill(service: ServiceName, traffic: TrafficSettings) -> Iterator[str]:
    yield f"""
frontend {service}.spill
  mode {mode(traffic)}
  description what a lane with nobody left hands on
  bind unix@{spill_socket(service)} mode 600
  timeout client {encode.milliseconds(traffic.idle_limit_s)}"""
    if mode(traffic) == "http":
        yield "  http-request disable-l7-retry unless METH_GET"
    yield f"  default_backend {pool_name(service)}"


def _none(service: ServiceName, traffic: TrafficSettings) -> Iterator[str]:
    yield f"""
backend {service}.none
  mode {mode(traffic)}
  description no instance of {service} is in service"""
    if mode(traffic) == "http":
        said = f"no instance of {service} is in service"
        yield f'  http-request return status 503 content-type text/plain string "{said}\\n"'
    else:
        yield "  tcp-request content reject"


def render_map(service: ServiceName, state: RoutingState, lanes: Mapping[VersionName, int]) -> str:
    """The map's file: which of the 10,000 slots goes to which lane."""
    placement = place(state.placement, state.shares)
    return "".join(f"{slots} {lane}\n" for slots, lane in encode.ranges(service, placement, lanes))


def pool(state: RoutingState) -> dict[InstanceId, Server]:
    """The servers that catch what a lane cannot serve: all that take requests and whose version has a share."""
    return {
        server.id: server
        for version in state.shares
        for server in state.versions.get(version, {}).values()
        if server.mode is Mode.SERVE
    }


def _servers(there: Beside) -> Iterator[str]:
    for server in there.servers.values():
        yield _server_line(server, there.options)


@lru_cache(_LINES_REMEMBERED)
def _server_line(server: Server, options: str) -> str:
    name, address, weight = encode.server(server)
    out = " disabled" if server.mode is Mode.DRAIN else ""
    words = ["server", name, address, *([options] if options else []), f"weight {weight}{out}"]
    return f"  {' '.join(words)}"
