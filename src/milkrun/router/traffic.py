"""Requests per version, from counters that start anew with each server and each reload. Pure."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from milkrun.model import InstanceId, VersionName, VersionTraffic
from milkrun.router.plane import Counters


class Total(msgspec.Struct, frozen=True, kw_only=True):
    """A version's requests and failures since the router started; `window` since the shares last changed."""

    requests: int = 0
    failures: int = 0
    window: int = 0
    mean_ms: float = 0.0


class Ledger(msgspec.Struct, frozen=True, kw_only=True):
    """What was counted so far, and the last reading of each server: None before the first one, which counts
    nothing, because HAProxy may have been there long before this router.
    """

    last: dict[InstanceId, Counters] | None = None
    totals: dict[VersionName, Total] = {}

    def read(
        self, counters: Mapping[InstanceId, Counters], versions: Mapping[InstanceId, VersionName]
    ) -> Ledger:
        """The ledger after a reading. A counter that went down started anew: all of it counts."""
        if self.last is None:
            return Ledger(last=dict(counters))
        totals = dict(self.totals)
        for name, now in counters.items():
            version = versions.get(name)
            if version is None:
                continue
            before = self.last.get(name, Counters())
            if now.requests < before.requests:
                before = Counters()
            total = totals.get(version, Total())
            requests = now.requests - before.requests
            totals[version] = Total(
                requests=total.requests + requests,
                failures=total.failures + max(0, now.failures - before.failures),
                window=total.window + requests,
                mean_ms=now.mean_ms if requests else total.mean_ms,
            )
        return Ledger(last=dict(counters), totals=totals)

    def new_window(self) -> Ledger:
        """The ledger with the windows at zero: the shares have just changed."""
        totals = {version: msgspec.structs.replace(total, window=0) for version, total in self.totals.items()}
        return Ledger(last=self.last, totals=totals)

    def report(self, shares: Mapping[VersionName, int]) -> dict[VersionName, VersionTraffic]:
        """The figures for the router's report, of every version that has a share or had a request."""
        return {
            version: VersionTraffic(
                share=shares.get(version, 0),
                requests=total.requests,
                failures=total.failures,
                window_requests=total.window,
                mean_ms=round(total.mean_ms, 3),
            )
            for version in sorted(self.totals.keys() | shares.keys())
            for total in [self.totals.get(version, Total())]
        }
