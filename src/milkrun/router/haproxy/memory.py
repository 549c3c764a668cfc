"""What HAProxy itself cannot say: its layout, and which version has which lane; and what comes next. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import msgspec

from milkrun.model import ServiceName, VersionName
from milkrun.router.desired import RoutingState
from milkrun.router.front import Front
from milkrun.router.haproxy import encode, lanes
from milkrun.router.haproxy.config import Layout, layout

NOWHERE = Layout(name="", listen=("", 0), stats=("", 0), routes=(), sections={})


class Memory(msgspec.Struct, frozen=True, kw_only=True):
    """`layout` is what the file has and `running` what HAProxy was last (re)loaded with; they differ while a
    reload is due. `lanes` are by service. `reloads` counts since HAProxy was started, also over other routers.
    """

    layout: Layout = NOWHERE
    running: Layout | None = None
    lanes: dict[ServiceName, dict[VersionName, int]] = {}
    reloads: int = 0

    @property
    def due(self) -> bool:
        """Whether a reload is."""
        return self.layout != self.running


def planned(
    now: Memory,
    front: Front,
    wanted: Mapping[ServiceName, RoutingState],
    occupied: Mapping[ServiceName, Collection[VersionName]],
    *,
    certificates: tuple[str, ...] = (),
    form: str = "",
) -> Memory:
    """What the files should hold for `wanted`: each version in the lane it has, or in one that nobody needs.

    `occupied` are the versions that HAProxy still has. A service gets more lanes when its versions do not fit.
    """
    assigned: dict[ServiceName, dict[VersionName, int]] = {}
    counts: dict[ServiceName, int] = {}
    running = now.running
    for service in front.services:
        state = wanted.get(service, RoutingState())
        needed = {version for version, servers in state.versions.items() if servers}
        still = set(occupied.get(service, ()))
        if len(needed | still) <= encode.LANES_AT_MOST:
            assigned[service] = lanes.assign(now.lanes.get(service, {}), needed | still)
        else:  # what still drains keeps its lanes in the former worker
            assigned[service], running = lanes.assign({}, needed), None
        there = now.layout.sections.get(service)
        counts[service] = lanes.count(assigned[service], max(there.lanes if there else 0, lanes.FIRST_LANES))
    whole = layout(front, certificates, counts, form)
    return Memory(layout=whole, running=running, lanes=assigned, reloads=now.reloads)


def as_it_runs(now: Memory, plan: Memory, running: Layout) -> Memory:
    """`plan` as far as it goes without a reload: a service whose versions do not fit in the lanes that run keeps
    those that it has.
    """
    kept = {}
    for service, there in running.sections.items():
        new = plan.lanes.get(service, {})
        fits = plan.running is not None and all(number < there.lanes for number in new.values())
        kept[service] = new if fits and service in plan.lanes else now.lanes.get(service, {})
    return Memory(layout=running, running=running, lanes=kept, reloads=now.reloads)


def with_lanes(memory: Memory, wanted: Mapping[ServiceName, RoutingState]) -> dict[ServiceName, RoutingState]:
    """The states of services all of whose versions have a lane."""
    return {
        service: state
        for service, state in wanted.items()
        if state.shares.keys() <= memory.lanes.get(service, {}).keys()
        and {version for version, servers in state.versions.items() if servers}
        <= memory.lanes.get(service, {}).keys()
    }
