"""What the comparison of failures comes to, in numbers and in a sentence. Pure."""

from __future__ import annotations

import math

import msgspec

from milkrun.rollout.analysis import failures
from milkrun.rollout.analysis.alarm import for_failures
from milkrun.rollout.analysis.guard import failing
from milkrun.rollout.analysis.size import needed
from milkrun.rollout.analysis.text import many, percent
from milkrun.rollout.analysis.verdict import Counts, Evidence, Finding, Outcome, Seen
from milkrun.rollout.analysis.windows import added, begins, in_window
from milkrun.settings.rollout import AnalysisSettings


def compared_failures(
    settings: AnalysisSettings, evidence: Evidence, new: Counts, canary: Seen, *, final: bool
) -> tuple[list[float], Finding]:
    """The bets after what is new, and what they and the window's counts say."""
    bets = _bets(settings, evidence, new)
    now = in_window(evidence)
    if failures.stake(bets) >= _enough(settings):
        return bets, _finding(
            Outcome.FAIL, now, f"{_counts(now)}: surely more than {_allowed(settings)} above"
        )
    if not now.stable:
        return bets, _alone(settings, canary, now)
    needs = _needs(settings, evidence, now)
    if needs is None:
        said = f"{_counts(now)}: so much fails with the old version that no number of requests would tell"
        return bets, _finding(Outcome.INCONCLUSIVE, now, said)
    if needs:
        said = f"{_counts(now)}: about {many(needs)} more requests of the new version are needed to tell"
        return bets, _finding(Outcome.INCONCLUSIVE, now, said, needs)
    if now.canary_failures / now.canary > now.stable_failures / now.stable + settings.failures_worse_by / 100:
        said = f"{_counts(now)}: more than {_allowed(settings)} above, which may still be chance"
        return bets, _finding(Outcome.INCONCLUSIVE, now, said, now.canary)
    matters = f"{settings.failures_matter_from:g} points"
    said = f"{_counts(now)}: a new version that fails {matters} more would have been found out"
    return bets, _finding(Outcome.PASS if final else Outcome.INCONCLUSIVE, now, said)


def _bets(settings: AnalysisSettings, evidence: Evidence, new: Counts) -> list[float]:
    allowed, matters = _rates(settings)
    earlier = evidence.before.canary + in_window(evidence).canary - new.canary
    part = failures.within_part(earlier, earlier + new.canary)
    if begins(evidence, new):
        part += failures.window_part(evidence.window)
    bets = failures.put_down(evidence.bets, part)
    return failures.grown(bets, new, failures.stable_rate(_known(evidence, new)), allowed, matters)


def _known(evidence: Evidence, new: Counts) -> Counts:
    """What the rollout had counted before `new`: nothing of it may choose the bets that it decides."""
    all_of_it = added(evidence.before, in_window(evidence))
    return msgspec.structs.replace(
        all_of_it,
        stable=all_of_it.stable - new.stable,
        stable_failures=max(0, all_of_it.stable_failures - new.stable_failures),
    )


def _needs(settings: AnalysisSettings, evidence: Evidence, now: Counts) -> int | None:
    """How many more requests of the new version it takes to be sure; None when no number is enough."""
    allowed, matters = _rates(settings)
    stable = failures.stable_rate(added(evidence.before, in_window(evidence)))
    _, part = max(failures.RUNGS, key=lambda rung: rung[1])
    stake = _enough(settings) - math.log(part * failures.window_part(evidence.window))
    per_canary = min(1000.0, max(0.001, now.stable / max(1, now.canary)))
    size = needed(stable, per_canary, allowed, matters, stake)
    if size is None:
        return None
    behind = math.ceil((settings.min_requests - now.stable) / per_canary)
    return max(0, size - now.canary, settings.min_requests - now.canary, behind)


def _alone(settings: AnalysisSettings, canary: Seen, now: Counts) -> Finding:
    """The old version has no traffic: only the limits are left."""
    if broken := failing(settings, canary):
        return msgspec.structs.replace(broken, metric="failures")
    said = (
        f"{_counts(now)}: nothing to compare with; the new version is held against the limit of "
        f"{settings.failures_at_most:g} % only"
    )
    return _finding(Outcome.INCONCLUSIVE, now, said)


def _finding(outcome: Outcome, now: Counts, said: str, needs: int = 0) -> Finding:
    return Finding(
        metric="failures",
        outcome=outcome,
        canary=now.canary_failures / now.canary if now.canary else None,
        stable=now.stable_failures / now.stable if now.stable else None,
        needs=needs,
        said=said,
    )


def _rates(settings: AnalysisSettings) -> tuple[float, float]:
    return settings.failures_worse_by / 100, settings.failures_matter_from / 100


def _enough(settings: AnalysisSettings) -> float:
    """The logarithm of the stake that decides."""
    return -math.log(for_failures(settings.false_alarm))


def _allowed(settings: AnalysisSettings) -> str:
    return f"{settings.failures_worse_by:g} points"


def _counts(now: Counts) -> str:
    return (
        f"failures: {_of(now.canary_failures, now.canary)} with the new version, "
        f"{_of(now.stable_failures, now.stable)} with the old one"
    )


def _of(count: int, requests: int) -> str:
    return f"{many(count)} of {many(requests)} ({percent(count / requests)})" if requests else "no requests"
