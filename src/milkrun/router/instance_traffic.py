"""Figures per instance, from counters that start anew with each process of the data plane and each time that an
instance comes. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from milkrun.model import InstanceId, InstanceTraffic
from milkrun.router.plane import Counted, InstanceCounted
from milkrun.router.traffic import Source

REMEMBERED = 4096
"""Instances whose figures are kept: those that left long ago are forgotten first."""

MEAN_OVER = 512
"""Answers that HAProxy's mean of a server is over (measured on 2.8; its manual says 1024)."""

Instances = dict[InstanceId, InstanceCounted]


class InstanceLedger(msgspec.Struct, frozen=True, kw_only=True):
    """What was counted of each instance since the router started; none of it ever goes backwards.

    `last` is the last reading of each place: None before the first one, which counts nothing, and of a place whose
    instances were not asked for.
    """

    last: dict[Source, Instances | None] | None = None
    total: Instances = {}

    def read(self, counted: Iterable[Counted]) -> InstanceLedger:
        """The ledger after a reading. A place that is new, and an instance that is new in it, count from zero."""
        last: dict[Source, Instances | None] = {}
        total = dict(self.total)
        for one in counted:
            source = one.process, one.place
            last[source] = None
            if one.instances is None:
                continue
            known = self.last.get(source, {}) if self.last is not None else None
            now: Instances = {}
            for name, figures in one.instances.items():
                before = figures if known is None else known.get(name, InstanceCounted())
                if figures.tried < before.tried:
                    before = InstanceCounted()  # it left and came again
                now[name] = _highest(before, figures)
                total[name] = _grown(total.pop(name, InstanceCounted()), before, now[name])
            last[source] = now
        return InstanceLedger(last=last, total=dict(list(total.items())[-REMEMBERED:]))

    def report(self, seen: Mapping[InstanceId, InstanceTraffic]) -> dict[InstanceId, InstanceTraffic]:
        """What the router's report says of these instances."""
        return {name: _with(one, self.total.get(name)) for name, one in seen.items()}


def _highest(before: InstanceCounted, now: InstanceCounted) -> InstanceCounted:
    """The reading, where it is not behind the one before: some figures are the difference of two counters."""
    return InstanceCounted(
        tried=now.tried,
        requests=max(before.requests, now.requests),
        failures=max(before.failures, now.failures),
        mean_ms=now.mean_ms,
    )


def _grown(total: InstanceCounted, before: InstanceCounted, now: InstanceCounted) -> InstanceCounted:
    return InstanceCounted(
        tried=total.tried + now.tried - before.tried,
        requests=total.requests + now.requests - before.requests,
        failures=total.failures + now.failures - before.failures,
        mean_ms=now.mean_ms if now.mean_ms and now.tried > before.tried else total.mean_ms,
        took_ms=total.took_ms + _took_ms(before, now),
    )


def _took_ms(before: InstanceCounted, now: InstanceCounted) -> float:
    """What the answers between two readings of one counter took together, out of the means before and after.

    The mean is of all answers while there are few, then one in which each new answer weighs 1 in MEAN_OVER.
    """
    fresh = now.requests - before.requests
    if fresh <= 0:
        return 0.0
    early = min(1.0, before.requests / min(now.requests, MEAN_OVER))
    kept = early * (1 - 1 / MEAN_OVER) ** max(0, now.requests - max(MEAN_OVER, before.requests))
    return max(0.0, (now.mean_ms - before.mean_ms * kept) / (1 - kept) * fresh)


def _with(seen: InstanceTraffic, total: InstanceCounted | None) -> InstanceTraffic:
    if total is None:
        return seen
    return msgspec.structs.replace(
        seen, requests=total.requests, failures=total.failures, mean_ms=total.mean_ms
    )
