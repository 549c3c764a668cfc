"""From what the data plane does to what it should do: the operations, in an order that is safe to interrupt.

After each operation, from any start: a version with a share has a server that takes requests (but for an
instance that changes its address under the same id, alone in its version); a server that has requests in flight
is not removed. Interrupted anywhere and planned again, the plan ends in the same state.

The order: remove what is drained (it frees lanes), add and put into service, move the shares, drain what
leaves. What drains now is removed by a later plan, when it is seen idle.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import assert_never

import msgspec

from milkrun.model import InstanceId, VersionName
from milkrun.router.desired import Mode, RoutingState, Server
from milkrun.router.placement import Placement

_SERVE, _DRAIN = Mode.SERVE, Mode.DRAIN
"""Asked for once a server, as in desired.py."""


class Seen(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One server as the data plane has it.

    `up` is the data plane's own probe, `in_flight` its open requests. `pooled` says that it takes what other
    versions cannot serve.
    """

    server: Server
    up: bool = True
    in_flight: int = 0
    pooled: bool = False

    @property
    def takes(self) -> bool:
        """Whether any new request can still reach it."""
        return self.server.mode is _SERVE or self.pooled


Versions = dict[VersionName, dict[InstanceId, Seen]]


class Observed(msgspec.Struct, frozen=True, kw_only=True):
    """What the data plane does now, read back from it; `placement` is empty when it has no slots."""

    shares: dict[VersionName, int] = {}
    placement: Placement = ()
    versions: Versions = {}


class Add(msgspec.Struct, frozen=True, tag=True):
    """The server exists, in its mode."""

    version: VersionName
    server: Server


class Change(msgspec.Struct, frozen=True, tag=True):
    """The server has this mode and weight."""

    version: VersionName
    server: Server


class Remove(msgspec.Struct, frozen=True, tag=True):
    """The server is gone. It was drained and idle."""

    version: VersionName
    instance: InstanceId


class SetShares(msgspec.Struct, frozen=True, tag=True):
    """The shares are these, all at once, and placed so when the data plane has slots."""

    shares: dict[VersionName, int]
    placement: Placement = ()


Operation = Add | Change | Remove | SetShares


def said(operation: Operation) -> str:
    """What is still to do, for people."""
    match operation:
        case Add(version, server):
            return f"{server.id} of {version} is not there"
        case Change(version, server):
            wish = "take requests" if server.mode is Mode.SERVE else "drain"
            return f"{server.id} of {version} should {wish}"
        case Remove(version, instance):
            return f"{instance} of {version} should be gone"
        case SetShares(shares, _):
            parts = [f"{version} {share / 100:.2f} %" for version, share in shares.items()]
            return f"the shares should be {', '.join(parts) or 'none'}"
        case _:
            assert_never(operation)


def diff(observed: Observed, wanted: RoutingState) -> list[Operation]:
    """The operations that lead towards `wanted`; empty when nothing can or need be done now."""
    unlike = _unlike(observed, wanted)
    return [
        *_removals(unlike, wanted),
        *_additions(observed, unlike, wanted),
        *([SetShares(wanted.shares, wanted.placement)] if _misplaced(observed, wanted) else []),
        *_drains(observed, unlike, wanted),
    ]


def settled(observed: Observed, wanted: RoutingState) -> bool:
    """Whether users see what is wanted; servers on their way out may still be there, drained."""
    return all(isinstance(operation, Remove) for operation in diff(observed, wanted)) and not any(
        seen.takes and _leaves(version, seen, wanted)
        for version, servers in _unlike(observed, wanted).items()
        for seen in servers.values()
    )


def leaving(observed: Observed, wanted: RoutingState) -> bool:
    """Whether a server is still there that should be gone: plan again when it is idle."""
    return any(
        _leaves(version, seen, wanted)
        for version, servers in _unlike(observed, wanted).items()
        for seen in servers.values()
    )


def _unlike(observed: Observed, wanted: RoutingState) -> Versions:
    """The servers that are not as they are wanted. Whatever is planned is about them or about who is not there, and
    of thousands of servers these are a few.
    """
    found: Versions = {}
    for version, servers in observed.versions.items():
        target = wanted.versions.get(version, {}).get
        found[version] = {
            name: seen
            for name, seen in servers.items()
            if seen.server != target(name) or (seen.pooled and seen.server.mode is _DRAIN)
        }
    return found


def _leaves(version: VersionName, seen: Seen, wanted: RoutingState) -> bool:
    return _elsewhere(seen, wanted.versions.get(version, {}).get(seen.server.id))


def _elsewhere(seen: Seen, target: Server | None) -> bool:
    """Whether the server is not where it is wanted."""
    there = seen.server
    return target is None or (target.address, target.port) != (there.address, there.port)


def _misplaced(observed: Observed, wanted: RoutingState) -> bool:
    """Whether a request may be another version's than it should."""
    known = bool(observed.placement and wanted.placement)
    return observed.shares != wanted.shares or (known and observed.placement != wanted.placement)


def _removals(unlike: Versions, wanted: RoutingState) -> Iterator[Remove]:
    for version, servers in unlike.items():
        for seen in servers.values():
            if not seen.takes and seen.in_flight == 0 and _leaves(version, seen, wanted):
                yield Remove(version, seen.server.id)


def _additions(observed: Observed, unlike: Versions, wanted: RoutingState) -> Iterator[Add | Change]:
    for version, servers in wanted.versions.items():
        there, other = observed.versions.get(version, {}), unlike.get(version, {})
        for name, server in servers.items():
            if name not in there:
                yield Add(version, server)
            elif name in other and server.mode is Mode.SERVE and not _elsewhere(other[name], server):
                yield Change(version, server)
            # Same id at another address: the old one drains first and this one is added by a later plan.


def _drains(observed: Observed, unlike: Versions, wanted: RoutingState) -> Iterator[Change]:
    for version, servers in unlike.items():
        targets = wanted.versions.get(version, {})
        there = observed.versions[version]
        replaced = version not in wanted.shares or any(
            target.mode is Mode.SERVE and (name not in there or not _elsewhere(there[name], target))
            for name, target in targets.items()
        )
        for name, seen in servers.items():
            target = targets.get(name)
            if not seen.takes or (target is None and not replaced):
                continue  # who leaves serves until the one that takes its place could be added
            if target is None or target.mode is Mode.DRAIN or _elsewhere(seen, target):
                yield Change(version, msgspec.structs.replace(seen.server, mode=Mode.DRAIN))
