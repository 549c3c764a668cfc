"""What the routers counted, as analysis wants it. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping

import msgspec

from milkrun.latency import merged
from milkrun.model import Figures, InstanceId, RouterReport, VersionName
from milkrun.rollout.analysis.verdict import InstanceSeen, Seen
from milkrun.rollout.facts import Facts
from milkrun.rollout.state import Counted, Ledger


def seen(facts: Facts, versions: Iterable[VersionName], restarts: int = 0) -> Seen:
    """What these versions did together since the shares last changed."""
    names = set(versions)
    figures = Figures.together(
        traffic.window
        for report in facts.routers
        for name, traffic in report.versions.items()
        if name in names
    )
    return Seen(
        requests=figures.requests,
        failures=figures.failures,
        latency=figures.latency,
        instances=_instances(facts, names),
        restarts=restarts,
    )


def _instances(facts: Facts, versions: set[VersionName]) -> dict[InstanceId, InstanceSeen]:
    """Each instance over all routers, its mean weighted by their requests."""
    whose = {one.id: one.version for one in facts.instances}
    found: dict[InstanceId, InstanceSeen] = {}
    for report in facts.routers:
        for name, traffic in report.instances.items():
            if whose.get(name) in versions and traffic.requests:
                known = found.get(name, InstanceSeen(requests=0, failures=0, mean_ms=0.0))
                requests = known.requests + traffic.requests
                mean = known.mean_ms * known.requests + traffic.mean_ms * traffic.requests
                found[name] = InstanceSeen(
                    requests=requests,
                    failures=known.failures + traffic.failures,
                    mean_ms=mean / requests,
                )
    return found


class Recent:
    """What a version did in the last seconds, from what its routers said now and then."""

    def __init__(self, window_s: float) -> None:
        self._window_s = window_s
        self._past: deque[tuple[float, dict[str, Figures]]] = deque()

    def take(self, routers: Iterable[RouterReport], version: VersionName, now: float) -> Seen:
        """Notes what the routers say at `now`, and answers with what came in the window. A router that began to count
        anew adds what it has counted since.
        """
        said = {
            f"{report.router}@{report.since}": report.versions[version].total
            for report in routers
            if version in report.versions
        }
        self._past.append((now, said))
        while len(self._past) > 1 and self._past[1][0] <= now - self._window_s:
            self._past.popleft()
        before = self._past[0][1]
        parts = [_since(before.get(router, Figures()), figures) for router, figures in said.items()]
        both = Figures.together(parts)
        return Seen(requests=both.requests, failures=both.failures, latency=both.latency, instances={})


def _since(before: Figures, now: Figures) -> Figures:
    """What came in between."""
    if now.requests < before.requests:
        return now
    latency = {
        bucket: count - before.latency.get(bucket, 0)
        for bucket, count in now.latency.items()
        if count > before.latency.get(bucket, 0)
    }
    return Figures(
        requests=now.requests - before.requests,
        failures=max(0, now.failures - before.failures),
        latency=merged([latency]),
    )


def counted(ledger: Ledger, routers: Iterable[RouterReport]) -> Ledger:
    """The ledger with what the routers say now. The first word of a router is where it is counted from, unless it said
    nothing because it was not there yet.
    """
    last, total = dict(ledger.last), dict(ledger.total)
    for report in routers:
        before = last.get(report.router)
        now = {
            name: Counted(requests=traffic.total.requests, failures=traffic.total.failures)
            for name, traffic in report.versions.items()
        }
        for name, count in now.items():
            if before is not None:
                total[name] = _added(total.get(name, Counted()), before, name, count)
        last[report.router] = {**(before or {}), **now}
    if (last, total) == (ledger.last, ledger.total):
        return ledger
    return Ledger(last=last, total=total)


def _added(total: Counted, before: Mapping[VersionName, Counted], name: VersionName, now: Counted) -> Counted:
    known = before.get(name, Counted())
    if now.requests < known.requests:  # the router began to count anew
        known = Counted()
    return msgspec.structs.replace(
        total,
        requests=total.requests + now.requests - known.requests,
        failures=total.failures + max(0, now.failures - known.failures),
    )
