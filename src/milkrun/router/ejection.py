"""Which instances are put aside because of what traffic says of them, while their checks are good. Pure.

Each is compared with the others of its version, so what fails everywhere (a database, a bad release) puts nobody
aside: that is for a rollout to judge, or a person. In windows of WINDOW_S:

- failing: more of its requests failed than the service's limit, and so many more than of the others that chance would
  do it once in ten thousand windows (SURE standard deviations of a Poisson count);
- silent: ASKED requests were handed to it, none of them ended for `silent_s` (and ten times as long as the others
  take), while most of the others answered;
- slow: its mean was so many times the others' median, and SLOW_MS above it, in SLOW_WINDOWS windows in a row.

Never more than a third of a version's instances that serve are aside, so none of two. Each comes back after FIRST_S,
twice as long each time that it is found so again, LONGEST_S at most. After LONGEST_S in service that is forgotten.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from statistics import median

import msgspec

from milkrun.model import InstanceId, VersionName
from milkrun.router.desired import Mode, RoutingState
from milkrun.router.plane import InstanceCounted
from milkrun.settings.service import EjectionSettings, TrafficSettings

PART = 3
"""Of so many instances one may be aside."""
WINDOW_S = 10.0
FIRST_S = 5.0
LONGEST_S = 300.0
SURE = 4.0
ENOUGH = 5
"""Requests of the others, before one is compared with them."""
ASKED = 3
PATIENCE = 10
TIMED = 10
"""Requests of a window, before its mean says anything."""
SLOW_MS = 250.0
SLOW_WINDOWS = 2


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """What is remembered of one instance.

    `start` are its figures when its window began; `ended` those when a request of it last ended, seen at `ended_at`;
    `asked_at` is when one was first seen that was handed to it since then, 0 for none. `slow` counts windows. It was
    put aside `times` times, the last time until `until`, for `why`.
    """

    start: InstanceCounted
    ended: InstanceCounted
    ended_at: float
    asked_at: float = 0.0
    slow: int = 0
    times: int = 0
    until: float = 0.0
    why: str = ""

    def aside(self, now: float) -> bool:
        """Whether its time aside is not over."""
        return now < self.until

    def seen(self, figures: InstanceCounted, now: float) -> Record:
        """The record after a reading. What it did while it was aside is no evidence."""
        if self.aside(now):
            return msgspec.structs.replace(self, start=figures, ended=figures, ended_at=now, asked_at=0.0)
        if figures.requests > self.ended.requests:
            return msgspec.structs.replace(self, ended=figures, ended_at=now, asked_at=0.0)
        if figures.tried > self.ended.tried and not self.asked_at:
            return msgspec.structs.replace(self, asked_at=now)
        return self

    def out(self, why: str, now: float) -> Record:
        """The record of one that is put aside now."""
        times = 0 if self.until and now - self.until >= LONGEST_S else self.times
        for_s = min(LONGEST_S, FIRST_S * 2.0 ** min(times, 10))
        said = f"is put aside for {for_s:.0f} s: {why}"
        return msgspec.structs.replace(self, times=times + 1, until=now + for_s, why=said, slow=0)


class Ejections(msgspec.Struct, frozen=True, kw_only=True):
    """Who is aside, and what is known of the others. `window_at` is when this window began."""

    records: dict[InstanceId, Record] = {}
    window_at: float = 0.0

    def judged(
        self,
        figures: Mapping[InstanceId, InstanceCounted],
        state: RoutingState,
        now: float,
        settings: EjectionSettings,
    ) -> Ejections:
        """The ejections after a reading, of the instances that `state` would serve by."""
        if not settings.enabled or not figures:
            return Ejections()
        fresh = now - self.window_at >= WINDOW_S
        records: dict[InstanceId, Record] = {}
        for servers in _serving(state).values():
            members = {name: self._member(name, figures[name], now) for name in servers if name in figures}
            records |= _verdicts(members, now, settings, most=len(servers) // PART, closing=fresh)
        if fresh:
            records = {
                name: msgspec.structs.replace(record, start=figures[name]) for name, record in records.items()
            }
        return Ejections(records=records, window_at=now if fresh else self.window_at)

    def _member(self, name: InstanceId, figures: InstanceCounted, now: float) -> _Member:
        record = self.records.get(name) or Record(start=figures, ended=figures, ended_at=now)
        return _Member(record=record.seen(figures, now), figures=figures)

    def out(
        self, state: RoutingState, now: float, *, down: Collection[InstanceId] = ()
    ) -> dict[InstanceId, str]:
        """Who gets no new request now, and why. `down` are those that take no connection: they do not serve."""
        found: dict[InstanceId, str] = {}
        if not any(record.aside(now) for record in self.records.values()):
            return found
        for version, servers in _serving(state).items():
            aside = [name for name in servers if name in self.records and self.records[name].aside(now)]
            aside.sort(key=lambda name: (-self.records[name].until, name))
            most = sum(name not in down for name in servers) // PART
            found |= {name: f"{name} of {version} {self.records[name].why}" for name in aside[:most]}
        return dict(sorted(found.items()))


def as_told(traffic: TrafficSettings) -> TrafficSettings:
    """What a data plane is told of the settings: who is put aside is the router's own business."""
    return msgspec.structs.replace(traffic, ejection=EjectionSettings())


def without(state: RoutingState, out: Collection[InstanceId]) -> RoutingState:
    """The state with these taking no new requests."""
    if not out:
        return state
    versions = {
        version: {
            name: msgspec.structs.replace(server, mode=Mode.DRAIN) if name in out else server
            for name, server in servers.items()
        }
        for version, servers in state.versions.items()
    }
    return msgspec.structs.replace(state, versions=versions)


def _serving(state: RoutingState) -> dict[VersionName, list[InstanceId]]:
    return {
        version: [name for name, server in servers.items() if server.mode is Mode.SERVE]
        for version, servers in state.versions.items()
    }


class _Member(msgspec.Struct, frozen=True, kw_only=True):
    """One instance of a version: its record, its figures, and what of them is of this window."""

    record: Record
    figures: InstanceCounted

    @property
    def requests(self) -> int:
        return self.figures.requests - self.record.start.requests

    @property
    def failures(self) -> int:
        return self.figures.failures - self.record.start.failures

    @property
    def mean_ms(self) -> float:
        took_ms = self.figures.took_ms - self.record.start.took_ms
        return took_ms / self.requests if self.requests else 0.0


def _verdicts(
    members: Mapping[InstanceId, _Member],
    now: float,
    settings: EjectionSettings,
    *,
    most: int,
    closing: bool,
) -> dict[InstanceId, Record]:
    """The records of a version's instances, of whom at most so many are aside; `closing` says that a window is over."""
    records = {name: member.record for name, member in members.items()}
    able = {name: member for name, member in members.items() if not member.record.aside(now)}
    room = most - (len(members) - len(able))
    for name, own in able.items():
        others = [member for other, member in able.items() if other != name]
        why = _failing(own, others, settings) or _silent(own, others, now, settings)
        if closing and not why:
            slow = _slow(own, others, settings)
            records[name] = msgspec.structs.replace(own.record, slow=own.record.slow + 1 if slow else 0)
            why = slow if records[name].slow >= SLOW_WINDOWS else ""
        if why and room > 0:
            room -= 1
            records[name] = own.record.out(why, now)
    return records


def _failing(own: _Member, others: Iterable[_Member], settings: EjectionSettings) -> str:
    """Why it is failing; empty when it is not."""
    others = list(others)
    requests, failures = (sum(getattr(one, name) for one in others) for name in ("requests", "failures"))
    if requests < ENOUGH or own.failures * 100 < settings.failures_percent * own.requests:
        return ""
    expected = own.requests * (failures + 1) / (requests + 2)  # by Laplace: of few, one might have failed too
    if own.failures <= expected + SURE * math.sqrt(expected + 1):
        return ""
    return f"{own.failures} of its {own.requests} requests failed, of the others' {failures} of {requests}"


def _silent(own: _Member, others: Collection[_Member], now: float, settings: EjectionSettings) -> str:
    """Why it is silent; empty when it is not."""
    since = own.record.asked_at
    waiting = own.figures.tried - own.record.ended.tried
    if not since or waiting < ASKED:
        return ""
    patience_s = max(settings.silent_s, PATIENCE * max((one.mean_ms for one in others), default=0.0) / 1000)
    answered = sum(one.record.ended_at > since for one in others)
    if now - since < patience_s or 2 * answered <= len(others):
        return ""
    return f"{waiting} requests wait for it, the first for {now - since:.0f} s, and the others answer"


def _slow(own: _Member, others: Iterable[_Member], settings: EjectionSettings) -> str:
    """Why it was slow in this window; empty when it was not."""
    means = [one.mean_ms for one in others if one.requests >= TIMED]
    if own.requests < TIMED or not means:
        return ""
    usual = median(means)
    if own.mean_ms < max(settings.slow_times * usual, usual + SLOW_MS):
        return ""
    return f"its answers take {own.mean_ms:.0f} ms, the others' {usual:.0f} ms"
