"""How good the new version is: guards at any time, the comparison while both versions serve. Pure."""

from __future__ import annotations

import msgspec

from milkrun.model import VersionName
from milkrun.rollout import observed
from milkrun.rollout.analysis.judge import guards, look
from milkrun.rollout.analysis.verdict import Finding, Outcome, Verdict
from milkrun.rollout.facts import Facts
from milkrun.rollout.state import VERDICTS_KEPT, Said, State
from milkrun.rollout.steps import Analyse, Move

LOOK_S = 2.0
"""Routers report every three seconds: looking more often sees nothing new."""


class Judged(msgspec.Struct, frozen=True):
    """The state with what was seen, and why the new version has to go (empty when it may stay)."""

    state: State
    bad: str = ""


def judge(state: State, facts: Facts, now: float) -> Judged:
    """What guards and comparison say now."""
    if not _started(state):
        return Judged(msgspec.structs.replace(state, restarts_before=facts.restarts(state.plan.version)))
    restarts = max(0, facts.restarts(state.plan.version) - state.restarts_before)
    recent = facts.recent or observed.seen(facts, [])
    broken = guards(state.plan.settings.analysis, msgspec.structs.replace(recent, restarts=restarts))
    broken += [check for check in facts.checks if check.outcome is Outcome.FAIL]
    if broken:
        return Judged(
            _said(state, Verdict(outcome=Outcome.FAIL, findings=broken, needs=0), now), _why(broken)
        )
    if not _both_serve(state) or now - state.looked_at < LOOK_S:
        return Judged(state)
    return _compared(state, facts, now)


def _compared(state: State, facts: Facts, now: float) -> Judged:
    step = state.step
    final = isinstance(step, Analyse) and now - state.since >= step.seconds
    evidence, verdict = look(
        state.plan.settings.analysis,
        state.evidence,
        observed.seen(facts, [state.plan.version]),
        observed.seen(facts, state.plan.old),
        final=final,
        window=state.commits[-1] if state.commits else "",
    )
    verdict = _with_checks(verdict, facts.checks)
    state = msgspec.structs.replace(state, evidence=evidence, looked_at=now)
    state = _said(state, verdict, now)
    failed = [finding for finding in verdict.findings if finding.outcome is Outcome.FAIL]
    return Judged(state, _why(failed) if verdict.outcome is Outcome.FAIL else "")


def _with_checks(verdict: Verdict, checks: list[Finding]) -> Verdict:
    """A number from elsewhere that is not known is no good one."""
    unknown = any(check.outcome is Outcome.INCONCLUSIVE for check in checks)
    worse = verdict.outcome is Outcome.PASS and unknown
    return msgspec.structs.replace(
        verdict,
        outcome=Outcome.INCONCLUSIVE if worse else verdict.outcome,
        findings=[*verdict.findings, *checks],
    )


def last(state: State) -> Verdict | None:
    """What was said last in the present step."""
    step = state.step
    if state.verdicts and step and state.verdicts[-1].step == f"{state.index} {step.name}":
        return state.verdicts[-1].verdict
    return None


def passed(state: State, step: Analyse, now: float) -> bool:
    """Whether the time is over and the verdict is good."""
    verdict = last(state)
    return now - state.since >= step.seconds and verdict is not None and verdict.outcome is Outcome.PASS


def _started(state: State) -> bool:
    """Whether git asks for new instances by now."""
    return bool(state.commits)


def _both_serve(state: State) -> bool:
    """Whether both versions have traffic, and every router serves these shares."""
    if not state.served_at:
        return False
    if isinstance(state.step, Move) and state.commit is None:
        return False

    def weight(name: VersionName) -> float:
        return state.wish.weights.get(name, 0.0)

    return weight(state.plan.version) > 0 and any(weight(name) > 0 for name in state.plan.old)


def _said(state: State, verdict: Verdict, now: float) -> State:
    """Only an analysis asks for a verdict; elsewhere a bad one is worth keeping."""
    if not isinstance(state.step, Analyse) and verdict.outcome is not Outcome.FAIL:
        return state
    step = f"{state.index} {state.step.name}" if state.step else ""
    before = [said for said in state.verdicts if said.step != step]
    kept = [*before, Said(step, now, verdict)][-VERDICTS_KEPT:]
    return msgspec.structs.replace(state, verdicts=kept)


def _why(findings: list[Finding]) -> str:
    return "; ".join(finding.said for finding in findings)
