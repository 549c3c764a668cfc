"""What Envoy says that it does, as the port says it. Pure.

Read from the admin's `/clusters` (one service's) and `/config_dump`, not from what was told: only then does a refusal,
or somebody else's hand, show.
"""

from __future__ import annotations

import ipaddress
from collections import Counter
from collections.abc import Iterator, Mapping
from functools import lru_cache
from types import MappingProxyType
from typing import Any

import msgspec

from milkrun.errors import DataPlaneError
from milkrun.model import InstanceId, ServiceName, VersionName, service_name
from milkrun.router.desired import Mode, RoutingState, Server
from milkrun.router.diff import Observed, Seen
from milkrun.router.envoy.clusters import of_cluster
from milkrun.router.placement import Placement, Span, totals

ROUTES = "/config_dump?resource=dynamic_route_configs"
LISTENERS = "/config_dump?resource=dynamic_listeners"
Place = tuple[str, int]
_REMEMBERED = 65_536
_ODD = (msgspec.DecodeError, ValueError, TypeError, KeyError, AttributeError, RecursionError)


class _Socket(msgspec.Struct):
    address: str = ""
    port_value: int = 0


class _Address(msgspec.Struct):
    socket_address: _Socket = msgspec.field(default_factory=_Socket)


class _Stat(msgspec.Struct):
    name: str = ""
    value: str = "0"


class _Health(msgspec.Struct):
    eds_health_status: str = "HEALTHY"
    failed_active_health_check: bool = False
    failed_outlier_check: bool = False


class _Host(msgspec.Struct):
    address: _Address = msgspec.field(default_factory=_Address)
    stats: list[_Stat] = []
    health_status: _Health = msgspec.field(default_factory=_Health)
    weight: int = 1
    hostname: str = ""
    priority: int = 0


class _Cluster(msgspec.Struct):
    name: str
    host_statuses: list[_Host] = []


class _Clusters(msgspec.Struct):
    cluster_statuses: list[_Cluster] = []


class Host(msgspec.Struct, frozen=True, kw_only=True):
    """A server in one cluster, as Envoy has it. `spare` says that it is there for another version."""

    name: str
    mode: Mode
    up: bool
    weight: int
    spare: bool
    stats: dict[str, int]


Clusters = dict[VersionName, dict[Place, Host]]
"""One service's clusters by version, their hosts by address."""


def question(service: ServiceName) -> str:
    """What to ask Envoy's admin for the service's clusters. One that knows no filter shows all."""
    return f"/clusters?format=json&filter=^{service_name(service)}/[^/]*$"


def clusters(body: bytes, service: ServiceName) -> Clusters:
    """`/clusters?format=json`: the service's. Only clusters that serve are there, not those that are warming."""
    try:
        found = msgspec.json.decode(body, type=_Clusters)
        return {
            of[1]: dict(map(_host, each.host_statuses))
            for each in found.cluster_statuses
            if (of := of_cluster(each.name)) and of[0] == service
        }
    except _ODD as error:
        raise DataPlaneError(f"Envoy's clusters cannot be read: {error}") from error


def _host(host: _Host) -> tuple[Place, Host]:
    health, socket = host.health_status, host.address.socket_address
    place = plain(socket.address), socket.port_value
    return place, Host(
        name=host.hostname,
        mode=Mode.SERVE if health.eds_health_status == "HEALTHY" else Mode.DRAIN,
        up=not (health.failed_active_health_check or health.failed_outlier_check),
        weight=host.weight,
        spare=host.priority > 0,
        stats={stat.name: int(stat.value) for stat in host.stats},
    )


def placement(body: bytes, service: ServiceName) -> Placement:
    """`/config_dump` of routes or listeners: how the service's slots are divided, by whatever route it comes.

    Routes that divide them in two ways are no placement: they have to be told anew.
    """
    try:
        splits = {
            tuple(
                (of[1], int(part.get("weight", 0)))
                for part in parts
                if (of := of_cluster(part["name"])) and of[0] == service
            )
            for parts in _splits(msgspec.json.decode(body))
        }
    except _ODD as error:
        raise DataPlaneError(f"Envoy's routes cannot be read: {error}") from error
    splits.discard(())
    found: list[Span] = []
    for version, size in splits.pop() if len(splits) == 1 else ():
        first = found[-1].last + 1 if found else 0
        found.append(Span(first, first + size - 1, version))
    return tuple(found)


def _splits(tree: Any) -> Iterator[list[dict[str, Any]]]:
    """Every `weighted_clusters` in the dump, but for those of listeners that are warming or draining."""
    ahead = [tree]
    while ahead:
        node = ahead.pop()
        if isinstance(node, list):
            ahead += node
        elif isinstance(node, dict):
            if "weighted_clusters" in node:
                yield node["weighted_clusters"].get("clusters", [])
            ahead += [
                each
                for name, each in node.items()
                if name not in ("warming_state", "draining_state", "error_state")
            ]


def observed(
    told: RoutingState,
    there: Clusters,
    placed: Placement,
    *,
    tcp: bool = False,
    elsewhere: Mapping[Place, int] = MappingProxyType({}),
) -> Observed:
    """What Envoy does for the service. Which instance is at an address is known from what was told; at another
    one it is whoever Envoy says. What is in flight are requests, or connections where no HTTP is spoken, with those
    that other Envoys have.
    """
    in_flight: Counter[Place] = Counter(elsewhere)
    spare: set[tuple[VersionName, Place]] = set()
    for version, hosts in there.items():
        for place, host in hosts.items():
            in_flight[place] += host.stats.get("cx_active" if tcp else "rq_active", 0)
            if host.spare and host.mode is Mode.SERVE:
                spare |= {(other, place) for other in there if other != version}
    versions: dict[VersionName, dict[InstanceId, Seen]] = {}
    for version, hosts in there.items():
        known = told.versions.get(version, {})
        strangers = hosts.keys() - {place_of(server) for server in known.values()}
        servers = [
            *known.values(),
            *(
                Server(id=InstanceId(hosts[place].name), address=place[0], port=place[1])
                for place in strangers
            ),
        ]
        found = {
            server.id: _seen(server, hosts[place], in_flight[place], pooled=(version, place) in spare)
            for server in servers
            if (place := place_of(server)) in hosts and not hosts[place].spare
        }
        if found:
            versions[version] = found
    return Observed(shares=totals(placed), placement=placed, versions=versions)


def _seen(server: Server, host: Host, in_flight: int, *, pooled: bool) -> Seen:
    """Of two instances that were told with one address, the one that is on its way out keeps its mode."""
    mode = server.mode if server.id != host.name and server.mode is Mode.DRAIN else host.mode
    return Seen(
        server=msgspec.structs.replace(server, weight=host.weight, mode=mode),
        up=host.up,
        in_flight=in_flight,
        pooled=pooled and mode is Mode.SERVE,
    )


def place_of(server: Server) -> Place:
    """Where the server listens, as Envoy writes it."""
    return plain(server.address), server.port


@lru_cache(_REMEMBERED)
def plain(address: str) -> str:
    """An address has several spellings, of which this is one."""
    return str(ipaddress.ip_address(address))
