"""Figures per version, from counters that start anew with each process of the data plane. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import TypeVar

import msgspec

from milkrun.model import Figures, InstanceTraffic, RouterReport, VersionName, VersionTraffic
from milkrun.router.plane import Counted

FIGURES_S = 3.0
"""Ten services are three writes a second at the registry, and none without traffic."""

_MANY = 200
"""From so many requests on between two readings, a data plane may have timed only a sample of its answers."""

Source = tuple[int, str]
Versions = dict[VersionName, Figures]
_Key = TypeVar("_Key")


class Ledger(msgspec.Struct, frozen=True, kw_only=True):
    """What was counted so far: totals since the router started, and the window since the shares last changed.

    `last` is the last reading of each counter: None before the first one, which counts nothing, because the data
    plane may have been there long before this router.
    """

    last: dict[Source, Figures] | None = None
    total: Versions = {}
    window: Versions = {}
    in_flight: dict[VersionName, int] = {}

    def read(self, counted: Iterable[Counted]) -> Ledger:
        """The ledger after a reading. A counter that is new, or fell by half, started anew: all of it counts."""
        last: dict[Source, Figures] = {}
        in_flight: dict[VersionName, int] = {}
        fresh: dict[VersionName, list[Figures]] = {}
        for one in counted:
            source = one.process, one.place
            before = (self.last or {}).get(source, Figures())
            if one.figures.requests * 2 < before.requests:
                before = Figures()
            last[source] = _highest(before, one.figures)
            if one.version is None:
                continue
            in_flight[one.version] = in_flight.get(one.version, 0) + one.in_flight
            if self.last is not None:
                fresh.setdefault(one.version, []).append(_since(before, last[source]))
        return Ledger(
            last=last,
            total=_grown(self.total, fresh),
            window=_grown(self.window, fresh),
            in_flight=in_flight,
        )

    def new_window(self) -> Ledger:
        """The ledger with an empty window: the shares have just changed."""
        return msgspec.structs.replace(self, window={})

    def report(self, shares: Mapping[VersionName, int]) -> dict[VersionName, VersionTraffic]:
        """The figures for the router's report, of every version that has a share or had a request."""
        return {
            version: VersionTraffic(
                share=shares.get(version, 0),
                in_flight=self.in_flight.get(version, 0),
                total=self.total.get(version, Figures()),
                window=self.window.get(version, Figures()),
            )
            for version in sorted(self.total.keys() | shares.keys())
            if version in shares or self.total[version].requests
        }


class Cadence:
    """When a report is worth a write: at once when it tells news, every FIGURES_S when only figures changed."""

    def __init__(self) -> None:
        self._last: RouterReport | None = None
        self._at = 0.0

    def due(self, report: RouterReport, now: float) -> bool:
        """Whether to write it; then it is the last one. `now` is in seconds of any clock that never goes back."""
        news = self._last is None or _without_figures(report) != _without_figures(self._last)
        if news or (report != self._last and now - self._at >= FIGURES_S):
            self._last, self._at = report, now
            return True
        return False


def former(counted: Iterable[Counted]) -> list[str]:
    """What processes from before a reload still have to do, for people."""
    left: dict[float, int] = {}
    for one in counted:
        if one.until and one.in_flight:
            left[one.until] = left.get(one.until, 0) + one.in_flight
    return [
        f"{count} request{'s' * (count != 1)} from before a reload may go on until {_written(until)}"
        for until, count in sorted(left.items())
    ]


def _written(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def _without_figures(report: RouterReport) -> RouterReport:
    """The report without what each request changes."""
    return msgspec.structs.replace(
        report,
        former=[],
        versions={name: VersionTraffic(share=one.share) for name, one in report.versions.items()},
        instances={name: InstanceTraffic(state=one.state) for name, one in report.instances.items()},
    )


def _grown(versions: Versions, fresh: Mapping[VersionName, list[Figures]]) -> Versions:
    return {
        **versions,
        **{name: Figures.together([versions.get(name, Figures()), *more]) for name, more in fresh.items()},
    }


def _highest(before: Figures, now: Figures) -> Figures:
    """The reading, where it is not behind the one before: a place whose figure is the difference of two counters
    may fall by a request for a moment.
    """
    return Figures(
        requests=max(before.requests, now.requests),
        failures=max(before.failures, now.failures),
        answers={**now.answers, **_more(now.answers, before.answers, whole=True)},
        bytes_in=max(before.bytes_in, now.bytes_in),
        bytes_out=max(before.bytes_out, now.bytes_out),
        latency={**now.latency, **_more(now.latency, before.latency, whole=True)},
    )


def _since(before: Figures, now: Figures) -> Figures:
    """What was counted between two readings of one counter."""
    requests = now.requests - before.requests
    timed = _more(before.latency, now.latency)
    few = requests >= _MANY and 0 < sum(timed.values()) * 4 < requests
    weight = requests // sum(timed.values()) if few else 1
    return Figures(
        requests=requests,
        failures=now.failures - before.failures,
        answers=_more(before.answers, now.answers),
        bytes_in=now.bytes_in - before.bytes_in,
        bytes_out=now.bytes_out - before.bytes_out,
        latency={bucket: count * weight for bucket, count in timed.items()},
    )


def _more(before: Mapping[_Key, int], now: Mapping[_Key, int], *, whole: bool = False) -> dict[_Key, int]:
    """What grew, and by how much; or how high it is now."""
    return {
        key: count if whole else count - before.get(key, 0)
        for key, count in now.items()
        if count > before.get(key, 0)
    }
