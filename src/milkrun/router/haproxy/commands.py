"""What one service's operations are on HAProxy's socket. Pure.

The replies have no status: what came of a command is read back.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import assert_never

from milkrun.errors import DataPlaneError
from milkrun.model import InstanceId, ServiceName, VersionName, instance_id
from milkrun.router.desired import Mode, Server
from milkrun.router.diff import Add, Change, Operation, Remove, Seen, SetShares
from milkrun.router.haproxy import encode
from milkrun.router.haproxy.section import Beside

Lanes = Mapping[VersionName, int]


def told(
    service: ServiceName, lanes: Lanes, operation: Operation, options: str, others: Collection[str]
) -> Iterator[str]:
    """The commands of an operation on a server; the shares are swapped in a transaction of their own. `options` are
    a lane's server's, `others` the backends beside the lanes.
    """
    match operation:
        case Add(version, server):
            yield from _added(encode.lane(service, lanes[version]), server, options)
        case Change(version, server):
            yield from _changed(encode.lane(service, lanes[version]), server, others)
        case Remove(version, instance):
            for name in others:
                yield from _removed(name, instance)
            yield from _removed(encode.lane(service, lanes[version]), instance)
        case SetShares():
            raise DataPlaneError("shares are swapped in a transaction of their own")
        case _:
            assert_never(operation)


def brought(name: str, wanted: Beside, there: Mapping[InstanceId, Seen]) -> Iterator[str]:
    """The backend of this name, beside the lanes, has the servers that it should, and soon no others."""
    target = wanted.servers
    for server in target.values():
        have = there.get(server.id)
        if have is None:
            yield from _added(name, server, wanted.options)
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


def _changed(lane: str, server: Server, others: Collection[str]) -> Iterator[str]:
    name, _, weight = encode.server(server)
    if server.mode is Mode.DRAIN:
        for other in others:
            yield f"set server {other}/{name} state drain"
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
