"""What an analysis sees, what it says, and what it keeps from one look to the next. Pure."""

from __future__ import annotations

from enum import StrEnum

import msgspec

from milkrun.model import InstanceId


class InstanceSeen(msgspec.Struct, frozen=True, kw_only=True):
    """What one instance did in the window. `mean_ms` is of its last 1,024 answers, 0.0 when nobody knows."""

    requests: int
    failures: int
    mean_ms: float


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """What one version did since the window began: the moment from which all routers served the present shares."""

    requests: int
    failures: int
    latency: dict[int, int]
    instances: dict[InstanceId, InstanceSeen]
    restarts: int = 0


class Outcome(StrEnum):
    """What a finding, or all of them together, comes to."""

    PASS = "pass"  # noqa: S105  (no password)
    FAIL = "fail"
    INCONCLUSIVE = "inconclusive"


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """What one metric says, in numbers and in the sentence `said`.

    `canary` and `stable` are rates from 0 to 1 for failures, milliseconds for latency. `needs` is how many more
    requests of the new version it takes; 0 when more of them would not help. One that does not `hold` the rollout is
    told, but nobody waits for it: there is nothing to compare, or only more instances would tell.
    """

    metric: str
    outcome: Outcome
    canary: float | None
    stable: float | None
    needs: int
    said: str
    holds: bool = True


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What all findings come to."""

    outcome: Outcome
    findings: list[Finding]
    needs: int


class Counts(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Requests and failures of both versions at the same time."""

    canary: int = 0
    canary_failures: int = 0
    stable: int = 0
    stable_failures: int = 0


class Evidence(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a rollout's analysis remembers: small, and the same whoever goes on with it.

    `window` counts the windows, and `name` is what the present one was called. `counted` is the most that was seen of
    it, `base` what of that is left out, and `before` what was counted in all earlier ones. `bets` are the logarithms of
    the e-process's parts (failures.py). `latency_tests` is how often latency was tested, the last time at
    `latency_tested` requests of the new version in this window.
    """

    window: int = 0
    name: str = ""
    counted: Counts = Counts()
    base: Counts = Counts()
    before: Counts = Counts()
    bets: list[float] = []
    latency_tests: int = 0
    latency_tested: int = 0
