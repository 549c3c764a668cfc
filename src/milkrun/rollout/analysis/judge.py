"""Whether the new version may stay, go on, or has to go: all comparisons together. Pure.

Called every few seconds, any number of times, over the windows of one rollout. Two versions that are the same are told
apart in `false_alarm` of whole rollouts at most; what that rests on is told in docs/analysis.md.
"""

from __future__ import annotations

import msgspec

from milkrun.rollout.analysis.failing import compared_failures
from milkrun.rollout.analysis.guard import guards
from milkrun.rollout.analysis.slow import compared_latency
from milkrun.rollout.analysis.verdict import Evidence, Finding, Outcome, Seen, Verdict
from milkrun.rollout.analysis.windows import counted, taken_up
from milkrun.settings.rollout import AnalysisSettings

__all__ = ["guards", "look"]


def look(
    settings: AnalysisSettings,
    evidence: Evidence,
    canary: Seen,
    stable: Seen,
    *,
    final: bool,
    window: str = "",
) -> tuple[Evidence, Verdict]:
    """What is remembered now, and the verdict. PASS comes only with `final`: the planned time is over.

    `window` is any name that changes with the shares, as their commit. Without one, counts that fall are a new window.
    """
    evidence, new = taken_up(evidence, counted(canary, stable), window)
    bets, failures = compared_failures(settings, evidence, new, canary, final=final)
    evidence = msgspec.structs.replace(evidence, bets=bets)
    evidence, latency = compared_latency(settings, evidence, canary, stable, final=final)
    return evidence, together([failures, latency], final=final)


def together(findings: list[Finding], *, final: bool) -> Verdict:
    """The verdict of these findings: one that fails is enough, and all that hold have to pass."""
    outcomes = {finding.outcome for finding in findings if finding.holds or finding.outcome is Outcome.FAIL}
    if Outcome.FAIL in outcomes:
        outcome = Outcome.FAIL
    else:
        outcome = Outcome.PASS if final and outcomes == {Outcome.PASS} else Outcome.INCONCLUSIVE
    needs = 0 if outcome is Outcome.FAIL else max((one.needs for one in findings if one.holds), default=0)
    return Verdict(outcome=outcome, findings=findings, needs=needs)
