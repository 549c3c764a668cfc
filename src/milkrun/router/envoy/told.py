"""What Envoy was told of one service, after the next operations. Pure.

Envoy knows no operations: it gets the whole state each time. So the state that it was told is kept, and each
operation changes it as a data plane with commands would have changed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import assert_never

from milkrun.model import InstanceId, VersionName
from milkrun.router.desired import RoutingState, Server
from milkrun.router.diff import Add, Change, Operation, Remove, SetShares


def steps(operations: Sequence[Operation]) -> Iterator[Sequence[Operation]]:
    """The operations in groups that Envoy may be told at once: what comes before the shares, they, what follows.

    Told at once, a version could lose its last server before its share has moved.
    """
    group: list[Operation] = []
    for operation in operations:
        if isinstance(operation, SetShares):
            yield from ([group] if group else [])
            yield [operation]
            group = []
        else:
            group.append(operation)
    yield from ([group] if group else [])


def after(told: RoutingState, operations: Sequence[Operation]) -> RoutingState:
    """The state once these are carried out. A version without servers is gone, unless it has a share."""
    shares, placement = dict(told.shares), told.placement
    versions: dict[VersionName, dict[InstanceId, Server]] = {
        version: dict(servers) for version, servers in told.versions.items()
    }
    for operation in operations:
        match operation:
            case Add(version, server) | Change(version, server):
                versions.setdefault(version, {})[server.id] = server
            case Remove(version, instance):
                versions.get(version, {}).pop(instance, None)
            case SetShares(new, spans):
                shares, placement = dict(new), spans
            case _:
                assert_never(operation)
    return RoutingState(
        shares=shares,
        placement=placement,
        versions={version: servers for version, servers in versions.items() if servers},
    )
