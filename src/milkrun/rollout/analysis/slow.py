"""What the comparison of latency comes to, in numbers and in a sentence. Pure."""

from __future__ import annotations

import math

import msgspec

from milkrun.latency import quantile_ms
from milkrun.rollout.analysis import slowness
from milkrun.rollout.analysis.alarm import for_latency
from milkrun.rollout.analysis.size import POWER
from milkrun.rollout.analysis.slowness import Difference
from milkrun.rollout.analysis.verdict import Evidence, Finding, Outcome, Seen
from milkrun.settings.rollout import AnalysisSettings

_AGAIN = 2.0
_AGAIN_AT_THE_END = 1.25
"""By what factor the window has to grow before latency is tested again: each test costs a part of the false alarms."""


def compared_latency(
    settings: AnalysisSettings, evidence: Evidence, canary: Seen, stable: Seen, *, final: bool
) -> tuple[Evidence, Finding]:
    """The evidence with the tests made so far, and what the latencies of the instances say."""
    if why := _not_compared(canary, stable):
        return evidence, _finding(Outcome.INCONCLUSIVE, None, f"latency is not compared: {why}", holds=False)
    one, other = slowness.side(canary), slowness.side(stable)
    short = _short(settings, canary, stable)
    if not one.logs or not other.logs:
        short = max(short, slowness.ENOUGH * len(canary.instances) - canary.requests, 1)
    if short:
        said = f"latency: about {short} more requests of the new version are needed to compare the instances' means"
        return evidence, _finding(Outcome.INCONCLUSIVE, None, said, needs=short)
    spread = slowness.spread(canary.latency, stable.latency)
    difference = slowness.difference(one, other, spread)
    due = _due(evidence, canary.requests, final=final)
    if due:
        evidence = msgspec.structs.replace(
            evidence, latency_tests=evidence.latency_tests + 1, latency_tested=canary.requests
        )
    alpha = for_latency(settings.false_alarm, max(1, evidence.latency_tests))
    text = _text(difference, canary, stable)
    if due and _slower(settings, difference, alpha):
        said = f"{text}: surely slower, and by more than {settings.latency_worse_by:g} %"
        return evidence, _finding(Outcome.FAIL, difference, said)
    return evidence, _not_slower(settings, difference, alpha, spread, text, final=final)


def _slower(settings: AnalysisSettings, difference: Difference, alpha: float) -> bool:
    allowed = math.log1p(settings.latency_worse_by / 100)
    return difference.log > max(allowed, slowness.threshold(difference, alpha))


def _not_slower(
    settings: AnalysisSettings, difference: Difference, alpha: float, spread: float, text: str, *, final: bool
) -> Finding:
    """Not slower as far as one knows: the finding says from where on one would know."""
    matters = math.log1p(settings.latency_matters_from / 100)
    from_here = slowness.found_from(difference, alpha, POWER)
    found = f"{100 * math.expm1(from_here):.0f} % slower"
    if from_here <= matters:
        said = f"{text}: a new version that is {found} would have been found out"
        return _finding(Outcome.PASS if final else Outcome.INCONCLUSIVE, difference, said)
    each = slowness.needed(difference, alpha, POWER, matters, spread)
    if each is not None:
        needs = sum(max(0, each - answers) for answers in difference.canary.answers)
        said = f"{text}: about {max(1, needs)} more requests of the new version are needed to tell"
        return _finding(Outcome.INCONCLUSIVE, difference, said, needs=max(1, needs))
    instances = f"{len(difference.canary.logs)} new and {len(difference.stable.logs)} old"
    said = (
        f"{text}: among so few instances ({instances}) only a version that is {found} or more would be found out; more"
        " requests would not help, more instances would"
    )
    return _finding(Outcome.INCONCLUSIVE, difference, said, holds=False)


def _not_compared(canary: Seen, stable: Seen) -> str:
    """Why latency cannot be compared at all; empty when it can."""
    if not stable.requests:
        return "the old version has no requests"
    for name, seen in (("new", canary), ("old", stable)):
        if not any(0 < one.mean_ms < math.inf for one in seen.instances.values()):
            return f"the data plane tells none of the {name} version's instances"
    return ""


def _short(settings: AnalysisSettings, canary: Seen, stable: Seen) -> int:
    """How many more requests of the new version come until both have the least number."""
    behind = max(0, settings.min_requests - stable.requests) * canary.requests / stable.requests
    return max(0, settings.min_requests - canary.requests, math.ceil(behind))


def _due(evidence: Evidence, requests: int, *, final: bool) -> bool:
    """Whether so much has come since the last test that another one is worth its part."""
    return requests > evidence.latency_tested * (_AGAIN_AT_THE_END if final else _AGAIN)


def _text(difference: Difference, canary: Seen, stable: Seen) -> str:
    return (
        f"latency: instances of the new version take {_ms(math.exp(difference.canary.mean))} in the mean, those of the "
        f"old one {_ms(math.exp(difference.stable.mean))} ({100 * math.expm1(difference.log):+.0f} %; "
        f"p50 and p99: {_quantiles(canary)} against {_quantiles(stable)})"
    )


def _quantiles(seen: Seen) -> str:
    return f"{_ms(quantile_ms(seen.latency, 0.5))}, {_ms(quantile_ms(seen.latency, 0.99))}"


def _ms(time: float | None) -> str:
    return "unknown" if time is None else f"{time:.3g} ms"


def _finding(
    outcome: Outcome, difference: Difference | None, said: str, *, needs: int = 0, holds: bool = True
) -> Finding:
    return Finding(
        metric="latency",
        outcome=outcome,
        canary=math.exp(difference.canary.mean) if difference else None,
        stable=math.exp(difference.stable.mean) if difference else None,
        needs=needs,
        said=said,
        holds=holds,
    )
