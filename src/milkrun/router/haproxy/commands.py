"""What one service's operations are on HAProxy's socket. Pure.

The replies have no status: what came of a command is read back.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import assert_never

from milkrun.errors import DataPlaneError
from milkrun.model import InstanceId, ServiceName, VersionName, instance_id
from milkrun.router.desired import Mode, RoutingState, Server
from milkrun.router.diff import Add, Change, Operation, Remove, Seen, SetShares
from milkrun.router.haproxy import encode, section
from milkrun.settings.service import TrafficSettings

Lanes = Mapping[VersionName, int]


def told(service: ServiceName, lanes: Lanes, operation: Operation, options: str) -> Iterator[str]:
    """The commands of an operation on a server; the shares are swapped in a transaction of their own. `options` are
    a lane's server's.
    """
    match operation:
        case Add(version, server):
            yield from _added(encode.lane(service, lanes[version]), server, options)
        case Change(version, server):
            yield from _changed(service, encode.lane(service, lanes[version]), server)
        case Remove(version, instance):
            yield from _removed(section.pool_name(service), instance)
            yield from _removed(encode.lane(service, lanes[version]), instance)
        case SetShares():
            raise DataPlaneError("shares are swapped in a transaction of their own")
        case _:
            assert_never(operation)


def pooled(
    service: ServiceName,
    wanted: RoutingState,
    there: Mapping[InstanceId, Seen],
    traffic: TrafficSettings,
) -> Iterator[str]:
    """The pool has the servers that may catch what a lane cannot serve, and soon no others."""
    name = section.pool_name(service)
    target = section.pool(wanted)
    options = section.server_options(traffic, wanted.size, pooled=True)
    for server in target.values():
        have = there.get(server.id)
        if have is None:
            yield from _added(name, server, options)
        elif have.server.mode is Mode.DRAIN:
            yield f"set server {name}/{encode.server(server)[0]} state ready"
        if have and have.server.weight != server.weight:
            yield "set server {}/{} weight {}".format(name, *encode.server(server)[::2])
    for instance, have in there.items():
        kept = target.get(instance)
        if kept and (have.server.address, have.server.port) == (kept.address, kept.port):
            continue
        if have.server.mode is Mode.SERVE:
            yield f"set server {name}/{instance_id(instance)} state drain"
        else:
            yield from _removed(name, instance)


def _changed(service: ServiceName, lane: str, server: Server) -> Iterator[str]:
    name, _, weight = encode.server(server)
    if server.mode is Mode.DRAIN:
        yield f"set server {section.pool_name(service)}/{name} state drain"
        yield f"set server {lane}/{name} state drain"
    else:
        yield f"set server {lane}/{name} weight {weight}"
        yield f"enable health {lane}/{name}"
        yield f"set server {lane}/{name} state ready"


def _added(backend: str, server: Server, options: str) -> Iterator[str]:
    name, address, weight = encode.server(server)
    yield f"add server {backend}/{name} {address} {options} weight {weight}"
    if options.startswith("check"):
        yield f"enable health {backend}/{name}"
    yield f"set server {backend}/{name} state {'ready' if server.mode is Mode.SERVE else 'drain'}"


def _removed(backend: str, instance: InstanceId) -> Iterator[str]:
    name = instance_id(instance)
    yield f"set server {backend}/{name} state maint"
    yield f"del server {backend}/{name}"
