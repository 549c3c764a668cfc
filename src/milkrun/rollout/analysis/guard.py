"""Limits that hold whatever the old version does, and act at once. Pure.

A count is over its limit when chance alone would bring so many, at the limit itself, only once in a thousand times
(SURE): three failures in fifty requests say little about 5 %. So versions well under a limit never meet it.
"""

from __future__ import annotations

from milkrun.latency import BOUNDS_US, quantile_ms
from milkrun.rollout.analysis.distributions import binomial_tail
from milkrun.rollout.analysis.text import percent
from milkrun.rollout.analysis.verdict import Finding, Outcome, Seen
from milkrun.settings.rollout import AnalysisSettings

SURE = 0.001


def guards(settings: AnalysisSettings, recent: Seen) -> list[Finding]:
    """The limits that the new version broke in the last `guard_window_s` seconds."""
    found = [_restarts(settings, recent)]
    if recent.requests >= settings.guard_requests:
        found += [failing(settings, recent), _slow(settings, recent)]
    return [finding for finding in found if finding]


def surely_over(count: int, of: int, limit: float) -> bool:
    """Whether so many of these are more than a rate of `limit` explains."""
    return count > limit * of and binomial_tail(count, of, limit) < SURE


def failing(settings: AnalysisSettings, seen: Seen) -> Finding | None:
    """Said when too many requests failed, whatever the old version does."""
    limit, count = settings.failures_at_most / 100, min(seen.failures, seen.requests)
    if not surely_over(count, seen.requests, limit):
        return None
    rate = count / seen.requests
    said = (
        f"{count} of {seen.requests} requests of the new version failed ({percent(rate)}): "
        f"surely more than {percent(limit)}"
    )
    return _broken("failures-at-most", rate, said)


def _slow(settings: AnalysisSettings, seen: Seen) -> Finding | None:
    limit_ms = settings.p99_ms_at_most
    timed = sum(seen.latency.values())
    slow = sum(
        count
        for number, count in seen.latency.items()
        if BOUNDS_US[min(max(0, number), len(BOUNDS_US) - 1)] >= limit_ms * 1000
    )
    if not limit_ms or timed < settings.guard_requests or not surely_over(slow, timed, 0.01):
        return None
    p99 = quantile_ms(seen.latency, 0.99)
    said = (
        f"{slow} of {timed} answers of the new version took longer than {limit_ms:g} ms ({percent(slow / timed)}): "
        f"surely more than 1 %"
    )
    return _broken("p99-at-most", p99, said)


def _restarts(settings: AnalysisSettings, seen: Seen) -> Finding | None:
    if seen.restarts <= settings.restarts_at_most:
        return None
    said = f"restarts of new instances: {seen.restarts}, and at most {settings.restarts_at_most} may be"
    return _broken("restarts-at-most", float(seen.restarts), said)


def _broken(metric: str, value: float | None, said: str) -> Finding:
    return Finding(metric=metric, outcome=Outcome.FAIL, canary=value, stable=None, needs=0, said=said)
